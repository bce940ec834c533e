package render

import (
	"context"
	"slices"

	"github.com/itscales/scales/internal/partition"
)

// changed marks groups in every partition, and returns the members that are to be rendered now, at most as many as the
// limit of the renderer. All others are left to the background. Outages of Redis are waited for.
//
// A partition lists up to the limit of each group by itself, and has what is beyond walked. What all of them together
// list beyond the limit is made pending.
func (r *Renderer) changed(ctx context.Context, groups []string) ([]string, error) {
	type found struct {
		partition *partition.Partition
		partition.Marked
		err error
	}
	var all []*found
	for _, p := range r.config.Store.All() {
		all = append(all, &found{partition: p})
	}
	each(all, func(f *found) {
		f.err = r.insist(ctx, func() (err error) {
			f.Marked, err = f.partition.Mark(ctx, groups, r.config.GroupLimit)
			return err
		})
	})
	var members []string
	for _, f := range all {
		if f.err != nil {
			return nil, f.err
		}
		room := min(r.config.GroupLimit-len(members), len(f.Members))
		members = append(members, f.Members[:room]...)
		if err := r.pend(ctx, f.partition, f.Members[room:], f.Position); err != nil {
			return nil, err
		}
	}
	return members, nil
}

// pend makes keys pending, unless what is there shows the position.
func (r *Renderer) pend(ctx context.Context, p *partition.Partition, keys []string, position partition.Position) error {
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = partition.Operation{Kind: partition.OpPend, Key: key, Position: position}
	}
	for part := range partition.Parts(operations) {
		var commit partition.Commit
		err := r.insist(ctx, func() (err error) {
			commit, err = p.Commit(ctx, part)
			return err
		})
		if err != nil {
			return err
		}
		if slices.Contains(commit.Outcomes, partition.Full) {
			r.config.Logger.Error("scales: members of a group could not be made pending; the cache may have drifted")
		}
	}
	return nil
}

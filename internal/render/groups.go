package render

import (
	"context"
	"slices"

	"github.com/itscales/scales/internal/partition"
)

// found is what a change of groups has found in a partition.
type found struct {
	partition *partition.Partition
	partition.Marked
	err error
}

// changed marks groups in every partition, and returns the members that are to be rendered now, at most as many as the
// limit of the renderer. All others are left to the background. Outages of Redis are waited for.
//
// A partition lists up to the limit of each group by itself, and has what is beyond walked. What all of them together
// list beyond the limit is made pending.
func (r *Renderer) changed(ctx context.Context, work Work) ([]Need, error) {
	var all []*found
	for _, p := range r.config.Store.All() {
		all = append(all, &found{partition: p})
	}
	each(all, func(f *found) {
		f.err = r.insist(ctx, func() (err error) {
			f.Marked, err = f.partition.Mark(ctx, work.Groups, r.config.GroupLimit, work.Job)
			return err
		})
	})
	var needs []Need
	for _, f := range all {
		if f.err != nil {
			return nil, f.err
		}
		room := min(r.config.GroupLimit-len(needs), len(f.Members))
		for _, member := range f.Members[:room] {
			needs = append(needs, Need{Key: member.Key, Why: partition.GroupWhy(member.Group), behind: true})
		}
		if err := r.pend(ctx, f, f.Members[room:], work.Job); err != nil {
			return nil, err
		}
	}
	return needs, nil
}

// pend makes members pending, unless what is there has seen the change.
func (r *Renderer) pend(ctx context.Context, f *found, members []partition.Member, job string) error {
	operations := make([]partition.Operation, len(members))
	for i, member := range members {
		operations[i] = partition.Operation{
			Kind: partition.OpPend, Key: member.Key, Position: f.Position,
			Cause: partition.Cause{Job: job, Why: partition.GroupWhy(member.Group)},
		}
	}
	for part := range partition.Parts(operations) {
		var commit partition.Commit
		err := r.insist(ctx, func() (err error) {
			commit, err = f.partition.Commit(ctx, part)
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

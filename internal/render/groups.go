package render

import (
	"context"
	"slices"

	"github.com/itscales/scales/internal/partition"
)

// performGroups is Perform for work that names groups. All of it goes on without the caller when ctx ends: an outage does
// not make it forget what the job has named besides the groups.
func (r *Renderer) performGroups(ctx context.Context, work Work) ([]Result, error) {
	type outcome struct {
		results []Result
		err     error
	}
	done := make(chan outcome, 1)
	r.work.Go(func() {
		members, err := r.changed(r.stopped, work)
		if err != nil {
			r.config.Logger.Error("scales: groups could not be marked; the cache may have drifted", "groups", work.Groups, "error", err)
		}
		results, failure := r.Perform(r.stopped, Work{Job: work.Job, Needs: join(work.Needs, members), Writes: work.Writes})
		if failure == nil {
			failure = err
		}
		done <- outcome{results, failure}
	})
	select {
	case o := <-done:
		return o.results, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// found is what a change of groups has found in a partition.
type found struct {
	partition *partition.Partition
	members   []partition.Member // each once
	position  partition.Position // of the last mark: a higher ticket has seen the change
	err       error
}

// changed marks groups in every partition, and returns the members that are to be rendered now, at most as many as the
// limit of the renderer. All others are left to the background. Outages of Redis are waited for.
//
// A partition lists up to the limit by itself, and has what is beyond walked. What all of them together list beyond the
// limit is made pending.
func (r *Renderer) changed(ctx context.Context, work Work) ([]Need, error) {
	var all []*found
	for _, p := range r.config.Store.All() {
		all = append(all, &found{partition: p})
	}
	each(all, func(f *found) { f.err = r.mark(ctx, f, work) })
	var needs []Need
	for _, f := range all {
		if f.err != nil {
			return nil, f.err
		}
		room := min(r.config.GroupLimit-len(needs), len(f.members))
		for _, member := range f.members[:room] {
			needs = append(needs, Need{Key: member.Key, Why: partition.GroupWhy(member.Group), behind: true})
		}
		if err := r.pend(ctx, f, f.members[room:], work.Job); err != nil {
			return nil, err
		}
	}
	return needs, nil
}

// mark marks groups in a partition.
func (r *Renderer) mark(ctx context.Context, f *found, work Work) error {
	seen := make(map[string]bool)
	for groups := range slices.Chunk(work.Groups, partition.GroupsAtOnce) {
		var marked partition.Marked
		err := r.insist(ctx, func() (err error) {
			marked, err = f.partition.Mark(ctx, groups, r.config.GroupLimit-len(f.members), work.Job)
			return err
		})
		if err != nil {
			return err
		}
		f.position = marked.Position
		for _, member := range marked.Members {
			if !seen[member.Key] {
				seen[member.Key] = true
				f.members = append(f.members, member)
			}
		}
	}
	return nil
}

// pend makes members pending, unless what is there has seen the change.
func (r *Renderer) pend(ctx context.Context, f *found, members []partition.Member, job string) error {
	operations := make([]partition.Operation, len(members))
	for i, member := range members {
		operations[i] = partition.Operation{
			Kind: partition.OpPend, Key: member.Key, Position: f.position,
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

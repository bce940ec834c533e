package render_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// groupNames are groups of a history. None is a member of what another one's members look like in Redis.
var groupNames = []string{"g", "g /a", `"g\`}

// someGroups draws the groups that a key is in from now on: most of them, or few where the keys are to join at the end.
func (h *history) someGroups(d *dice) (groups []string) {
	for _, group := range h.groups {
		if d.oneIn(4) == h.meeting {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	return groups
}

// changeGroups changes groups in the handler of a job, and adds to the job what the cache is told about it. That names
// the groups and none of their members.
func (h *history) changeGroups(ctx context.Context, d *dice, p *process, j *job, n int) {
	names := slices.Clone(h.groups)
	d.shuffle(names)
	for _, group := range names[:min(n, len(names))] {
		version := h.app.changeGroup(group)
		h.note("%s: group %q has version %d", j.name, group, version)
		if d.oneIn(5) {
			j.marks = append(j.marks, group)
		} else {
			j.groups = append(j.groups, group)
			j.changed[group] = version
		}
		p.pause(ctx)
	}
}

// meet has keys join all groups while the groups change, as the last that happens: what is left behind then, no later
// change brings up to date by chance.
func (h *history) meet(ctx context.Context) {
	var jobs sync.WaitGroup
	for i, key := range h.keys {
		d, p := newDice(h.seed, uint64(i)+100), h.alive(h.dice, nil)
		jobs.Go(func() {
			j := h.newJob("the job in which " + key + " joins")
			h.change(ctx, d, p, j, h.begin(p, key), live, slices.Sorted(slices.Values(h.groups)))
			h.perform(ctx, d, p, j)
		})
	}
	d, p := newDice(h.seed, 99), h.alive(h.dice, nil)
	jobs.Go(func() {
		p.wait(ctx, d.duration(0, h.storeConfig.ClaimLease/2))
		j := h.newJob("the job in which the groups change")
		h.changeGroups(ctx, d, p, j, len(h.groups))
		h.perform(ctx, d, p, j)
	})
	jobs.Wait()
}

// fail makes the job one whose handler failed after it had changed the application: what it names is made pending, and
// what it has written is not used.
func (j *job) fail() {
	for _, op := range j.writes {
		j.needs = append(j.needs, op.Key)
	}
	for _, key := range j.needs {
		j.outside = append(j.outside, partition.Operation{Kind: partition.OpPend, Key: key})
	}
	j.marks = append(j.marks, j.groups...)
	j.name += ", which fails"
	j.needs, j.writes, j.groups = nil, nil, nil
	clear(j.written)
	clear(j.changed)
}

// mark does what programs do that have changed groups outside of jobs. False means that it has to be done again.
func (p *process) mark(ctx context.Context, groups []string) bool {
	if len(groups) == 0 {
		return true
	}
	for _, part := range p.store.All() {
		if _, err := part.Mark(ctx, groups, 0, ""); err != nil {
			return false
		}
	}
	return true
}

// walk walks a little, in smaller steps than Tend does, which may walk at the same time.
func (p *process) walk(ctx context.Context) {
	for range 1 + p.dice.n(3) {
		for _, part := range p.store.All() {
			_, _ = part.Walk(ctx, 1+p.dice.n(2), 100)
		}
	}
}

// settle notes that somebody holds a reply after which a key shows a version.
func (h *history) settle(key string, version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settled[key] = max(h.settled[key], version)
}

// known returns what the application has, and what of it is known to be in the cache: the keys without those whose last
// change, or whose last way into a group, has not been replied to.
func (h *history) known() map[string]page {
	h.mu.Lock()
	settled := maps.Clone(h.settled)
	h.mu.Unlock()
	pages := h.app.lookAll(h.keys)
	maps.DeleteFunc(pages, func(key string, p page) bool { return p.state != live || settled[key] < p.version })
	return pages
}

// checkMembers checks, after a job that changed groups was replied to, that all their members show the change.
//
// The guarantee is for members that the cache knows when the group is marked, as far as they are not beyond the limit. So
// it is asked only for keys whose way into the group had been replied to before the handler of the job began (known), and
// that did not change until they were read. Not covered is a page that joins the group at the same time: the reply to
// the change of the group does not wait for it, and it is current soon after:
//
//	A: a handler has k join the group g; the render of k, ticket 6, is answered with version 1 of g
//	B: a handler changes g to version 2; g is marked with ticket 7, k is not a member; B's client has its reply
//	A: commits k with ticket 6, below the mark: k is pending, and shows version 1 of g until that is rendered
//
// Nor is a page whose render failed; its result says so.
func (h *history) checkMembers(ctx context.Context, j *job, p *process, results []render.Result) {
	if h.careless || p.groupLimit < len(h.keys) {
		return
	}
	failed := make(map[string]bool)
	for _, result := range results {
		failed[result.Key] = result.State == render.Failed
	}
	for key, before := range j.known {
		s, err := h.read(ctx, key)
		if err != nil {
			h.fail("read %s: %w", key, err)
			return
		}
		if failed[key] || h.app.look(key).version != before.version {
			continue
		}
		for _, group := range before.groups {
			version := j.changed[group] // 0 if the job did not change it
			if version > 0 {
				h.count(counts{memberReads: 1})
			}
			if s.nothing || !slices.Contains(s.groups, group) || s.shared[group] < version {
				h.stale("after %s, %s has to show version %d of group %q, and shows %q", j.name, key, version, group, h.app.body(key, s.page))
			}
		}
	}
}

// watch reads all the time, beside everything else. It sees nothing that the application never answered; and at every
// moment each key is a member of the groups of its entry, and of no others, and has a cause if it is pending.
func (h *history) watch(ctx context.Context) {
	ticker := time.NewTicker(2 * h.storeConfig.ClaimLease)
	defer ticker.Stop()
	for {
		for number := range h.storeConfig.Partitions {
			if err := h.watchOnce(ctx, number); err != nil {
				h.fail("read beside: %w", err)
				return
			}
		}
		select {
		case <-ticker.C:
		case <-h.calmed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// watchOnce reads the entries and the memberships of a partition at one moment.
func (h *history) watchOnce(ctx context.Context, number int) error {
	prefix := partition.Prefix(h.storeConfig.Namespace, number)
	var entries, memberships *redis.SliceCmd
	var groups, pending, wanted *redis.StringSliceCmd
	names := make([]string, len(h.keys))
	for i, key := range h.keys {
		names[i] = prefix + "e:" + key
	}
	_, err := h.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		entries = pipe.MGet(ctx, names...)
		memberships = pipe.HMGet(ctx, prefix+"memberships", h.keys...)
		groups = pipe.ZRange(ctx, prefix+"groups", 0, -1)
		pending, wanted = pipe.ZRange(ctx, prefix+"pending", 0, -1), pipe.HKeys(ctx, prefix+"wanted")
		return nil
	})
	if err != nil {
		return err
	}
	var members []string // as the entries have them
	for i, key := range h.keys {
		value, exists := entries.Val()[i].(string)
		joined, _ := memberships.Val()[i].(string)
		var s shown
		if exists {
			s = h.decode(key, value)
		}
		if s.odd != "" {
			h.stale("%s shows %s", key, s.odd)
			continue
		}
		want := ""
		for _, group := range s.groups {
			want += group + "\t"
			members = append(members, group+"\t"+key)
		}
		if joined != want {
			h.stale("%s is in the groups %q and has to be in %q", key, joined, want)
		}
	}
	slices.Sort(members)
	if !slices.Equal(groups.Val(), members) {
		h.stale("the members of partition %d are %q and have to be %q", number, groups.Val(), members)
	}
	slices.Sort(pending.Val())
	slices.Sort(wanted.Val())
	if !slices.Equal(pending.Val(), wanted.Val()) {
		h.stale("partition %d has the pending keys %q, and has causes of %q", number, pending.Val(), wanted.Val())
	}
	return nil
}

// judgeGroups compares, when all is quiet, the memberships in the cache with those that the keys have to have.
func (h *history) judgeGroups(ctx context.Context, want map[string][]string) {
	for _, key := range h.keys {
		groups, err := h.observer.Of(key).Groups(ctx, key)
		if err != nil {
			h.fail("groups of %s: %w", key, err)
		}
		if !slices.Equal(groups, want[key]) {
			h.driftOf(key, "is in the groups %q, in the application in %q", groups, want[key])
		}
	}
	for _, group := range h.groups {
		var members []string
		for _, p := range h.observer.All() {
			some, err := p.Members(ctx, group, "", 100)
			if err != nil {
				h.fail("members of %q: %w", group, err)
			}
			members = append(members, some...)
		}
		slices.Sort(members)
		has := slices.DeleteFunc(slices.Clone(h.keys), func(key string) bool { return !slices.Contains(want[key], group) })
		if !slices.Equal(members, has) {
			h.drift("group %q has the members %q, in the application %q", group, members, has)
		}
	}
	for number := range h.storeConfig.Partitions {
		marks, err := h.client.ZRange(ctx, partition.Prefix(h.storeConfig.Namespace, number)+"marks", 0, -1).Result()
		if err != nil {
			h.fail("marks: %w", err)
		}
		if odd := slices.DeleteFunc(marks, func(group string) bool { return slices.Contains(h.groups, group) }); len(odd) > 0 {
			h.drift("partition %d has marks of groups that there are not: %q", number, odd)
		}
	}
}

// crashesIn counts a process that has died in the step that a script with these keys is.
func crashesIn(keys []string) counts {
	switch {
	case len(keys) > 1 && strings.HasSuffix(keys[1], "}:walks"):
		return counts{walkCrashes: 1}
	case len(keys) > 3 && strings.HasSuffix(keys[3], "}:walks"):
		return counts{markCrashes: 1}
	}
	return counts{}
}

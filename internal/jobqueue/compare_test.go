package jobqueue_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// compare compares Redis with the model, and learns where jobs are.
func (h *history) compare(ctx context.Context) error {
	in, err := h.look(ctx)
	if err != nil {
		return err
	}
	for i, message := range in.jobs[:min(len(in.jobs), len(h.model.queue))] {
		if j := h.model.queue[i]; j.at == "" && message.Values["id"] == j.id {
			j.at = message.ID
		}
	}
	for _, message := range in.dead { // in the order in which calls reached all who wait
		for _, l := range h.model.dead {
			if message.Values["id"] == l.job.id {
				l.at = message.ID
			}
		}
	}
	found, want := in.lines(h.names), h.model.lines(h.names)
	if slices.Equal(found, want) {
		return nil
	}
	var b strings.Builder
	for _, line := range found {
		if !slices.Contains(want, line) {
			fmt.Fprintf(&b, "\nthere is:     %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(found, line) {
			fmt.Fprintf(&b, "\nthere is not: %s", line)
		}
	}
	return violated("in Redis%s", b.String())
}

// lines are what is to be in Redis, one notion in a line.
func (m *model) lines(names map[string]string) (lines []string) {
	for _, j := range m.queue {
		lines = append(lines, lineOfJob(j.name, names[j.owner], j.deliveries, j.held, j.owed))
	}
	var rest []string
	for _, j := range m.known {
		rest = append(rest, "tracked: "+j.name, "to live: "+j.name)
		if j.bound {
			rest = append(rest, fmt.Sprintf("scope %s: %s %s", j.scope, j.name, j.payload))
		}
		if j.kept {
			rest = append(rest, fmt.Sprintf("kept of %s: %q", j.name, j.reply))
		}
		if j.waiters != nil {
			var waiters []string
			for _, w := range j.waiters {
				waiters = append(waiters, names[w.server]+":"+names[w.id])
			}
			rest = append(rest, "waiting for "+j.name+": "+strings.Join(waiters, " "))
		}
	}
	for id := range m.workers {
		rest = append(rest, "worker "+names[id])
	}
	for _, l := range m.dead {
		rest = append(rest, fmt.Sprintf("dead: %s %s, drifted %t", l.job.name, l.reason, l.drifted))
	}
	slices.Sort(rest)
	return append(append(lines, rest...), fmt.Sprintf("dead letters %d, drifts %d, bytes %d", m.died, m.drifts, m.bytes()))
}

func lineOfJob(name, owner string, deliveries int64, held, owed string) string {
	if owner == "" {
		return name + " waits"
	}
	return fmt.Sprintf("%s of %s for the %d. time, held %q, owed %q", name, owner, deliveries, held, owed)
}

// found is what a queue has in Redis.
type found struct {
	jobs, dead              []redis.XMessage
	pending                 []redis.XPendingExt
	held, owed              map[string]string
	tracked, lives, workers []string
	scopes, kept, waiters   map[string]string
	statistics              map[string]string
}

func (h *history) look(ctx context.Context) (found, error) {
	q, pipe := h.config.Prefix+"q:", h.client.Pipeline()
	jobs, dead := pipe.XRange(ctx, q+"jobs", "-", "+"), pipe.XRange(ctx, q+"dead", "-", "+")
	pending := pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: q + "jobs", Group: "workers", Start: "-", End: "+", Count: 1000})
	held, owed := pipe.HGetAll(ctx, q+"held"), pipe.HGetAll(ctx, q+"owed")
	tracked, lives, workers := pipe.HKeys(ctx, q+"tracked"), pipe.ZRange(ctx, q+"lives", 0, -1), pipe.HKeys(ctx, q+"workers")
	scopes, kept, waiters := pipe.HGetAll(ctx, q+"scopes"), pipe.HGetAll(ctx, q+"kept"), pipe.HGetAll(ctx, q+"waiters")
	statistics := pipe.HGetAll(ctx, q+"statistics")
	if _, err := pipe.Exec(ctx); err != nil {
		return found{}, err
	}
	return found{
		jobs.Val(), dead.Val(), pending.Val(), held.Val(), owed.Val(), tracked.Val(), lives.Val(), workers.Val(),
		scopes.Val(), kept.Val(), waiters.Val(), statistics.Val(),
	}, nil
}

// lines are what is in Redis; see lines of the model.
func (f found) lines(names map[string]string) (lines []string) {
	owners := make(map[string]redis.XPendingExt)
	for _, one := range f.pending {
		owners[one.ID] = one
	}
	for _, message := range f.jobs {
		at, owner := message.ID, owners[message.ID]
		name := names[fmt.Sprint(message.Values["id"])]
		lines = append(lines, lineOfJob(name, names[owner.Consumer], owner.RetryCount, f.held[at], f.owed[at]))
		delete(owners, at)
		delete(f.held, at)
		delete(f.owed, at)
	}
	for _, at := range slices.Concat(slices.Collect(maps.Keys(owners)), slices.Collect(maps.Keys(f.held)), slices.Collect(maps.Keys(f.owed))) {
		lines = append(lines, "owned, held or owed, and not there: "+at)
	}
	var rest []string
	for _, id := range f.tracked {
		rest = append(rest, "tracked: "+names[id])
	}
	for _, id := range f.lives {
		rest = append(rest, "to live: "+names[id])
	}
	for scope, record := range f.scopes {
		rest = append(rest, fmt.Sprintf("scope %s: %s", scope, named(record, names)))
	}
	for id, reply := range f.kept {
		rest = append(rest, fmt.Sprintf("kept of %s: %q", names[id], reply))
	}
	for id, list := range f.waiters {
		rest = append(rest, "waiting for "+names[id]+": "+named(list, names))
	}
	for _, id := range f.workers {
		rest = append(rest, "worker "+names[id])
	}
	for _, letter := range f.dead {
		rest = append(rest, fmt.Sprintf("dead: %s %s, drifted %t", names[fmt.Sprint(letter.Values["id"])], letter.Values["reason"], letter.Values["drift"] == "1"))
	}
	slices.Sort(rest)
	count := func(name string) string { return cmp.Or(f.statistics[name], "0") }
	return append(append(lines, rest...), fmt.Sprintf("dead letters %s, drifts %s, bytes %s", count("dead"), count("drift"), count("kept")))
}

// named returns a record with names in the place of ids.
func named(record string, names map[string]string) string {
	fields := strings.Fields(record)
	for i, field := range fields {
		server, id, both := strings.Cut(field, ":")
		if both {
			fields[i] = names[server] + ":" + names[id]
		} else {
			fields[i] = cmp.Or(names[field], field)
		}
	}
	return strings.Join(fields, " ")
}

package scales

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/step"
)

// Push stores an entry. Unless it is push-only or has a ticket, a worker then confirms it by a render; until then it may
// hide something newer, because nobody knows when it was made.
func (c *Cache) Push(ctx context.Context, key string, e Entry) error {
	key, err := c.parse(key)
	if err != nil {
		return err
	}
	op, err := c.operation(key, e, "", nil)
	if err != nil {
		return err
	}
	return c.commit(ctx, []partition.Operation{op})
}

// Destroy removes resources. A worker then confirms it by a render, except for push-only entries; until then it may hide
// something newer.
func (c *Cache) Destroy(ctx context.Context, keys ...string) error {
	return c.change(ctx, keys, func(key string) partition.Operation { return destroy(key, "") })
}

// Update has resources rendered by a worker. It returns when that is recorded in Redis, not when it is done.
func (c *Cache) Update(ctx context.Context, keys ...string) error {
	return c.change(ctx, keys, func(key string) partition.Operation { return update(key, "", "update") })
}

// update returns the change that makes a key pending.
func update(key, job, why string) partition.Operation {
	return partition.Operation{Kind: partition.OpPend, Key: key, Cause: partition.Cause{Job: job, Why: why}}
}

func (c *Cache) change(ctx context.Context, keys []string, operation func(key string) partition.Operation) error {
	keys, err := c.parseAll(keys)
	if err != nil {
		return err
	}
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = operation(key)
	}
	return c.commit(ctx, operations)
}

// commit performs operations, those of each partition in one atomic step unless they are very many.
func (c *Cache) commit(ctx context.Context, operations []partition.Operation) error {
	if err := render.Stamp(ctx, c.store, operations); err != nil {
		return c.unavailable(err)
	}
	byPartition := make(map[*partition.Partition][]partition.Operation)
	for _, op := range operations {
		p := c.store.Of(op.Key)
		byPartition[p] = append(byPartition[p], op)
	}
	var (
		problems []error
		written  []string // keys that have changed
	)
	for _, op := range operations {
		if op.Kind != partition.OpPend {
			written = append(written, op.Key)
		}
	}
	for p, group := range byPartition {
		for part := range partition.Parts(group) {
			commit, err := p.Commit(ctx, part)
			if err != nil {
				problems = append(problems, c.unavailable(err))
				break
			}
			for i, outcome := range commit.Outcomes {
				switch {
				case outcome == partition.Full:
					problems = append(problems, fmt.Errorf("%w: %s", ErrBacklog, part[i].Key))
				case outcome.Again():
					problems = append(problems, fmt.Errorf("%w: %s", ErrTicket, part[i].Key))
				}
			}
		}
	}
	c.kickRenderers()
	if len(written) > 0 {
		c.reach(ctx, c.store.Reach(written...))
	}
	return errors.Join(problems...)
}

// reach returns when the local copies of this process show what the change logs have up to there.
func (c *Cache) reach(ctx context.Context, reach partition.Reach) {
	c.mu.Lock()
	readers := slices.Collect(maps.Keys(c.copies))
	c.mu.Unlock()
	each(readers, func(rd *reader) { rd.reach(ctx, reach) })
}

// each calls do for all readers at once.
func each(readers []*reader, do func(*reader)) {
	if len(readers) == 1 {
		do(readers[0])
		return
	}
	var group sync.WaitGroup
	for _, rd := range readers {
		group.Go(func() { do(rd) })
	}
	group.Wait()
}

// pend has something rendered in the background that a job has named. What finds no room is logged: only an outage is an
// error.
func (c *Cache) pend(ctx context.Context, job string, what step.Pending) error {
	groups := slices.Clone(what.Groups)
	for _, key := range what.Related {
		related, err := c.store.Of(key).Groups(ctx, key)
		if err != nil {
			return c.unavailable(err)
		}
		groups = append(groups, related...)
	}
	if err := c.markGroups(ctx, job, groups); err != nil {
		return err
	}
	operations := make([]partition.Operation, len(what.Keys))
	for i, key := range what.Keys {
		operations[i] = update(key, job, "failed request")
		operations[i].Limited = true
	}
	err := c.commit(ctx, operations)
	if errors.Is(err, ErrUnavailable) || err == nil {
		return err
	}
	c.config.logger.Error("scales: keys could not be made pending; the cache may have drifted", "error", err)
	return nil
}

// Ticket takes a ticket for exact pushes.
func (c *Cache) Ticket(ctx context.Context) (Ticket, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	t := Ticket{positions: make([]partition.Position, len(c.store.All()))}
	problems := make([]error, len(t.positions))
	var group sync.WaitGroup
	for i, p := range c.store.All() {
		group.Go(func() { t.positions[i], problems[i] = p.Ticket(ctx) })
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return Ticket{}, c.unavailable(err)
	}
	return t, nil
}

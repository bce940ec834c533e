package render_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A job is what a handler has changed and how it tells the cache. It is decided: whoever takes it over does the same.
type job struct {
	name    string
	needs   []string
	pending []string
	writes  []partition.Operation
	written map[string]int // the version that the job made of each key in writes
}

// script runs a few jobs, one after the other, on a process that is replaced when it dies.
func (h *history) script(ctx context.Context, d *dice, worker int) {
	var takeovers sync.WaitGroup
	defer takeovers.Wait()
	home := h.processes[worker%len(h.processes)]
	for number := range 2 + d.n(4) {
		home = h.alive(d, home)
		home.pause(ctx)
		j := h.handle(ctx, d, home, fmt.Sprintf("job %d of worker %d", number+1, worker+1))
		if d.oneIn(10) { // another worker takes the job over although its worker lives
			takeovers.Go(func() { h.perform(ctx, d, h.alive(d, nil), j) })
		}
		h.perform(ctx, d, home, j)
	}
}

// handle is the handler of a job: it changes one or two keys and tells the cache about each, by a render, a push or a
// destroy.
func (h *history) handle(ctx context.Context, d *dice, p *process, name string) *job {
	j := &job{name: name, written: make(map[string]int)}
	floors := make(map[string]partition.Position) // as the writer of a job has them: from before the handler begins
	keys := slices.Clone(h.keys)
	d.shuffle(keys)
	for _, key := range keys {
		floors[key] = p.store.Of(key).Floor()
	}
	changed := min(1+d.n(2), len(keys))
	for _, key := range keys[:changed] {
		to := live
		switch roll := d.n(20); {
		case roll < 8:
			to = gone
		case roll < 10:
			to = broken
		case roll < 11:
			to = private
		}
		now := h.app.change(key, to)
		h.note("%s: %s has version %d, state %d", name, key, now.version, now.state)
		p.pause(ctx)
		h.tell(ctx, d, p, j, key, now, floors[key])
	}
	if changed < len(keys) && d.oneIn(4) {
		j.needs = append(j.needs, keys[changed])
	}
	return j
}

// tell adds to the job what the cache is told about a key that it has changed.
func (h *history) tell(ctx context.Context, d *dice, p *process, j *job, key string, changed resource, floor partition.Position) {
	op := partition.Operation{Key: key}
	switch roll := d.n(20); {
	case roll < 10:
		j.needs = append(j.needs, key)
		return
	case roll < 11:
		j.pending = append(j.pending, key)
		return
	case roll < 15:
		op.Kind, op.Position = partition.OpPush, floor
	default: // exactly: the ticket is taken after the change and before the read
		position, err := p.store.Of(key).Ticket(ctx)
		if err != nil {
			j.needs = append(j.needs, key)
			return
		}
		op.Kind, op.Position = partition.OpStore, position
		p.pause(ctx)
		if d.oneIn(4) {
			j.needs = append(j.needs, key)
		}
	}
	read := h.app.look(key)
	p.pause(ctx)
	switch read.state {
	case live:
		value, err := message.AppendEntry(nil, &message.Entry{Ticket: op.Ticket, Status: 200, Body: []byte(body(key, read.version))})
		if err != nil {
			h.fail("make an entry: %w", err)
		}
		op.Value = string(value)
	case gone:
		op.Kind = map[partition.Kind]partition.Kind{
			partition.OpPush: partition.OpRemove, partition.OpStore: partition.OpDestroy,
		}[op.Kind]
	default: // nothing to push
		if !slices.Contains(j.needs, key) {
			j.needs = append(j.needs, key)
		}
		return
	}
	h.note("%s: %s %s with version %d at %s", j.name, op.Kind, key, read.version, op.Ticket)
	j.writes = append(j.writes, op)
	j.written[key] = changed.version
}

// perform does what a decided job owes, on one process after the other until one does it without being killed, and
// checks what the client can read when it has its reply.
func (h *history) perform(ctx context.Context, d *dice, p *process, j *job) {
	h.mu.Lock()
	for _, key := range slices.Concat(j.needs, j.pending) {
		h.named[key] = true
	}
	for key := range j.written {
		h.named[key] = true
	}
	h.mu.Unlock()
	for ctx.Err() == nil {
		p = h.alive(d, p)
		h.note("%s: is performed by process %d", j.name, p.number)
		if !h.pend(ctx, p, j.pending) {
			continue
		}
		work := render.Work{Writes: j.writes}
		versions := make([]int, len(j.needs)) // what a render that begins now shows at least
		for i, key := range j.needs {
			work.Needs = append(work.Needs, render.Need{Key: key, Limited: true})
			versions[i] = h.app.look(key).version
		}
		results, err := p.renderer.Perform(ctx, work)
		if p.isKilled() {
			continue
		}
		if err != nil {
			h.fail("%s on process %d: %w", j.name, p.number, err)
			return
		}
		h.note("%s: is replied to: %v", j.name, results)
		for i, result := range results {
			if result.State == render.Stored || result.State == render.Destroyed {
				h.checkReply(ctx, j, result.Key, versions[i])
			}
		}
		for key, version := range j.written {
			// A push that was overtaken is replaced by a render. If that fails nobody is told.
			if !h.vague && h.app.look(key).broken < version {
				h.checkReply(ctx, j, key, version)
			}
		}
		return
	}
	h.fail("%s was not performed: %w", j.name, ctx.Err())
}

// pend makes keys pending, as programs outside of jobs do. False means that it has to be done again.
func (h *history) pend(ctx context.Context, p *process, keys []string) bool {
	for _, key := range keys {
		_, err := p.store.Of(key).Commit(ctx, []partition.Operation{{Kind: partition.OpPend, Key: key}})
		if err != nil {
			return false
		}
	}
	return true
}

// heal makes the application answer for every key. A render that has failed is tried again by itself; for what was
// refused a job says that it can be stored now.
func (h *history) heal(ctx context.Context) {
	heal := &job{name: "the last job"}
	for _, key := range h.keys {
		was := h.app.look(key)
		switch {
		case was.state == broken && h.dice.oneIn(2):
			h.note("%s heals by itself", key)
			h.app.change(key, live)
		case was.state == broken, was.state == private:
			h.app.change(key, live)
			heal.needs = append(heal.needs, key)
		}
	}
	if len(heal.needs) > 0 {
		started := time.Now()
		h.perform(ctx, h.dice, nil, heal)
		h.note("healed after %v", time.Since(started))
	}
}

package render_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"sync"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/representation"
)

// A job is what a handler has changed and how it tells the cache. It is decided: whoever takes it over does the same.
type job struct {
	name    string
	needs   []string
	writes  []partition.Operation
	written map[string]page       // what the job made of each key in writes
	groups  []string              // have changed
	changed map[string]int        // the version that the job made of each group in groups
	outside []partition.Operation // what programs outside of jobs do to the cache
	marks   []string              // groups that they have changed
	known   map[string]page       // what the cache had when the handler began
	number  int                   // in the queue; 0 if it is not there
}

func (h *history) newJob(name string) *job {
	j := &job{name: name, written: make(map[string]page), changed: make(map[string]int), known: h.known()}
	h.enqueue(j)
	return j
}

// keys returns the keys that the job names.
func (j *job) keys() []string {
	keys := slices.Clone(j.needs)
	for _, op := range slices.Concat(j.writes, j.outside) {
		keys = append(keys, op.Key)
	}
	return keys
}

// script runs a few jobs, one after the other, on a process that is replaced when it dies.
func (h *history) script(ctx context.Context, d *dice, home *process) {
	var takeovers sync.WaitGroup
	defer takeovers.Wait()
	worker := home.number
	for number := range 2 + d.n(4) {
		home = h.alive(d, home)
		home.pause(ctx)
		name := fmt.Sprintf("job %d of worker %d", number+1, worker)
		if d.oneIn(12) {
			h.perform(ctx, d, home, &job{name: name + ", a fill", needs: h.keys})
			continue
		}
		j := h.handle(ctx, d, home, name)
		if d.oneIn(10) { // another worker takes the job over although its worker lives
			takeovers.Go(func() { h.perform(ctx, d, h.alive(d, nil), j) })
		}
		h.perform(ctx, d, home, j)
		if d.oneIn(3) {
			home.walk(ctx)
		}
	}
}

// A change is what a handler has done to a key.
type change struct {
	key     string
	was, is page
	floor   partition.Position // as the writer of a job has it: from before the handler began
}

// handle is the handler of a job: it changes keys or groups, or both, and tells the cache about each.
func (h *history) handle(ctx context.Context, d *dice, p *process, name string) *job {
	j := h.newJob(name)
	keys, groups := slices.Clone(h.keys), 0
	d.shuffle(keys)
	changes := make([]change, min(1+d.n(2), len(keys)))
	if len(h.groups) > 0 && d.oneIn(2) {
		groups = 1 + d.n(2)
		changes = changes[:d.n(len(changes)+1)]
	}
	for i := range changes {
		changes[i] = h.begin(p, keys[i])
	}
	late := d.oneIn(2)
	if !late {
		h.changeGroups(ctx, d, p, j, groups)
	}
	for _, c := range changes {
		to := live
		switch roll := d.n(20); {
		case roll < 8:
			to = gone
		case roll < 10:
			to = broken
		case roll < 11:
			to = private
		}
		h.change(ctx, d, p, j, c, to, h.someGroups(d))
	}
	if late {
		h.changeGroups(ctx, d, p, j, groups)
	}
	if len(changes) < len(keys) && d.oneIn(4) {
		j.needs = append(j.needs, keys[len(changes)])
	}
	if d.oneIn(12) {
		j.fail()
	}
	return j
}

// begin notes what a handler finds that is about to change a key.
func (h *history) begin(p *process, key string) change {
	return change{key: key, was: h.app.look(key), floor: p.store.Of(key).Floor()}
}

// change changes a key in the handler of a job.
func (h *history) change(ctx context.Context, d *dice, p *process, j *job, c change, to state, groups []string) {
	c.is = h.app.change(c.key, to, groups)
	h.promise(c.key)
	h.note("%s: %s has version %d, state %d, groups %q", j.name, c.key, c.is.version, c.is.state, groups)
	p.pause(ctx)
	h.tell(ctx, d, p, j, c)
}

// tell adds to the job what the cache is told about a change: that the key needs a render, or what is there now.
func (h *history) tell(ctx context.Context, d *dice, p *process, j *job, c change) {
	op := partition.Operation{Key: c.key}
	switch roll := d.n(20); {
	case roll < 10:
		j.needs = append(j.needs, c.key)
		return
	case roll < 11:
		j.outside = append(j.outside, partition.Operation{Kind: partition.OpPend, Key: c.key})
		return
	case roll < 12 && h.careless:
		op.Kind = partition.OpOverwrite
	case roll < 15:
		op.Kind, op.Position = partition.OpPush, c.floor
	default: // exactly: the ticket is taken after the change and before the read
		position, err := p.store.Of(c.key).Ticket(ctx)
		if err != nil {
			j.needs = append(j.needs, c.key)
			return
		}
		op.Kind, op.Position = partition.OpPut, position
		p.pause(ctx)
		if d.oneIn(4) {
			j.needs = append(j.needs, c.key)
		}
	}
	read := h.app.look(c.key)
	if h.careless && op.Kind != partition.OpPut && d.oneIn(2) {
		read = c.was
	}
	p.pause(ctx)
	if !h.represent(&op, read) {
		if !slices.Contains(j.needs, c.key) {
			j.needs = append(j.needs, c.key)
		}
		return
	}
	h.note("%s: %s %s with version %d at %s", j.name, op.Kind, c.key, read.version, op.Ticket)
	if op.Kind == partition.OpOverwrite || op.Kind == partition.OpErase {
		j.outside = append(j.outside, op)
		return
	}
	j.writes = append(j.writes, op)
	j.written[c.key] = c.is
}

// represent makes an operation that stores one that stores, or destroys, what was read. False means that this is nothing
// to be pushed.
func (h *history) represent(op *partition.Operation, read page) bool {
	switch {
	case read.state == live && read.varies():
		return false // what is pushed has no variants
	case read.state == live:
		answer := httptest.NewRecorder() // it has the fields that a render stores
		h.app.answer(answer, op.Key, read)
		entry := message.Entry{Ticket: op.Ticket, Status: answer.Code, Header: answer.Result().Header, Body: answer.Body.Bytes()}
		representation.Complete(&entry, nil)
		value, err := message.AppendEntry(nil, &entry)
		if err != nil {
			h.fail("make an entry: %w", err)
		}
		op.Value, op.Groups = string(value), read.groups
	case read.state == gone:
		op.Kind = map[partition.Kind]partition.Kind{
			partition.OpPut: partition.OpDrop, partition.OpPush: partition.OpRemove, partition.OpOverwrite: partition.OpErase,
		}[op.Kind]
	default:
		return false
	}
	return true
}

// perform does what a decided job owes, on one process after the other until one does it without being killed, and
// checks what the client can read when it has its reply.
func (h *history) perform(ctx context.Context, d *dice, p *process, j *job) {
	h.name(j)
	for ctx.Err() == nil {
		p = h.alive(d, p)
		h.note("%s: is performed by process %d", j.name, p.number)
		if !p.commit(ctx, j.outside) || !p.mark(ctx, j.marks) {
			continue
		}
		p.renderer.Kick()
		work := render.Work{Groups: j.groups, Writes: j.writes}
		for _, key := range j.needs {
			work.Needs = append(work.Needs, render.Need{Key: key, Limited: true})
		}
		least := h.app.lookAll(h.keys) // what a render that begins now shows at least
		results, err := p.renderer.Perform(ctx, work)
		if p.isKilled() {
			continue
		}
		if err != nil {
			h.fail("%s on process %d: %w", j.name, p.number, err)
			return
		}
		h.finish(j)
		h.note("%s: is replied to: %v", j.name, results)
		for _, result := range results {
			if result.State == render.Stored || result.State == render.Destroyed {
				h.checkReply(ctx, j, result.Key, least[result.Key])
			}
		}
		for key, is := range j.written {
			// A push that was overtaken is replaced by a render. If that fails nobody is told.
			if !h.vague && h.app.look(key).broken < is.version {
				h.checkReply(ctx, j, key, is)
			}
		}
		h.checkMembers(ctx, j, p, results)
		return
	}
	h.fail("%s was not performed: %w", j.name, ctx.Err())
}

// name notes which keys a job names.
func (h *history) name(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range j.keys() {
		h.named[key] = true
	}
}

// commit does what programs outside of jobs do. False means that it has to be done again.
func (p *process) commit(ctx context.Context, operations []partition.Operation) bool {
	for _, op := range operations {
		if _, err := p.store.Of(op.Key).Commit(ctx, []partition.Operation{op}); err != nil {
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
			h.app.change(key, live, was.groups)
		case was.state == broken, was.state == private:
			h.app.change(key, live, was.groups)
			heal.needs = append(heal.needs, key)
		}
	}
	if len(heal.needs) > 0 {
		h.perform(ctx, h.dice, nil, heal)
	}
}

package render_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/itscales/scales/internal/audit"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// Jobs have ids as in the queue: one is there from before its handler changes the application until one process has done
// all that it owes. A process that dies in the middle leaves it there for another.

func (h *history) enqueue(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enqueued++
	j.number = h.enqueued
	h.queue = append(h.queue, j.number)
}

// finish takes a job out of the queue, if it is there: where two processes perform it, the first of them ends it. From then
// on the cache has the keys that it names, or what it has of them is pending.
func (h *history) finish(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = slices.DeleteFunc(h.queue, func(number int) bool { return number == j.number })
	for _, key := range j.keys() {
		h.promised[key] = true
	}
}

// promise notes that from now on a key which the cache does not have is drift, unless something explains it.
func (h *history) promise(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.promised[key] = true
}

// span returns the oldest and the newest job in the queue.
func (h *history) span(context.Context) (oldest, newest string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return "", "", nil
	}
	return strconv.Itoa(h.queue[0]), strconv.Itoa(h.queue[len(h.queue)-1]), nil
}

// A verifier compares keys with the application as a Verify does, on a process that pauses and crashes like all others.
type verifier struct {
	history  *history
	dice     *dice
	process  *process
	audit    *audit.Auditor
	promised bool // the cache had to have the key when the last look began
}

func (h *history) newVerifier(d *dice, p *process, patience time.Duration) *verifier {
	v := &verifier{history: h, dice: d, process: p}
	v.audit = audit.New(audit.Config{
		Status: func(ctx context.Context, key string) (partition.Status, error) {
			return v.process.store.Of(key).Explain(ctx, key)
		},
		Look: func(ctx context.Context, key string) (partition.Operation, render.Result) {
			h.count(counts{looks: 1})
			h.mu.Lock()
			v.promised = h.promised[key]
			h.mu.Unlock()
			return v.process.renderer.Look(ctx, key)
		},
		// All that changes the application is jobs, so a difference need not last.
		Jobs: h.span, Patience: patience, Pause: h.storeConfig.ClaimLease / 2,
	})
	return v
}

// verify compares keys all the time, beside everything else, and repairs some. It begins on a process.
func (h *history) verify(ctx context.Context, home *process) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.calmed:
			cancel()
		case <-ctx.Done():
		}
	}()
	v := h.newVerifier(newDice(h.seed, 98), home, 10*h.longest)
	for ctx.Err() == nil {
		v.process = h.alive(v.dice, v.process)
		key := h.keys[v.dice.n(len(h.keys))]
		if f, err := v.compare(ctx, key); err == nil && (f.Kind.Drift() && v.dice.oneIn(2) || v.dice.oneIn(10)) {
			v.repair(ctx, key)
		}
		if v.dice.oneIn(4) {
			v.misfiled(ctx)
		}
		v.process.wait(ctx, v.dice.duration(0, h.storeConfig.ClaimLease))
	}
}

// compare compares a key. What it reports has to be so: no job under way may explain it, and no render.
//
// When all jobs that have changed a page or its groups have ended, and nothing is pending, the fence has it current. So no
// difference is left to be reported, however careless pushes were, how short tombstones live, and who has died: what is
// pushed and may be old is pending with the same commit, a ticket from before the oldest tombstone is refused and its key
// rendered again, and a claim that nobody holds any more is there until it is pending. The one true difference is a page
// that the application has had from the beginning, and that nobody has named yet: the cache was not filled.
func (v *verifier) compare(ctx context.Context, key string) (audit.Finding, error) {
	h := v.history
	f, err := v.audit.Compare(ctx, key)
	if err != nil {
		return f, err
	}
	happened := counts{compared: 1}
	switch {
	case f.Kind == audit.Unsettled:
		happened.unsettled = 1
	case f.Kind.Drift():
		happened.reports = 1
	}
	h.count(happened)
	if f.Kind.Drift() {
		h.note("process %d: a verify reports that %s is %s: %s", v.process.number, key, f.Kind, f.Reason)
		if f.Kind != audit.Missing || v.promised {
			h.wrong("beside the history, a verify reports that %s is %s: %s; it answers %q", key, f.Kind, f.Reason, f.Answer)
		}
	}
	return f, nil
}

// repair does what a Verify does with the option Repair. That has to be harmless at any time.
func (v *verifier) repair(ctx context.Context, key string) {
	h, p := v.history, v.process
	h.note("process %d: repairs %s", p.number, key)
	if !p.commit(ctx, []partition.Operation{{Kind: partition.OpPend, Key: key, Cause: partition.Cause{Why: "verify"}}}) {
		return
	}
	h.name(&job{needs: []string{key}})
	h.promise(key)
	if _, err := p.renderer.Perform(ctx, render.Work{Needs: []render.Need{{Key: key, Why: "verify"}}}); err != nil {
		return
	}
	if err := p.store.Of(key).Refile(ctx, key); err != nil {
		return
	}
	h.count(counts{repairs: 1})
	_, _ = v.compare(ctx, key)
}

// misfiled looks for members of groups that do not know of it. There are none at any time.
func (v *verifier) misfiled(ctx context.Context) {
	for _, part := range v.process.store.All() {
		_ = part.Misfiled(ctx, func(key, group string) error {
			v.history.wrong("beside the history, a verify reports that %s is among the members of group %q", key, group)
			return nil
		})
	}
}

// judgeVerify has a verify give a second opinion, when all is quiet: it reports what the judge has found, and nothing else.
func (h *history) judgeVerify(ctx context.Context) {
	v := h.newVerifier(h.dice, h.alive(h.dice, nil), patience)
	for _, key := range h.keys {
		f, err := v.audit.Compare(ctx, key)
		for err == nil && f.Kind == audit.Unrenderable { // the time for a render is too short at the moment
			f, err = v.audit.Compare(ctx, key)
		}
		if err != nil {
			h.fail("verify %s: %w", key, err)
			return
		}
		h.count(counts{compared: 1})
		differs := h.drifted[key]
		switch {
		case f.Kind == audit.Missing && !h.named[key]: // the judge does not ask for what nobody has named
		case f.Kind == audit.Unsettled, f.Kind.Drift() && !differs:
			h.wrong("when all is quiet, a verify reports that %s is %s: %s", key, f.Kind, f.Reason)
		case !f.Kind.Drift() && differs:
			h.wrong("when all is quiet, a verify reports nothing of %s, which has drifted", key)
		}
		if f.Kind.Drift() {
			h.note("a verify reports that %s is %s: %s", key, f.Kind, f.Reason)
		}
	}
	v.misfiled(ctx)
}

// wrong notes a report of a verify that is not so, or one that is lacking.
func (h *history) wrong(format string, args ...any) {
	h.note(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict.wrong = append(h.verdict.wrong, fmt.Sprintf(format, args...))
}

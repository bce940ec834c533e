package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
)

// settle has a worker take the next steps of jobs in hand, with one call.
func (h *history) settle(context.Context) (bool, error) {
	w := pick(h, h.living())
	ready := slices.DeleteFunc(slices.Clone(w.hands), func(one *hand) bool { return one.next == nil })
	if len(ready) == 0 {
		return false, nil
	}
	// They have one name of the worker in common.
	first := pick(h, ready)
	ready = slices.DeleteFunc(ready, func(one *hand) bool { return one == first || one.d.Consumer != first.d.Consumer })
	together := []*hand{first}
	if len(ready) > 0 && h.oneIn(2) {
		together = append(together, some(h, ready, 3)...)
	}
	return true, h.settleHands(w, together, h.fate())
}

func (h *history) settleHands(w *worker, hands []*hand, f fate) error {
	var (
		steps []settlement
		all   []jobqueue.Settlement
		names []string
	)
	for _, in := range hands {
		if in.next.Kind == "expire" {
			in.d.ClearExtended()
		}
		steps, all = append(steps, *in.next), append(all, in.next.Settlement)
		names = append(names, in.next.Kind+" "+in.job.name)
	}
	name := fmt.Sprintf("%s settles %s", w.name, strings.Join(names, ", "))
	h.note("%s%s", name, f)
	h.link.disturb(hands[0].d.Consumer, f)
	moved, err := w.consumer.Settle(all...)
	sent := h.link.leave()
	h.keep(name, sent, always, func(sent []any, _ any) {
		in := slices.DeleteFunc(slices.Clone(steps), func(s settlement) bool { return !has(sent, s.Delivery.StreamID) })
		h.model.settle(in, reaches(sent))
	})
	switch {
	case !f.answered() && !errors.Is(err, errBroken):
		return violated("a call without an answer says %v", err)
	case f == unanswered:
		h.model.settle(steps, reaches(sent[0]))
		return nil // the worker tries it again
	case f == delayed:
		return nil
	case err != nil:
		return err
	}
	want := h.model.settle(steps, everybody)
	if f == twice {
		want = h.model.settle(steps, everybody)
	}
	for i, in := range hands {
		if got := (settled{moved[i], in.next.Kind == "expire" && in.d.Extended()}); got != want[i] {
			return violated("%s, who has it by %s for the %d. time: of %s the queue says %+v, not %+v", name, h.names[in.d.Consumer],
				in.d.Deliveries, in.job.name, got, want[i])
		}
		h.advance(w, in, want[i])
	}
	return nil
}

// advance is what a worker does after a step.
func (h *history) advance(w *worker, in *hand, was settled) {
	switch {
	case was.extended: // somebody waits longer
		in.extended, in.next, in.d.FreesScope = true, nil, false
	case was.moved && in.next.Kind == "decide":
		in.settle("release", "0:"+in.d.StreamID, "")
	case was.moved && (in.next.Kind == "bury" || in.next.Kind == "lose"):
		h.counts.letters++
		w.drop(in)
	default:
		if !was.moved {
			h.counts.refusals++
		}
		w.drop(in)
	}
}

// replay makes a job of a dead letter.
func (h *history) replay(ctx context.Context) (bool, error) {
	l := pick(h, h.model.dead)
	if l == nil {
		return false, nil
	}
	f, name := h.fate(), l.job.name+" is replayed"
	h.note("%s%s", name, f)
	h.counts.replays++
	h.link.disturb(l.at, f)
	err := jobqueue.Replay(ctx, h.client, h.config.Prefix, l.at, time.Hour, h.config.MaxQueue)
	h.keep(name, h.link.leave(), func(drained bool) bool { return !drained }, func([]any, any) { _ = h.model.replay(l) })
	var want error
	if f.executed() {
		want = h.model.replay(l)
	}
	if !f.answered() {
		want = errBroken
	}
	if !errors.Is(err, want) {
		return true, violated("%s: %v, not %v", name, err, want)
	}
	return true, nil
}

// age has tracked jobs live their time, as if it had passed.
func (h *history) age(ctx context.Context) (bool, error) {
	due := 0
	for _, j := range h.model.known {
		if j.due {
			due++
		}
	}
	if len(h.model.known) == 0 || due >= maxDue {
		return false, nil
	}
	for _, j := range some(h, h.model.known, maxDue-due) {
		if err := h.ageJob(ctx, j); err != nil {
			return true, err
		}
	}
	return true, nil
}

package jobqueue_test

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// ageJob has a tracked job live its time.
func (h *history) ageJob(ctx context.Context, j *job) error {
	h.note("%s has lived its time", j.name)
	j.due = true
	return h.client.ZAddXX(ctx, h.config.Prefix+"q:lives", redis.Z{Score: 1, Member: j.id}).Err()
}

// drain has one worker bring all jobs to their end, while nothing is disturbed any more. Then everybody has been told, and
// nothing is left but replies that are kept, and these are forgotten.
func (h *history) drain(ctx context.Context) error {
	h.note("the end begins")
	h.rough = 0
	w, err := h.startWorker(ctx)
	if err != nil {
		return err
	}
	for rounds := 0; len(h.model.queue) > 0; rounds++ {
		if rounds > 100 {
			return violated("%d jobs do not come to their end", len(h.model.queue))
		}
		if err := h.drainOnce(ctx, w); err != nil {
			return err
		}
	}
	if err := h.comeBack(ctx); err != nil {
		return err
	}
	for _, s := range h.present() {
		if err := h.readRepliesOf(ctx, s); err != nil {
			return err
		}
		for _, c := range s.callers {
			if !c.unknown {
				return violated("%s waits for %s, and is never told anything", h.names[c.id], c.job.name)
			}
		}
	}
	for _, j := range slices.Clone(h.model.known) {
		if err := h.ageJob(ctx, j); err != nil {
			return err
		}
	}
	if err := h.beat(ctx, w); err != nil {
		return err
	}
	if n := len(h.model.known) + h.model.bytes() + len(h.model.duplicates); n != 0 {
		return violated("%d tracked jobs of %d bytes are left, twice answered was %v", len(h.model.known), h.model.bytes(), h.model.duplicates)
	}
	return h.compare(ctx)
}

// drainOnce has time pass, so that a worker takes over what others have, and brings that to its end.
func (h *history) drainOnce(ctx context.Context, w *worker) error {
	h.now = h.now.Add(lease / 2)
	if err := h.beat(ctx, w); err != nil {
		return err
	}
	if len(h.model.waiting()) > 0 {
		if err := h.fetchBy(ctx, w, arrives); err != nil {
			return err
		}
	}
	if err := h.compare(ctx); err != nil { // which tells where jobs are
		return err
	}
	if err := h.listBy(ctx, w); err != nil {
		return err
	}
	for len(w.listed) > 0 {
		if err := h.loadBy(ctx, w); err != nil {
			return err
		}
	}
	return h.empty(ctx, w)
}

// empty has a worker bring what it has in hand to its end.
func (h *history) empty(ctx context.Context, w *worker) error {
	for len(w.hands) > 0 {
		in := pick(h, w.hands)
		if in.next == nil {
			if err := h.beginHand(ctx, w, in); err != nil {
				return err
			}
			continue
		}
		if err := h.settleHands(w, []*hand{in}, arrives); err != nil {
			return err
		}
	}
	return h.compare(ctx)
}

// comeBack has all workers, also those that are dead, try to do what they were about to do, and all calls that are
// on their way arrive. Nothing comes of it.
func (h *history) comeBack(ctx context.Context) error {
	for _, w := range h.workers {
		if err := h.empty(ctx, w); err != nil {
			return err
		}
	}
	before := h.model.lines(h.names)
	for _, c := range h.copies {
		if !c.ready(true) {
			continue
		}
		if err := h.arrive(ctx, c); err != nil {
			return err
		}
	}
	if now := h.model.lines(h.names); !slices.Equal(before, now) {
		return violated("calls that come late have changed %q to %q", before, now)
	}
	return h.compare(ctx)
}

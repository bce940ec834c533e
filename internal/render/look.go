package render

import (
	"context"

	"github.com/itscales/scales/internal/partition"
)

// Look asks the application for a key as a render does, and returns what a render would commit, and why if that is a
// failure or a refusal. Nothing is claimed or committed, so what it returns may be older than what the cache has by then.
//
// The operation has a zero position, and its value, an entry of Stored or a tombstone of Destroyed and Refused, has a
// ticket of zeros: it must not be committed. message.ParseEntry reads it. The result is one of these three or Failed.
//
// Look takes a slot, so it counts among the renders that Config.Limit allows at once, and waits for one as long as ctx
// lasts. Where ctx ends, or the renderer is closed, before the application has answered, the result is Failed; the caller
// asks ctx which it was.
func (r *Renderer) Look(ctx context.Context, key string) (partition.Operation, Result) {
	due := partition.Due{Key: key}
	fail := func(err error) (partition.Operation, Result) {
		op := partition.Operation{Kind: partition.OpFail, Key: key, Value: err.Error(), Delay: r.config.Retry}
		return op, Result{key, Failed, err.Error()}
	}
	if !r.enter() {
		return fail(errClosed)
	}
	defer r.work.Done()
	// Only the end of ctx counts: the application finds no value of the caller's in the context of a render.
	asking, cancel := context.WithCancelCause(r.stopped)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	turn := r.slots.take(behind)
	select {
	case <-turn.granted:
		return r.ask(asking, due, nil) // nobody compares codings with those that would be made
	case <-asking.Done():
		r.slots.leave(turn)
	}
	if r.stopped.Err() != nil {
		return fail(errClosed)
	}
	return fail(context.Cause(asking))
}

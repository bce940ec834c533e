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
	if !r.enter() {
		return partition.Operation{Kind: partition.OpFail, Key: key, Value: errClosed.Error(), Delay: r.config.Retry},
			Result{key, Failed, errClosed.Error()}
	}
	defer r.work.Done()
	// Only the end of ctx counts: the application finds no value of the caller's in the context of a render.
	bounded, cancel := context.WithCancelCause(r.stopped)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	// Nobody compares codings with those that would be made.
	return r.ask(bounded, partition.Due{Key: key}, asking{at: behind})
}

package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/streamid"
)

// A DeadLetter is a job that no worker will run (again): its worker died and it may not be repeated, its record is broken, or
// it was replayed in vain.
type DeadLetter struct {
	ID      string // its place in the stream of dead letters
	JobID   string
	Reason  string
	Queued  time.Time // by Redis's clock; so is Died
	Died    time.Time
	Remote  string // address of the client
	Request string // as HTTP/1.1 message text
	Drift   bool   // it may have been carried out, and what its lost response would have named was not rendered
	Replays int    // how often it was replayed before
}

func deadLetterOf(l jobqueue.DeadLetter) DeadLetter {
	return DeadLetter{
		ID: l.ID, JobID: l.JobID, Reason: l.Reason, Queued: redisTime(streamid.Time(l.Queued)), Died: redisTime(streamid.Time(l.ID)),
		Remote: l.Remote, Request: l.Request, Drift: l.Drift, Replays: int(l.Replays),
	}
}

// DeadLetters iterates over the dead letters, the oldest first. An error ends the iteration.
func (q *Queue) DeadLetters(ctx context.Context) iter.Seq2[DeadLetter, error] {
	const page = 100
	return func(yield func(DeadLetter, error) bool) {
		for after := ""; ; {
			letters, err := jobqueue.DeadLetters(ctx, q.cache.rdb, q.cache.queuePrefix(), after, page)
			if err != nil {
				yield(DeadLetter{}, q.cache.unavailable(err))
				return
			}
			for _, letter := range letters {
				if !yield(deadLetterOf(letter), nil) {
					return
				}
				after = letter.ID
			}
			if len(letters) < page {
				return
			}
		}
	}
}

// DeadLetter returns one dead letter. The error is or wraps ErrNoDeadLetter or ErrUnavailable.
func (q *Queue) DeadLetter(ctx context.Context, id string) (DeadLetter, error) {
	letter, err := jobqueue.FindDeadLetter(ctx, q.cache.rdb, q.cache.queuePrefix(), id)
	if err != nil {
		return DeadLetter{}, q.deadLetterError(err)
	}
	return deadLetterOf(letter), nil
}

// replayPatience is how long a job that is replayed may wait for a worker, and be repeated when its worker dies.
const replayPatience = time.Hour

// Replay has the request of a dead letter carried out as it was, once more: it becomes a job with its old id, and is no dead
// letter any more. Whoever calls it knows that the request may have been carried out before.
//
// Nobody waits for the response, which is not kept; what it names is rendered as always. A replay that is answered with a
// status of 500 or more, that no worker begins within an hour, or whose worker dies although it may not be repeated, is a dead
// letter again, with another ID. The error is or wraps ErrNoDeadLetter or ErrUnavailable; after the latter it may have become a
// job all the same. A second call with the same ID does nothing.
func (q *Queue) Replay(ctx context.Context, id string) error {
	_, err := jobqueue.Replay(ctx, q.cache.rdb, q.cache.queuePrefix(), id, replayPatience)
	return q.deadLetterError(err)
}

// Drop deletes dead letters and returns how many of them there were. What they may have changed stays as it is. The error is
// or wraps ErrNoDeadLetter, for what is no ID, or ErrUnavailable.
func (q *Queue) Drop(ctx context.Context, ids ...string) (int, error) {
	n, err := jobqueue.DropDeadLetters(ctx, q.cache.rdb, q.cache.queuePrefix(), ids...)
	return int(n), q.deadLetterError(err)
}

func (q *Queue) deadLetterError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jobqueue.ErrNoDeadLetter):
		return fmt.Errorf("%w: %w", ErrNoDeadLetter, err)
	}
	return q.cache.unavailable(err)
}

package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/streamid"
)

// A DeadLetter is a job that no worker will run (again): its worker died and it may not be repeated, its record is broken, or
// it was replayed in vain. It is formatted, and logged by package slog, without its request, which may hold credentials.
type DeadLetter struct {
	ID      string // its place in the stream of dead letters
	JobID   string
	Reason  string
	Cause   string    // the Reason of the first time, if it was replayed
	Queued  time.Time // for the first time, by Redis's clock; so is Died
	Died    time.Time
	Remote  string // address of the client
	Scheme  string // "http" or "https", as the client sent it
	Request string // as message text: request line, header, empty line; what follows is the body, with or without a Content-Length. See HTTPRequest
	Drift   bool   // it may have been carried out, and what its lost response would have named was not rendered
	Replays int    // how often it was replayed
}

// String says what kind of dead letter it is.
func (l DeadLetter) String() string {
	return fmt.Sprintf("dead letter %s: job %s, queued %s, died %s, replays %d, drift %t: %s",
		l.ID, l.JobID, l.Queued.Format(time.RFC3339Nano), l.Died.Format(time.RFC3339Nano), l.Replays, l.Drift, l.Reason)
}

// LogValue is String.
func (l DeadLetter) LogValue() slog.Value { return slog.StringValue(l.String()) }

// HTTPRequest returns the request as a handler gets it: with all of its fields, and its body. The error is ErrNoJob for what
// is no request.
func (l DeadLetter) HTTPRequest() (*http.Request, error) {
	request, err := message.ParseRequest([]byte(l.Request))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoJob, err)
	}
	call := invoke.Call{
		Method: request.Method, Target: request.Target, Host: request.Host, Scheme: l.Scheme, RemoteAddr: l.Remote,
		Header: request.Header, Body: request.Body,
	}
	r, err := call.Request(context.Background())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoJob, err)
	}
	return r, nil
}

func deadLetterOf(l jobqueue.DeadLetter) DeadLetter {
	return DeadLetter{
		ID: l.ID, JobID: l.JobID, Reason: l.Reason, Cause: l.Cause, Queued: redisTime(streamid.Time(l.Queued)),
		Died: redisTime(streamid.Time(l.ID)), Remote: l.Remote, Scheme: l.Scheme, Request: l.Request, Drift: l.Drift, Replays: int(l.Replays),
	}
}

// DeadLetters iterates over the dead letters that there are when it begins, the oldest first. An error ends the iteration.
func (q *Queue) DeadLetters(ctx context.Context) iter.Seq2[DeadLetter, error] {
	const page = 8 // they may have many megabytes
	return func(yield func(DeadLetter, error) bool) {
		last, err := jobqueue.LastDeadLetter(ctx, q.cache.rdb, q.cache.queuePrefix())
		if err != nil {
			yield(DeadLetter{}, q.cache.unavailable(err))
			return
		}
		for after := ""; after != last; {
			letters, err := jobqueue.DeadLetters(ctx, q.cache.rdb, q.cache.queuePrefix(), after, last, page)
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

const (
	// replayPatience is how long a job that is replayed may wait for a worker.
	replayPatience = time.Hour

	// replayRoom is how many jobs may be in the queue when one is replayed: who waits for a reply goes before.
	replayRoom = 1000
)

// Replay has the request of a dead letter carried out as it was, once more: it becomes a job with its old id, and is no dead
// letter any more. It is for those who know that carrying it out again does no harm:
//
//   - It may have been carried out before; the worker that was taken for dead may even be at it still, until its JobTimeout.
//   - Later writes to the same resource may have been carried out meanwhile, and are undone where it overwrites them.
//   - Its credentials are as old as it is.
//
// Nobody waits for the response, which is not kept; what it names is rendered as always. A replay that panics or is answered
// with a status of 400 or more, that no worker begins within an hour, or whose worker dies, is a dead letter again, with another
// ID and the same JobID. The error is or wraps ErrNoDeadLetter, ErrNoJob, ErrQueueFull while a thousand jobs are in the queue, or
// ErrUnavailable; after the last it may have become a job all the same. A second call with the same ID does nothing.
func (q *Queue) Replay(ctx context.Context, id string) error {
	letter, err := q.DeadLetter(ctx, id)
	if err == nil {
		if _, err := letter.HTTPRequest(); err != nil {
			return err
		}
	} else if !errors.Is(err, ErrNoDeadLetter) {
		return err
	}
	return q.deadLetterError(jobqueue.Replay(ctx, q.cache.rdb, q.cache.queuePrefix(), id, replayPatience, replayRoom))
}

// Drop deletes dead letters and returns how many of them there were (after a connection broke, perhaps too few). What they may have changed stays as it is. The error is
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
	case errors.Is(err, jobqueue.ErrNoJob):
		return fmt.Errorf("%w: %w", ErrNoJob, err)
	case errors.Is(err, jobqueue.ErrFull):
		return ErrQueueFull
	}
	return q.cache.unavailable(err)
}

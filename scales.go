package scales

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/step"
)

// What can go wrong. Errors are to be compared with errors.Is.
var (
	// ErrNotFound means that there is no such resource.
	ErrNotFound = errors.New("scales: no such resource")

	// ErrNotFilled means that the cache was never filled or has been lost, so that a miss proves nothing.
	ErrNotFilled = errors.New("scales: the cache is not filled")

	// ErrLost means that a single entry was lost or cannot be decoded, although the cache had it.
	ErrLost = errors.New("scales: the entry was lost")

	// ErrUnavailable means that Redis cannot be asked, or does not answer in time.
	ErrUnavailable = errors.New("scales: Redis is unavailable")

	// ErrLayout means that the cache in Redis has another number of partitions, or another version.
	ErrLayout = errors.New("scales: the cache in Redis is laid out otherwise")

	// ErrKey means that a key is malformed or too long.
	ErrKey = errors.New("scales: bad key")

	// ErrNotStorable means that an entry cannot be stored.
	ErrNotStorable = errors.New("scales: the entry cannot be stored")

	// ErrTicket means that a ticket is too old, or of a clock that Redis has lost.
	ErrTicket = errors.New("scales: the ticket is not valid any more")

	// ErrFinished means that the writer of a job was used after its handler had returned.
	ErrFinished = errors.New("scales: the handler of this job has returned")

	// ErrFillIncomplete means that a fill did not mark the cache as filled, because keys have failed.
	ErrFillIncomplete = errors.New("scales: the fill is incomplete")

	// ErrRunning means that a worker is running already.
	ErrRunning = errors.New("scales: the worker is running already")
)

// A CacheWriter changes the cache. A handler of the application gets that of its job from Writer; a Cache is one too.
//
// The changes of a job become visible together, when the handler has returned without a panic and with a status below
// 500, and before the client gets the response. A job names at most 10,000 keys.
//
// Update is all that most applications need: it has resources rendered, so that the cache holds what the application
// says. Push and Destroy save that render only if they are exact; otherwise they are visible sooner and confirmed by a
// render afterwards. A push is exact if its entry carries a ticket that was taken after the change and before the state
// that the entry shows was read:
//
//	change the database
//	ticket, err := cw.Ticket(ctx)
//	read the database, make the entry
//	err = cw.Push(ctx, key, entry.At(ticket))
//
// Keys begin with a slash and are made canonical. All methods are safe for concurrent use, check all their arguments
// first, and change nothing if one is bad. After the handler has returned, those of a job's writer return ErrFinished.
type CacheWriter interface {
	// Update has resources rendered.
	Update(ctx context.Context, keys ...string) error

	// Push stores a representation of a resource.
	Push(ctx context.Context, key string, e Entry) error

	// Destroy removes resources.
	Destroy(ctx context.Context, keys ...string) error

	// Ticket takes a ticket for exact pushes. It asks Redis.
	Ticket(ctx context.Context) (Ticket, error)
}

var (
	_ CacheWriter = (*Cache)(nil)
	_ CacheWriter = (*jobWriter)(nil)
	_ CacheWriter = noWriter{}
)

type contextKey int

const (
	writerKey contextKey = iota
	renderingKey
)

// Writer returns the writer of the job that a handler runs in, from the context of its request. Outside of a job, in a
// render or under a plain HTTP server, it returns one that does nothing, so that handlers need not know.
func Writer(ctx context.Context) CacheWriter {
	if w, ok := WriterFrom(ctx); ok {
		return w
	}
	return noWriter{}
}

// WriterFrom returns the writer of the job that a handler runs in, and whether there is one.
func WriterFrom(ctx context.Context) (CacheWriter, bool) {
	w, ok := ctx.Value(writerKey).(*jobWriter)
	return w, ok
}

// Rendering reports whether a request is a render: a GET whose answer goes into the cache for everybody.
func Rendering(ctx context.Context) bool {
	return ctx.Value(renderingKey) != nil
}

func markRendering(ctx context.Context) context.Context {
	return context.WithValue(ctx, renderingKey, true)
}

// chain wraps a handler into middleware, the first one outermost.
func chain(middleware []func(http.Handler) http.Handler, h http.Handler) http.Handler {
	for i := len(middleware) - 1; i >= 0; i-- {
		h = middleware[i](h)
	}
	return h
}

// jobWriter is the CacheWriter of a job.
type jobWriter struct {
	cache  *Cache
	buffer *step.Buffer
	floors []partition.Position // of all partitions, from before the handler began
}

func newJobWriter(c *Cache) *jobWriter {
	w := &jobWriter{cache: c, buffer: new(step.Buffer)}
	for _, p := range c.store.All() {
		w.floors = append(w.floors, p.Floor())
	}
	return w
}

func (w *jobWriter) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, writerKey, w)
}

func (w *jobWriter) floor(p *partition.Partition) partition.Position { return w.floors[p.Number] }

func (w *jobWriter) Update(_ context.Context, keys ...string) error {
	keys, err := w.cache.parseAll(keys)
	if err != nil {
		return err
	}
	return buffered(w.buffer.Update(keys...))
}

func (w *jobWriter) Push(_ context.Context, key string, e Entry) error {
	key, err := w.cache.parse(key)
	if err != nil {
		return err
	}
	op, err := w.cache.operation(key, e, w.floor)
	if err != nil {
		return err
	}
	return buffered(w.buffer.Write(op))
}

func (w *jobWriter) Destroy(_ context.Context, keys ...string) error {
	keys, err := w.cache.parseAll(keys)
	if err != nil {
		return err
	}
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = partition.Operation{Kind: partition.OpRemove, Key: key, Position: w.floor(w.cache.store.Of(key))}
	}
	return buffered(w.buffer.Write(operations...))
}

func (w *jobWriter) Ticket(ctx context.Context) (Ticket, error) {
	if w.buffer.Finished() {
		return Ticket{}, ErrFinished
	}
	return w.cache.Ticket(ctx)
}

func buffered(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, step.ErrFinished):
		return ErrFinished
	}
	return fmt.Errorf("scales: %w", err)
}

// noWriter is the CacheWriter outside of a job.
type noWriter struct{}

func (noWriter) Update(context.Context, ...string) error   { return nil }
func (noWriter) Push(context.Context, string, Entry) error { return nil }
func (noWriter) Destroy(context.Context, ...string) error  { return nil }
func (noWriter) Ticket(context.Context) (Ticket, error)    { return Ticket{}, nil }

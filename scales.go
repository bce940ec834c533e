// Package scales keeps every resource of a web application in a cache that is always current.
//
// A page that is read a thousand times for each time it changes should be built when it changes, not when it is read.
// Scales renders every resource into Redis once, serves all reads from there, and renders again what a write has
// changed, before the client gets the response to that write. There are three modules, and each grows by adding
// processes:
//
//   - a [Cache] stores every resource, in Redis;
//   - a [Server] answers GET and HEAD from the cache, and from nowhere else. Every other request becomes a job on a
//     queue, and the server answers with the reply;
//   - a [Worker] takes jobs, calls the application, renders what changed into the cache, and then replies.
//
// The application is any http.Handler. This is a whole program; must stands for the handling of errors:
//
//	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
//	defer stop()
//	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
//	cache := must(scales.NewCache(rdb, scales.Namespace("shop")))
//	worker := must(scales.NewWorker(cache, app))
//	server := must(scales.NewServer(cache))
//
//	working, stopWorking := context.WithCancel(context.Background())
//	worked := make(chan error, 1)
//	go func() { worked <- worker.Run(working) }()
//	must(worker.Fill(ctx, keysOfMyDatabase())) // an iter.Seq2[string, error]: "/", "/tracks", "/tracks/1", …
//
//	web := &http.Server{Addr: ":8080", Handler: server}
//	go web.ListenAndServe()
//	<-ctx.Done()
//	web.Shutdown(context.Background())
//	server.Close(context.Background())
//	stopWorking()
//	<-worked
//	cache.Close(context.Background())
//	rdb.Close()
//
// # Serving
//
// A resource is named by its key, the canonical form of its request target: "/tracks/7.json", "/tracks?page=2". What
// counts in a key is an option of the Cache, because all three modules must agree: [QueryParameters], [Hosts],
// [MaxKeyLength]. A hit is answered with the stored status, header and body, from the server's [LocalCopy] if it is there, in the
// content coding that the request accepts, and only if the preconditions of the request do not say that the client has it
// (RFC 9110). A miss is a 404 if the cache was filled,
// and a 503 if it never was or has been lost; it does not reach the application. [Delegate] names the reads that
// cannot be stored, such as a search; they travel as jobs. [NotFound] replaces the 404 page.
//
// Answers of Scales itself are problem details (RFC 9457), whose type begins with "urn:scales:problem:". A 503 means
// that the request was surely not carried out and may be sent again; a 504 means that it goes on, or that nobody
// knows.
//
// # Working
//
// [Worker.Run] takes jobs and calls the application with the request as the server got it. After a successful unsafe
// request (2xx or 3xx) the worker renders, without the application knowing of Scales:
//
//   - the target of the request, if it has no query or has an entry already;
//   - what Location and Content-Location of the response name, if it is of the same origin (RFC 9111, section 4.4);
//   - what Link: <…>; rel="invalidates" in the response names, if it is of the same origin;
//   - the members of the groups that Cache-Group-Invalidation in the response names (RFC 9875), whatever its status.
//
// A page is in the groups that Cache-Groups in its own response names. Of large groups a part is rendered before the
// reply, see [GroupLimit], and the rest in the background.
//
// A render is a GET of a key through the application, with the host of [Origin], Accept: */* (unless [Vary] says
// otherwise) and nothing of any client's. [Rendering] tells a handler that it is in one. The answers 200, 203, 204, 300 to 303, 307 and 308 are
// stored; 404, 410 and other 4xx remove the key; no-store, private, Set-Cookie, a Vary on anything but
// Accept-Encoding and the fields that the option [Vary] declares, and a body over [MaxEntrySize] remove it as well and are
// logged; 408, 425, 429, 5xx, a panic and a time-out keep the last good entry and are tried again.
//
// # Writing
//
// What plain HTTP does not say, a handler says through the [CacheWriter] of its job:
//
//	scales.Writer(r.Context()).Update(r.Context(), "/tracks", "/artists/nina-simone")
//	scales.Writer(r.Context()).UpdateGroups(r.Context(), "charts")
//
// The changes of a job become visible together in each partition, unless they are very many, and only if the handler
// returned without a panic and with a status below 500. Outside of a job [Writer] returns a writer that does nothing.
// Programs that are not in a request, such as a cron job, use the methods of the [Cache].
//
// # Filling
//
// [Worker.Fill] renders every key of a sequence and, if none has failed, marks the cache as filled: from then on a
// miss is a true 404. It may run beside servers and workers, and again at any time. One that was killed, or in which
// keys have failed, is gone on with by the next, which renders only what is missing; [FillAnew] renders everything.
// The keys come from the application's database, from its sitemap ([Worker.Sitemap]) or from its links
// ([FollowLinks]). An application that pushes everything calls [Cache.MarkFilled] instead. [Cache.Ready] says whether
// the cache can be relied upon, and what is wrong if not.
//
// # Auditing
//
// [Worker.Verify] compares the cache with the application, beside live traffic, and mends what differs with [Repair].
// [Cache.Explain] says of a key what is stored, why and by which job, and what is to come. [Cache.Backlog] and
// [Cache.Failing] tell of renders that are to be made, and of those that fail.
//
// # An existing service
//
// [CacheFirst] is middleware for a service that wants no queue: it serves hits from the cache, lets misses go on, and
// renders what a write has changed before the response leaves.
//
// # Stopping
//
// First [Server.Drain], a moment later http.Server.Shutdown, then [Server.Close], then the context of [Worker.Run], then
// [Cache.Close], then the Redis client, which Scales never closes. A worker that goes on until the server has had its last
// reply leaves no client waiting. What a worker that ends has not begun it hands to another; the jobs of one that is killed are
// taken over.
//
// # Too much to do
//
// Where jobs wait for so long that a further one would not be answered in time, it is refused at once with 503, and
// Retry-After says when there will be room. [Queue.Stats] says how the queue is. With [Order], jobs that have to be are run one
// after the other.
//
// # Guarantees
//
//   - Reads do not reach the application, but for [Delegate].
//   - A miss is a true 404. Where Scales cannot know, it answers 503.
//   - The cache converges to what the application would answer, whatever the order in which renders end.
//   - Whoever holds the response to a write sees that write, or a later one, in all that it pushed, updated or
//     destroyed. The exceptions are a render that failed, which is logged, and members of a group that are beyond the
//     [GroupLimit] or join while it changes.
//   - A request that was begun is finished, also when its worker dies: one whose method is repeatable (PUT, DELETE and
//     the safe ones) is run again until its deadline. Every other is run at most once; where nobody knows how far it
//     came, the client gets a 502 and the request is kept as a [DeadLetter], to be replayed or dropped.
//   - Requests of one client with the same Idempotency-Key are one request; see [KeepReplies].
//   - Nothing of one client ends up in an entry or in another client's response.
//
// They hold as far as Redis keeps what it has acknowledged, and they need one thing of the application: a GET that
// begins after the handler of a write has returned must see that write. docs/DESIGN.md tells how each is kept and
// names the test that shows it; docs/protocol.md has every key in Redis.
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

	// ErrUnsure means that Redis has lost writes that it had acknowledged, in a crash or a failover, so that a miss proves
	// nothing until a Fill, or a Verify of AllKeys that finds no drift, has ended.
	ErrUnsure = errors.New("scales: the cache may be incomplete")

	// ErrLost means that a single entry was lost or cannot be decoded, although the cache had it.
	ErrLost = errors.New("scales: the entry was lost")

	// ErrUnavailable means that Redis cannot be asked, or does not answer in time.
	ErrUnavailable = errors.New("scales: Redis is unavailable")

	// ErrLayout means that the cache in Redis has another number of partitions, or another version.
	ErrLayout = errors.New("scales: the cache in Redis is laid out otherwise")

	// ErrKey means that a key is malformed or too long.
	ErrKey = errors.New("scales: bad key")

	// ErrNoDeadLetter means that there is no such dead letter (any more).
	ErrNoDeadLetter = errors.New("scales: no such dead letter")

	// ErrNoJob means that a dead letter is no job that could be run.
	ErrNoJob = errors.New("scales: the dead letter is no job")

	// ErrQueueFull means that too many jobs are in the queue.
	ErrQueueFull = errors.New("scales: the queue is full")

	// ErrGroup means that a group is not printable ASCII, or too long.
	ErrGroup = errors.New("scales: bad group")

	// ErrNotStorable means that an entry cannot be stored.
	ErrNotStorable = errors.New("scales: the entry cannot be stored")

	// ErrBacklog means that as many keys are pending as may (option MaxEntries).
	ErrBacklog = errors.New("scales: too many keys are pending")

	// ErrTicket means that a ticket is too old, or of a clock that Redis has lost.
	ErrTicket = errors.New("scales: the ticket is not valid any more")

	// ErrFinished means that the writer of a job was used after its handler had returned.
	ErrFinished = errors.New("scales: the handler of this job has returned")

	// ErrFillIncomplete means that a fill did not mark the cache as filled, because keys have failed.
	ErrFillIncomplete = errors.New("scales: the fill is incomplete")

	// ErrSitemap means that there is no sitemap where one should be, or that it cannot be read.
	ErrSitemap = errors.New("scales: no usable sitemap")

	// ErrTooManyKeys means that links lead to more keys than may be followed (option MaxKeys).
	ErrTooManyKeys = errors.New("scales: too many keys")

	// ErrClosed means that the cache was closed.
	ErrClosed = errors.New("scales: the cache was closed")

	// ErrRunning means that a worker is running already.
	ErrRunning = errors.New("scales: the worker is running already")
)

// A CacheWriter changes the cache. A handler of the application gets that of its job from Writer; a Cache is one too.
//
// The changes of a job become visible together, when the handler has returned without a panic and with a status below
// 500, and before the client gets the response. A job names at most 10,000 keys and groups and pushes at most 64 MiB; what is more
// than 1,000 keys or 32 MiB becomes visible in several steps.
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
// Keys begin with a slash and are made canonical. Groups are up to 128 printable ASCII characters; with the option Hosts
// they are those of all hosts. All methods are safe for concurrent use, check all their arguments
// first, and change nothing if one is bad. After the handler has returned, those of a job's writer return ErrFinished.
type CacheWriter interface {
	// Update has resources rendered.
	Update(ctx context.Context, keys ...string) error

	// UpdateGroups has all resources rendered that are in one of the groups: those whose representation names it in a
	// Cache-Groups field (RFC 9875). Of many, some are rendered later: see GroupLimit.
	UpdateGroups(ctx context.Context, groups ...string) error

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
// render or under a plain HTTP server, it returns one that does nothing and checks nothing, so that handlers need not know.
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

// JobID returns the id of the job that a request is, "" outside a worker. A job that is run again, or is replayed as a dead
// letter, has its id still. It cannot be guessed.
func JobID(ctx context.Context) string {
	if w, ok := ctx.Value(writerKey).(*jobWriter); ok {
		return w.job
	}
	return ""
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
	job    string // its id, "" if there is none
	buffer *step.Buffer
	floors []partition.Position // of all partitions, from before the handler began
}

func newJobWriter(c *Cache, job string) *jobWriter {
	w := &jobWriter{cache: c, job: job, buffer: new(step.Buffer)}
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

func (w *jobWriter) UpdateGroups(_ context.Context, groups ...string) error {
	groups, err := w.cache.parseGroups(groups)
	if err != nil {
		return err
	}
	return buffered(w.buffer.UpdateGroups(groups...))
}

func (w *jobWriter) Push(_ context.Context, key string, e Entry) error {
	key, err := w.cache.parse(key)
	if err != nil {
		return err
	}
	op, err := w.cache.operation(key, e, w.job, w.floor)
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
		operations[i] = destroy(key, w.job)
		operations[i].Kind, operations[i].Position = partition.OpRemove, w.floor(w.cache.store.Of(key))
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

func (noWriter) Update(context.Context, ...string) error { return nil }
func (noWriter) UpdateGroups(context.Context, ...string) error {
	return nil
}
func (noWriter) Push(context.Context, string, Entry) error { return nil }
func (noWriter) Destroy(context.Context, ...string) error  { return nil }
func (noWriter) Ticket(context.Context) (Ticket, error)    { return Ticket{}, nil }

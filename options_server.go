package scales

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/localcopy"
)

type readConfig struct {
	localCopy int64
	replicas  []redis.UniversalClient

	guards localcopy.Guards // tests only
}

func defaultReadConfig() readConfig { return readConfig{localCopy: 64 << 20} }

// LocalCopy limits the copy of entries that a Server, or a CacheFirst middleware, keeps in its own memory, in bytes. What is
// in it is served without asking Redis, and goes on to be served while Redis is away. It is filled by reads, or by
// Server.Warm, and kept current by the change log: a change that the process itself has made is seen at once, that of
// another after the time a message takes. An entry of more than a quarter of the limit is not kept. It takes a connection to
// Redis for itself, with Redis Cluster one for each partition. 0 turns it off. Default 64 MiB.
func LocalCopy(bytes int64) ReadOption {
	return readOption(func(c *readConfig) { c.localCopy = bytes })
}

// Replicas names clients of replicas of the cache's Redis, that reads may go to in turn: a client for each, or one that
// chooses among several, such as that of a cluster with ReadOnly. Scales never closes them. Reads of what a replica has not got
// yet go to the primary: whoever has the reply to a write sees that write, and no read shows something older than what the
// same process has shown. A replica that fails is left alone for a second.
func Replicas(clients ...redis.UniversalClient) ReadOption {
	return readOption(func(c *readConfig) { c.replicas = clients })
}

func (c *readConfig) validate(r *require) {
	r.that(!slices.Contains(c.replicas, nil), "option Replicas: nil client")
	r.that(c.localCopy >= 0, "option LocalCopy: %d is negative", c.localCopy)
}

type serverConfig struct {
	read        readConfig
	deadline    time.Duration
	maxBody     int64
	bodyMemory  int64
	bodyTimeout time.Duration
	maxQueue    int
	keepReplies time.Duration
	maxKept     jobqueue.Limit
	identity    []string
	accept      bool
	order       func(*http.Request) string
	delegate    func(*http.Request) bool
	notFound    http.Handler
	reserved    string
}

func defaultServerConfig() serverConfig {
	return serverConfig{
		read: defaultReadConfig(), deadline: 15 * time.Second, maxBody: 1 << 20, bodyMemory: 256 << 20, bodyTimeout: 10 * time.Second, maxQueue: 10_000, reserved: "/.scales/",
		keepReplies: 24 * time.Hour, maxKept: jobqueue.Limit{Jobs: 100_000, Bytes: 256 << 20}, identity: []string{"Authorization", "Cookie"},
	}
}

// Deadline sets how long a server waits for the reply to a job. A job that no worker has begun by then is withdrawn and
// answered 503; one that is running is answered 504. Where, by what workers have finished within the latest seconds, those that wait
// already would take as long, a request is refused at once with 503, and Retry-After says when there will be room, or up to twice as
// long; never while fewer jobs are under way than workers have slots. It should be longer than the Lease of the workers, so that the jobs of
// one that dies are taken over in time. Default 15 seconds.
func Deadline(d time.Duration) ServerOption {
	return serverOption(func(c *serverConfig) { c.deadline = d })
}

// MaxBody limits the body of a request in bytes; a larger one is answered 413. Default 1 MiB.
func MaxBody(bytes int64) ServerOption {
	return serverOption(func(c *serverConfig) { c.maxBody = bytes })
}

// BodyMemory limits the bodies of all requests under way at the server together, in bytes as they arrive; what does not
// fit is answered 503. At least MaxBody; default 256 MiB.
func BodyMemory(bytes int64) ServerOption {
	return serverOption(func(c *serverConfig) { c.bodyMemory = bytes })
}

// BodyTimeout limits the time in which the body of a request must arrive; a slower one is answered 408. It needs a
// ResponseWriter with SetReadDeadline, as those of net/http are. Default ten seconds.
func BodyTimeout(d time.Duration) ServerOption {
	return serverOption(func(c *serverConfig) { c.bodyTimeout = d })
}

// QueueLength limits how many jobs may wait and run at once; further ones are answered 503. Default 10,000.
func QueueLength(n int) ServerOption {
	return serverOption(func(c *serverConfig) { c.maxQueue = n })
}

// KeepReplies sets how long the reply to a request with an Idempotency-Key is kept, and how long the status resource of one
// that was answered 202 is there, from when there is a reply. So long, too, may a request that was answered 202 wait for a
// worker. 0 turns both fields off: they travel to the application then. At least a second; default 24 hours.
//
// A request with the Idempotency-Key of an earlier one gets the reply to that (Scales-Reply: stored), or waits for it, whichever
// server it comes to. What was not carried out because it came too late for a worker leaves the key free, and so does a handler
// that panicked. Of one that may have been carried out while its worker died the answer 502 is kept like a reply, because running it
// again could double it.
func KeepReplies(d time.Duration) ServerOption {
	return serverOption(func(c *serverConfig) { c.keepReplies = d })
}

// MaxReplies limits what is kept for that in Redis: the number of requests, and their bytes, which are those of the request until
// there is a reply, and then those of the reply. Where it is reached, further requests with an Idempotency-Key, or that may be
// answered 202, are answered 503. Default 100,000 and 256 MiB.
func MaxReplies(n int, bytes int64) ServerOption {
	return serverOption(func(c *serverConfig) { c.maxKept = jobqueue.Limit{Jobs: n, Bytes: bytes} })
}

// Identity names the fields of a request that say from whom it is. Requests with the same Idempotency-Key are the same only if
// these have the same values, and method, target and Host. Without fields any two clients share their keys. Default
// Authorization and Cookie.
func Identity(fields ...string) ServerOption {
	return serverOption(func(c *serverConfig) { c.identity = fields })
}

// AcceptLate has requests that have no reply at the Deadline answered 202, as if they had asked for that, and not 503 or 504;
// delegated reads excepted.
func AcceptLate() ServerOption {
	return serverOption(func(c *serverConfig) { c.accept = true })
}

// Order has jobs of unsafe requests for which the function returns the same, other than "", run one after the other, in the order in
// which Redis got them, across all workers; those of other orders run beside them. At most a tenth of QueueLength of them wait for each
// other; further ones are answered 503. The next one begins when the reply to the one before is stored, and its pages are rendered.
// While it waits it is in the queue, and can be withdrawn. The function gets the request without its body, must be safe for concurrent
// use, and should be the same for all servers. For example, writes to one target one after the other:
//
//	scales.Order(func(r *http.Request) string { return r.URL.Path })
//
// Two run at once only if a worker that is taken for dead is not, and goes on with its handler. Without this option nothing has
// an order.
func Order(of func(*http.Request) string) ServerOption {
	return serverOption(func(c *serverConfig) { c.order = of })
}

// Delegate chooses the GET and HEAD requests that travel to a worker as jobs and are never stored: resources that cannot
// be enumerated, such as "/search?q=…", or that depend on who asks, such as "/me". It is the declared exception to the
// rule that reads do not reach the application. It must be safe for concurrent use.
func Delegate(choose func(*http.Request) bool) ServerOption {
	return serverOption(func(c *serverConfig) { c.delegate = choose })
}

// NotFound replaces the answer to a GET of what does not exist. The handler writes the status.
func NotFound(h http.Handler) ServerOption {
	return serverOption(func(c *serverConfig) { c.notFound = h })
}

// ReservedPrefix sets the beginning of the paths that the server keeps for itself; it begins and ends with a slash.
// Default "/.scales/".
func ReservedPrefix(path string) ServerOption {
	return serverOption(func(c *serverConfig) { c.reserved = path })
}

func (c *serverConfig) validate() error {
	var r require
	c.read.validate(&r)
	r.that(c.deadline > 0, "option Deadline: %v is not positive", c.deadline)
	r.that(c.maxBody >= 0, "option MaxBody: %d is negative", c.maxBody)
	r.that(c.bodyMemory >= c.maxBody, "option BodyMemory: %d is under MaxBody, %d", c.bodyMemory, c.maxBody)
	r.that(c.bodyTimeout > 0, "option BodyTimeout: %v is not positive", c.bodyTimeout)
	r.that(c.maxQueue >= 1, "option QueueLength: %d is not positive", c.maxQueue)
	r.that(c.keepReplies == 0 || c.keepReplies >= time.Second, "option KeepReplies: %v is not 0 and under a second", c.keepReplies)
	r.that(c.maxKept.Jobs >= 1 && c.maxKept.Bytes >= 1, "option MaxReplies: %d and %d are not positive", c.maxKept.Jobs, c.maxKept.Bytes)
	for _, name := range c.identity {
		r.that(field.IsName(name), "option Identity: %q is not the name of a field", name)
	}
	r.that(!c.accept || c.keepReplies > 0, "option AcceptLate: without KeepReplies")
	r.that(len(c.reserved) > 2 && strings.HasPrefix(c.reserved, "/") && strings.HasSuffix(c.reserved, "/"),
		"option ReservedPrefix: %q does not begin and end with a slash", c.reserved)
	return r.err()
}

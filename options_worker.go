package scales

import (
	"net/http"
	"time"

	"github.com/itscales/scales/internal/render"
)

type renderConfig struct {
	concurrency int
	groupLimit  int
	timeout     time.Duration

	guards render.Guards // tests and benchmarks only
}

func defaultRenderConfig() renderConfig {
	return renderConfig{concurrency: 16, groupLimit: 256, timeout: 10 * time.Second}
}

// RenderConcurrency sets how many renders a Worker, or a CacheFirst middleware, runs at once. Default 16.
func RenderConcurrency(n int) RenderOption {
	return renderOption(func(c *renderConfig) { c.concurrency = n })
}

// GroupLimit sets how many members of the groups that a request has changed are rendered before its response leaves, those
// that it names itself not counted. The others are rendered in the background by all workers, behind what requests wait
// for. 0 leaves all to the background. Default 256.
func GroupLimit(n int) RenderOption {
	return renderOption(func(c *renderConfig) { c.groupLimit = n })
}

// RenderTimeout limits the time of one render, of all variants of a page together: its context ends then, and the last good
// entry stays. Default ten seconds.
func RenderTimeout(d time.Duration) RenderOption {
	return renderOption(func(c *renderConfig) { c.timeout = d })
}

func (c *renderConfig) validate(r *require, tombstoneLife time.Duration) {
	r.that(c.concurrency >= 1, "option RenderConcurrency: %d is not positive", c.concurrency)
	r.that(c.groupLimit >= 0, "option GroupLimit: %d is negative", c.groupLimit)
	r.that(c.timeout > 0, "option RenderTimeout: %v is not positive", c.timeout)
	r.that(c.timeout < tombstoneLife, "option RenderTimeout: %v is not under TombstoneLife, %v", c.timeout, tombstoneLife)
}

type workerConfig struct {
	render       renderConfig
	concurrency  int
	jobTimeout   time.Duration
	lease        time.Duration
	maxReply     int64
	maxDead      int
	repeatKeyed  bool
	drainTimeout time.Duration
}

func defaultWorkerConfig() workerConfig {
	return workerConfig{
		render: defaultRenderConfig(), concurrency: 16, jobTimeout: 5 * time.Minute, lease: 5 * time.Second,
		maxReply: 8 << 20, maxDead: 10_000, drainTimeout: 30 * time.Second,
	}
}

// Concurrency sets how many jobs the application handles at once in this worker. Default 16.
func Concurrency(n int) WorkerOption {
	return workerOption(func(c *workerConfig) { c.concurrency = n })
}

// JobTimeout limits the time of one job: its context ends then. The job keeps its slot until its handler returns.
// Default five minutes.
func JobTimeout(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.jobTimeout = d })
}

// Lease sets how long the heartbeat of a worker may stand still before others take its jobs over. It should be shorter
// than the Deadline of the servers. A job may take longer than it. For three quarters of it after the only worker
// has ended, servers go on to accept requests, which wait for its successor. At least 20 ms, default five seconds.
func Lease(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.lease = d })
}

// MaxReply limits the body of a response to a job in bytes; a larger one is answered 502, although its writes count.
// Default 8 MiB.
func MaxReply(bytes int64) WorkerOption {
	return workerOption(func(c *workerConfig) { c.maxReply = bytes })
}

// MaxDeadLetters sets how many dead letters are kept, approximately; the oldest go first. Default 10,000.
func MaxDeadLetters(n int) WorkerOption {
	return workerOption(func(c *workerConfig) { c.maxDead = n })
}

// RepeatKeyed says that the application itself honours Idempotency-Key: that a request which comes twice with the same key has
// its effect once. A job that has such a key and whose worker died is then run again, whatever its method, and does not become
// a dead letter.
func RepeatKeyed() WorkerOption {
	return workerOption(func(c *workerConfig) { c.repeatKeyed = true })
}

// DrainTimeout limits how long Run waits for jobs under way when its context has ended. Other workers finish what is left
// then. Default 30 seconds.
func DrainTimeout(d time.Duration) WorkerOption {
	return workerOption(func(c *workerConfig) { c.drainTimeout = d })
}

func (c *workerConfig) validate(tombstoneLife time.Duration) error {
	var r require
	c.render.validate(&r, tombstoneLife)
	r.that(c.concurrency >= 1, "option Concurrency: %d is not positive", c.concurrency)
	r.that(c.jobTimeout > 0, "option JobTimeout: %v is not positive", c.jobTimeout)
	r.that(c.lease >= 20*time.Millisecond, "option Lease: %v is under 20 ms", c.lease)
	r.that(c.maxReply >= 1, "option MaxReply: %d is not positive", c.maxReply)
	r.that(c.maxDead >= 1, "option MaxDeadLetters: %d is not positive", c.maxDead)
	r.that(c.drainTimeout > 0, "option DrainTimeout: %v is not positive", c.drainTimeout)
	return r.err()
}

type cacheFirstConfig struct {
	read   readConfig
	render renderConfig
	app    http.Handler
}

// RenderThrough names the handler through which the CacheFirst middleware renders. It is needed where the middleware does
// not wrap the whole application, but single routes. Without it renders go through the handler that is wrapped.
func RenderThrough(app http.Handler) CacheFirstOption {
	return cacheFirstOption(func(c *cacheFirstConfig) { c.app = app })
}

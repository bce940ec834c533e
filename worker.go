package scales

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/shift"
	"github.com/itscales/scales/internal/step"
)

// retention is how long replies that nobody reads are kept.
const retention = time.Minute

// A Worker takes jobs from the queue, calls the application, and keeps the cache current.
//
// The application is any http.Handler. It cannot tell that it is not behind net/http, except that connections cannot be
// hijacked and that Flush sends nothing. A panic ends one job, never the worker.
type Worker struct {
	cache  *Cache
	config workerConfig
	app    http.Handler
	rules  *step.Rules

	middleware []func(http.Handler) http.Handler
	handler    http.Handler // the middleware around app
	renderer   *render.Renderer

	mu      sync.Mutex
	running bool
}

// NewWorker returns a worker of the cache. It does no I/O.
func NewWorker(cache *Cache, app http.Handler, opts ...WorkerOption) (*Worker, error) {
	switch {
	case cache == nil:
		return nil, errors.New("scales: NewWorker: nil cache")
	case app == nil:
		return nil, errors.New("scales: NewWorker: nil handler")
	}
	config := defaultWorkerConfig()
	config.render.guards = render.GuardsOf(app)
	for _, o := range opts {
		o.applyWorker(&config)
	}
	if err := config.validate(cache.config.tombstoneLife); err != nil {
		return nil, err
	}
	w := &Worker{cache: cache, config: config, app: app, handler: app, rules: cache.stepRules()}
	w.renderer = cache.newRenderer(config.render, http.HandlerFunc(w.serveApp))
	return w, nil
}

func (c *Cache) stepRules() *step.Rules {
	return &step.Rules{Keys: c.rules, Origin: c.origin, Logger: c.config.logger}
}

// newRenderer returns a renderer that ends with the cache.
func (c *Cache) newRenderer(config renderConfig, app http.Handler) *render.Renderer {
	r := render.New(render.Config{
		Store: c.store, App: app, Rules: c.rules, Origin: c.origin, Mark: markRendering, Server: c.httpServer,
		Limit: config.concurrency, GroupLimit: config.groupLimit, Timeout: config.timeout, MaxEntry: c.config.maxEntry,
		Lease: c.config.claimLease, Retry: 500 * time.Millisecond, Logger: c.config.logger, Writing: c.writing,
		Codings: c.codings, Vary: c.config.vary, Guards: config.guards,
	})
	c.onClose(r.Close)
	return r
}

// Use wraps the application into middleware, the first one outermost, for jobs and renders. It is called before Run and
// Fill.
func (w *Worker) Use(middleware ...func(http.Handler) http.Handler) {
	w.middleware = append(w.middleware, middleware...)
	w.handler = chain(w.middleware, w.app)
}

func (w *Worker) serveApp(rw http.ResponseWriter, r *http.Request) { w.handler.ServeHTTP(rw, r) }

// Run takes jobs until ctx ends; then it finishes those under way, as far as DrainTimeout allows, and returns nil. It
// waits for Redis where that is away, at the start as well. A worker runs once at a time: otherwise ErrRunning. Where the
// cache in Redis has another number of partitions it is ErrLayout, and on a closed cache ErrClosed.
func (w *Worker) Run(ctx context.Context) error {
	w.mu.Lock()
	if w.running {
		w.mu.Unlock()
		return ErrRunning
	}
	w.running = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running = false
	}()
	if err := w.cache.awaitLayout(ctx); err != nil {
		return err
	}
	defer w.cache.tending(w.renderer)()

	queue := w.cache.queueConfig()
	queue.Retention, queue.MaxDead = retention, w.config.maxDead
	shift.Run(ctx, shift.Config{
		Consumer: jobqueue.NewConsumer(queue, w.config.lease, w.config.concurrency),
		Renderer: w.renderer,
		Rules:    w.rules,
		App:      w.handler,
		Server:   w.cache.httpServer,
		Writer: func(ctx context.Context, job string) (context.Context, *step.Buffer) {
			writer := newJobWriter(w.cache, job)
			return writer.with(ctx), writer.buffer
		},
		Exists:       w.cache.exists,
		Pend:         w.cache.pend,
		Concurrency:  w.config.concurrency,
		JobTimeout:   w.config.jobTimeout,
		DrainTimeout: w.config.drainTimeout,
		MaxReply:     w.config.maxReply,
		RepeatKeyed:  w.config.repeatKeyed,
		Logger:       w.cache.config.logger,
		Reading:      w.cache.reading,
		Writing:      w.cache.writing,
	})
	return nil
}

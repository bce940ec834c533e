package scales

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/problem"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/representation"
	"github.com/itscales/scales/internal/step"
)

// CacheFirst returns middleware that serves an existing service from the cache, without a queue.
//
// A GET or HEAD that has an entry is served from the cache; any other goes on to the wrapped handler, and is not stored.
// After a successful unsafe request the rules of plain HTTP and the CacheWriter of the handler apply as they do in a
// Worker, in place: what changed is rendered through the wrapped handler before the response leaves. Responses to unsafe
// requests are therefore held back until they are complete; they may have up to 8 MiB, and cannot be hijacked.
//
// What the queue guarantees is missing: a process that dies after its handler has changed something, and before that was
// rendered, leaves the cache behind until the next change, or until a Fill.
//
// The middleware wraps the whole application, as in r.Use(scales.CacheFirst(cache)) of chi. Around single routes it needs
// the option RenderThrough, because a page of another route cannot be rendered through a single route; without it such a
// request is answered 500. It panics if the cache is nil or an option is bad. Its background renders end with Cache.Close.
func CacheFirst(cache *Cache, opts ...CacheFirstOption) func(http.Handler) http.Handler {
	if cache == nil {
		panic("scales: CacheFirst: nil cache")
	}
	config := cacheFirstConfig{read: defaultReadConfig(), render: defaultRenderConfig()}
	for _, o := range opts {
		o.applyCacheFirst(&config)
	}
	var r require
	config.read.validate(&r)
	config.render.validate(&r, cache.config.tombstoneLife)
	if err := r.err(); err != nil {
		panic(err)
	}
	reader := cache.newReader(config.read) // one for all handlers that are wrapped
	return func(next http.Handler) http.Handler {
		f := &cacheFirst{cache: cache, next: next, rules: cache.stepRules(), single: config.app == nil}
		f.reader = reader
		f.patience = config.render.timeout + cache.config.timeout
		app := config.app
		if app == nil {
			app = http.HandlerFunc(f.render)
		}
		f.renderer = cache.newRenderer(config.render, app)
		return f
	}
}

// maxHeld limits the response to an unsafe request behind CacheFirst, in bytes.
const maxHeld = 8 << 20

type cacheFirst struct {
	cache    *Cache
	next     http.Handler
	rules    *step.Rules
	reader   *reader
	renderer *render.Renderer
	single   bool          // renders go through next
	patience time.Duration // how long a response waits for renders
	start    sync.Once
	mount    atomic.Pointer[string] // the path below which the wrapped router of chi is mounted, once it is known
}

func (f *cacheFirst) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case Rendering(r.Context()), r.Method == http.MethodTrace, r.Method == http.MethodConnect:
		f.next.ServeHTTP(w, r)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		f.read(w, r)
	case step.Safe(r.Method):
		f.next.ServeHTTP(w, r)
	default:
		f.change(w, r)
	}
}

func (f *cacheFirst) read(w http.ResponseWriter, r *http.Request) {
	if key, err := f.cache.rules.Request(r); err == nil {
		if f.reader.answer(w, r, key) == nil {
			return
		}
	}
	f.next.ServeHTTP(w, r)
}

// change calls the handler as a worker would, and does what it owes before the response leaves.
func (f *cacheFirst) change(w http.ResponseWriter, r *http.Request) {
	if reason := f.misconfigured(r); reason != "" {
		f.cache.config.logger.Error("scales: "+reason, "path", r.URL.Path)
		problem.Misconfigured(reason).Write(w, r)
		return
	}
	f.noteMount(r)
	f.start.Do(f.tend)
	writer := newJobWriter(f.cache, "")
	asked := r.WithContext(writer.with(r.Context()))
	asked.Header = r.Header.Clone()
	representation.TakeSuffixes(asked.Header)
	result := invoke.Serve(f.next, asked, maxHeld)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	owed := f.rules.Owe(step.Exchange{
		Method: r.Method, Scheme: scheme, Host: r.Host, Target: r.URL, Result: result, Buffer: writer.buffer,
	}, f.cache.exists)
	f.pay(r.Context(), owed)
	switch {
	case result.Panic != nil:
		panic(result.Panic) // the service has a way with panics of its own
	case result.Aborted, result.Short:
		panic(http.ErrAbortHandler)
	case result.TooLarge:
		problem.ReplyTooLarge(maxHeld).Write(w, r)
		return
	}
	field.RemoveHopByHop(result.Header)
	result.Header.Del(field.ScalesCacheControl)
	field.Merge(w.Header(), result.Header)
	writeBody(w, r, result.Status, result.Body)
}

// pay does what a request owes to the cache, also when its client has left. Where Redis is away, renders are made when
// Redis is back, if this process lives that long; the response does not wait for them. What it has pushed to stay,
// and what is to be made pending, is lost then, and logged.
func (f *cacheFirst) pay(ctx context.Context, owed step.Owed) {
	patience := f.patience
	if f.cache.reading.Fails() || f.cache.writing.Fails() {
		patience = f.cache.config.timeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if !owed.Pending.Empty() {
		if err := f.cache.pend(ctx, "", owed.Pending); err != nil {
			f.cache.config.logger.Error("scales: keys could not be made pending; the cache may have drifted", "error", err)
		}
	}
	if err := f.renderer.Stamp(ctx, &owed.Work); err != nil {
		f.cache.config.logger.Error("scales: what a request has pushed is rendered instead: it could not be ordered", "error", err)
		owed.Work = owed.Work.Rendered()
	}
	results, err := f.renderer.Perform(ctx, owed.Work)
	if err != nil {
		f.cache.config.logger.Error("scales: what a request owes could not be done; the cache may have drifted", "error", err)
		return
	}
	f.cache.reach(ctx, f.renderer.Reach(owed.Work, results))
}

// tend starts the background renders of this process; they end with the cache.
func (f *cacheFirst) tend() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	untend := f.cache.tending(f.renderer)
	go func() {
		defer close(ended)
		f.renderer.Tend(ctx, ctx)
	}()
	f.cache.onClose(func() {
		cancel()
		untend()
		<-ended
	})
}

// noteMount learns where the wrapped router of chi is mounted: chi tells a request what is left of its path.
func (f *cacheFirst) noteMount(r *http.Request) {
	if f.mount.Load() != nil {
		return
	}
	prefix := ""
	if c := chi.RouteContext(r.Context()); c != nil && c.RoutePath != "" {
		prefix, _ = strings.CutSuffix(pathOf(r), c.RoutePath)
	}
	f.mount.Store(&prefix)
}

// render calls the wrapped handler for a page. A router of chi expects to find in the context what its ServeHTTP, which
// runs before its middleware, has put there.
func (f *cacheFirst) render(w http.ResponseWriter, r *http.Request) {
	c := chi.NewRouteContext()
	if prefix := f.mount.Load(); prefix != nil && *prefix != "" {
		rest, ok := strings.CutPrefix(pathOf(r), *prefix)
		if !ok {
			// Another router has this page; a 404 of ours would destroy it.
			http.Error(w, "the page is outside of the router that CacheFirst wraps", http.StatusBadGateway)
			return
		}
		c.RoutePath = rest
	}
	f.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, c)))
}

// pathOf returns the path that chi routes by.
func pathOf(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// misconfigured returns why pages cannot be rendered where the middleware stands, or "".
func (f *cacheFirst) misconfigured(r *http.Request) string {
	switch {
	case !f.single:
		return ""
	case routed(r):
		return "CacheFirst wraps a single route: it needs the option RenderThrough"
	case parameterized(r):
		return "CacheFirst wraps a router below a route with a parameter: it needs the option RenderThrough"
	}
	return ""
}

// parameterized reports whether a part of the path that a router has read before the request came here is a parameter. A
// handler may ask for it, and a render could not say.
func parameterized(r *http.Request) bool {
	if strings.Contains(r.Pattern, "{") && !strings.HasSuffix(r.Pattern, "/{$}") {
		return true
	}
	c := chi.RouteContext(r.Context())
	return c != nil && strings.Contains(strings.Join(c.RoutePatterns, ""), "{")
}

// routed reports whether a router has chosen a single route for the request before it came here. Patterns of many routes
// end with a slash or "...}" (http.ServeMux) or with a wildcard (chi).
func routed(r *http.Request) bool {
	pattern := r.Pattern
	if c := chi.RouteContext(r.Context()); c != nil && len(c.RoutePatterns) > 0 {
		pattern = c.RoutePatterns[len(c.RoutePatterns)-1]
	}
	return pattern != "" && !strings.HasSuffix(pattern, "/") && !strings.HasSuffix(pattern, "*") && !strings.HasSuffix(pattern, "...}")
}

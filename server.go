package scales

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/problem"
)

// A Server answers GET and HEAD from the cache and sends all other requests over the queue to workers. It is an
// http.Handler, and safe for concurrent use.
type Server struct {
	cache    *Cache
	config   serverConfig
	reader   *reader
	producer *jobqueue.Producer
	bodies   atomic.Int64 // bytes of the request bodies under way
	present  sync.Once    // at the first request, it begins to say that it lives
	draining atomic.Bool  // every answer closes its connection

	middleware []func(http.Handler) http.Handler
	handler    http.Handler // the middleware around serve
}

var _ http.Handler = (*Server)(nil)

// NewServer returns a server of the cache. It does no I/O. From its first request on it keeps a connection to Redis, over which replies
// come, and says every two seconds that it lives, until Close.
func NewServer(cache *Cache, opts ...ServerOption) (*Server, error) {
	if cache == nil {
		return nil, errors.New("scales: NewServer: nil cache")
	}
	config := defaultServerConfig()
	for _, o := range opts {
		o.applyServer(&config)
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	queue := cache.queueConfig()
	queue.MaxQueue, queue.MaxKept = config.maxQueue, config.maxKept
	s := &Server{cache: cache, config: config, reader: cache.newReader(config.read), producer: jobqueue.NewProducer(queue)}
	s.handler = http.HandlerFunc(s.serve)
	return s, nil
}

// Use wraps the server into middleware, the first one outermost. It is called before the server serves.
func (s *Server) Use(middleware ...func(http.Handler) http.Handler) {
	s.middleware = append(s.middleware, middleware...)
	s.handler = chain(s.middleware, http.HandlerFunc(s.serve))
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.present.Do(s.producer.Start)
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	s.handler.ServeHTTP(w, r)
}

// Warm reads entries into the server's LocalCopy, until all are there or the copy is nearly full: in the order of their keys
// within each partition. Until a server is warm it serves what it has not got yet from Redis. Warm may be called at any time,
// also while requests are served. The error is that of ctx, ErrUnavailable, or ErrClosed.
func (s *Server) Warm(ctx context.Context) error { return s.reader.warm(ctx) }

// Drain has every answer from now on close its connection (Connection: close; with HTTP/2, GOAWAY), so that clients go on elsewhere.
// Requests are still served. It comes before http.Server.Shutdown, by as much as clients need to use their connections once more:
// Shutdown closes those that are idle, and a request that is just on its way there is lost, which a client cannot tell from one that
// was carried out.
func (s *Server) Drain() { s.draining.Store(true) }

// Close refuses further jobs and waits until those under way are answered, or ctx ends. It comes after
// http.Server.Shutdown.
func (s *Server) Close(ctx context.Context) error {
	defer s.reader.close(ctx)
	if err := s.producer.Close(ctx); err != nil {
		return fmt.Errorf("scales: server: %w", err)
	}
	return nil
}

// serve reads like the table of answers in docs/DESIGN.md.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, s.config.reserved):
		s.serveReserved(w, r)
	case r.Method == http.MethodTrace, r.Method == http.MethodConnect:
		problem.MethodNotSupported(r.Method).Write(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		s.forward(w, r)
	case s.config.delegate != nil && s.config.delegate(r):
		s.forward(w, r)
	default:
		s.read(w, r)
	}
}

// read answers from the cache, and from nowhere else.
func (s *Server) read(w http.ResponseWriter, r *http.Request) {
	key, err := s.cache.rules.Request(r)
	if err != nil {
		refuseTarget(r, err, s.cache.config.maxKey).Write(w, r)
		return
	}
	switch err := s.reader.answer(w, r, key); {
	case err == nil:
	case errors.Is(err, ErrNotFound) && s.config.notFound != nil:
		w.Header().Set("Cache-Control", "no-store")
		s.config.notFound.ServeHTTP(w, r)
	default:
		s.cache.refuseRead(w, r, err)
	}
}

// refuseRead answers a read that found no entry.
func (c *Cache) refuseRead(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, ErrNotFound) {
		problem.NotFound().Write(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	switch {
	case errors.Is(err, ErrNotFilled):
		problem.NotFilled().Write(w, r)
	case errors.Is(err, ErrUnsure):
		problem.Unsure().Write(w, r)
	case errors.Is(err, ErrLost):
		problem.Lost().Write(w, r)
	default:
		c.config.logger.Debug("scales: a read was answered 503", "error", err)
		problem.StoreUnreachable().Write(w, r)
	}
}

func refuseTarget(r *http.Request, err error, limit int) problem.Problem {
	switch {
	case errors.Is(err, canonical.ErrTooLong):
		return problem.TargetTooLong(limit)
	case errors.Is(err, canonical.ErrHost):
		return problem.Misdirected(r.Host)
	}
	return problem.MalformedTarget(err)
}

// writeBody ends an answer. A Content-Type that is not there is not to be guessed again.
func writeBody(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	header := w.Header()
	if _, ok := header["Content-Type"]; !ok {
		header["Content-Type"] = nil
	}
	if status != http.StatusNoContent && status != http.StatusNotModified && status != http.StatusResetContent {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead && len(body) > 0 {
		_, _ = w.Write(body) // the client has gone
	}
}

package scales

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/problem"
	"github.com/itscales/scales/internal/representation"
)

// A Server answers GET and HEAD from the cache and sends all other requests over the queue to workers. It is an
// http.Handler, and safe for concurrent use.
type Server struct {
	cache    *Cache
	config   serverConfig
	reader   *reader
	producer *jobqueue.Producer
	bodies   atomic.Int64 // bytes of the request bodies under way

	middleware []func(http.Handler) http.Handler
	handler    http.Handler // the middleware around serve
}

var _ http.Handler = (*Server)(nil)

// NewServer returns a server of the cache. It does no I/O.
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
	queue.MaxQueue = config.maxQueue
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
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Warm reads entries into the server's LocalCopy, until all are there or the copy is nearly full: in the order of their keys
// within each partition. Until a server is warm it serves what it has not got yet from Redis. Warm may be called at any time,
// also while requests are served. The error is that of ctx, ErrUnavailable, or ErrClosed.
func (s *Server) Warm(ctx context.Context) error { return s.reader.warm(ctx) }

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
		problem.Reserved(s.config.reserved).Write(w, r)
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

// forward sends a request over the queue and answers with the reply.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	if _, err := s.cache.rules.Request(r); err != nil {
		refuseTarget(r, err, s.cache.config.maxKey).Write(w, r)
		return
	}
	if err := s.producer.Admit(r.Context()); err != nil {
		s.refuseJob(w, r, err)
		return
	}
	body, release, refusal := s.readBody(w, r)
	defer release()
	if refusal != nil {
		refusal.Write(w, r)
		return
	}
	job, err := jobOf(r, body)
	if err != nil {
		problem.MalformedTarget(err).Write(w, r)
		return
	}
	answer, err := s.producer.Do(r.Context(), job, s.config.deadline)
	if err != nil {
		s.refuseJob(w, r, err)
		return
	}
	s.reader.reach(r.Context(), partition.ParseReach(answer.Log))
	reply, err := message.ParseResponse([]byte(answer.Text))
	if err != nil {
		s.cache.config.logger.Error("scales: a reply cannot be decoded", "job", job.ID, "error", err)
		problem.OutcomeUnknown().Write(w, r)
		return
	}
	writeReply(w, r, reply)
}

// writeReply answers with what the application answered: every end-to-end field.
func writeReply(w http.ResponseWriter, r *http.Request, reply *message.Response) {
	field.RemoveHopByHop(reply.Header)
	reply.Header.Del(field.ScalesCacheControl)
	field.Merge(w.Header(), reply.Header)
	if r.Method == http.MethodHead {
		// What a GET would have had is for the application to say.
		if _, ok := w.Header()["Content-Type"]; !ok {
			w.Header()["Content-Type"] = nil
		}
		w.WriteHeader(reply.Status)
		return
	}
	writeBody(w, r, reply.Status, reply.Body)
}

// readBody reads the body of a request, within the limits of size, memory and time. The caller calls release when it does
// not hold the body any more.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), refusal *problem.Problem) {
	meter := &bodyMeter{body: r.Body, total: &s.bodies, limit: s.config.bodyMemory}
	refuse := func(p problem.Problem) ([]byte, func(), *problem.Problem) {
		w.Header().Set("Connection", "close") // the rest of the body is not read
		return nil, meter.release, &p
	}
	if r.ContentLength > s.config.maxBody {
		return refuse(problem.BodyTooLarge(s.config.maxBody))
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, meter.release, nil
	}
	controller := http.NewResponseController(w)
	if err := controller.SetReadDeadline(time.Now().Add(s.config.bodyTimeout)); err == nil {
		// Without it net/http would take the client for gone while we wait for the reply.
		defer func() { _ = controller.SetReadDeadline(time.Time{}) }()
	}
	body, err := io.ReadAll(io.LimitReader(meter, s.config.maxBody+1))
	switch {
	case errors.Is(err, errBodyMemory):
		w.Header().Set("Retry-After", "1")
		return refuse(problem.BodiesTooLarge(s.config.bodyMemory))
	case int64(len(body)) > s.config.maxBody:
		return refuse(problem.BodyTooLarge(s.config.maxBody))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(problem.BodyTimeout(s.config.bodyTimeout))
	case err != nil:
		return refuse(problem.BodyIncomplete())
	}
	return body, meter.release, nil
}

var errBodyMemory = errors.New("the bodies under way are over the limit")

// bodyMeter counts the bytes of a body as they arrive, together with those of all other bodies.
type bodyMeter struct {
	body  io.Reader
	total *atomic.Int64
	limit int64
	held  int64
}

func (m *bodyMeter) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	m.held += int64(n)
	if m.total.Add(int64(n)) > m.limit {
		return n, errBodyMemory
	}
	return n, err
}

func (m *bodyMeter) release() { m.total.Add(-m.held) }

// jobOf returns the job that carries a request: everything end-to-end, and nothing that belongs to the connection.
func jobOf(r *http.Request, body []byte) (jobqueue.Job, error) {
	target := r.URL.EscapedPath()
	if !strings.HasPrefix(target, "/") {
		target = "/" + target // http.StripPrefix may take it
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		target += "?" + r.URL.RawQuery
	}
	header := r.Header.Clone()
	field.RemoveHopByHop(header)
	representation.TakeSuffixes(header)
	header.Del("Expect") // it was answered here
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	request, err := message.AppendRequest(nil, &message.Request{
		Method: r.Method, Target: target, Host: r.Host, Header: header, Body: body,
	})
	return jobqueue.Job{ID: jobqueue.NewID(), Scheme: scheme, Remote: r.RemoteAddr, Request: string(request)}, err
}

// refuseJob answers a request that has no reply: 503 where it surely never runs, 504 where nobody knows.
func (s *Server) refuseJob(w http.ResponseWriter, r *http.Request, err error) {
	retry := func(p problem.Problem) {
		w.Header().Set("Retry-After", "1")
		p.Write(w, r)
	}
	switch {
	case errors.Is(err, jobqueue.ErrFull):
		retry(problem.QueueFull(s.config.maxQueue))
	case errors.Is(err, jobqueue.ErrNoWorker):
		retry(problem.NoWorker())
	case errors.Is(err, jobqueue.ErrClosed):
		w.Header().Set("Connection", "close")
		retry(problem.Draining())
	case errors.Is(err, jobqueue.ErrWithdrawn):
		retry(problem.NotStarted(s.config.deadline))
	case errors.Is(err, jobqueue.ErrUnavailable):
		s.cache.outage.Note(err)
		retry(problem.StoreUnreachable())
	case errors.Is(err, jobqueue.ErrRunning):
		problem.StillRunning(s.config.deadline).Write(w, r)
	default:
		s.cache.config.logger.Warn("scales: a request was answered 504", "error", err)
		problem.OutcomeUnknown().Write(w, r)
	}
}

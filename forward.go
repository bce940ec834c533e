package scales

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/problem"
	"github.com/itscales/scales/internal/representation"
	"github.com/itscales/scales/internal/step"
)

// forward sends a request over the queue and answers with the reply.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	if _, err := s.cache.rules.Request(r); err != nil {
		refuseTarget(r, err, s.cache.config.maxKey).Write(w, r)
		return
	}
	wishes, err := s.wishesOf(r)
	if err != nil {
		problem.MalformedIdempotencyKey(err).Write(w, r)
		return
	}
	if wishes.key == "" { // else there may be a reply
		if err := s.producer.Admit(r.Context(), s.patience(wishes)); err != nil {
			s.refuseJob(w, r, err, wishes)
			return
		}
	}
	body, release, refusal := s.readBody(w, r)
	defer release()
	if refusal != nil {
		refusal.Write(w, r)
		return
	}
	job, err := s.jobOf(r, body, wishes)
	if err != nil {
		problem.MalformedTarget(err).Write(w, r)
		return
	}
	answer, err := s.producer.Do(r.Context(), job, s.patience(wishes))
	switch {
	case errors.Is(err, jobqueue.ErrAccepted):
		s.accept(w, r, answer.Job, wishes)
		return
	case err != nil:
		s.refuseJob(w, r, err, wishes)
		return
	}
	if answer.Stored {
		w.Header().Set(replyField, "stored")
	}
	s.writeAnswer(w, r, answer)
}

// writeAnswer answers with a reply, once what this server reads from has come as far as the writes that the reply is about.
func (s *Server) writeAnswer(w http.ResponseWriter, r *http.Request, answer jobqueue.Reply) {
	s.reader.reach(r.Context(), partition.ParseReach(answer.Log))
	reply, err := message.ParseResponse([]byte(answer.Text))
	if err != nil {
		s.cache.config.logger.Error("scales: a reply cannot be decoded", "job", answer.Job, "error", err)
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
func (s *Server) jobOf(r *http.Request, body []byte, wishes wishes) (jobqueue.Job, error) {
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
	if wishes.RespondAsync || wishes.Waits {
		field.TakePreferences(header)
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	request, err := message.AppendRequest(nil, &message.Request{
		Method: r.Method, Target: target, Host: r.Host, Header: header, Body: body,
	})
	return jobqueue.Job{
		ID: jobqueue.NewID(), Scheme: scheme, Remote: r.RemoteAddr, Request: string(request), Tracking: s.tracking(r, target, body, wishes),
		Order: s.orderOf(r),
	}, err
}

// orderOf names the jobs that run one after the other with that of a request.
func (s *Server) orderOf(r *http.Request) string {
	if s.config.order == nil || step.Safe(r.Method) {
		return ""
	}
	if order := s.config.order(r); order != "" {
		return digest(order)
	}
	return ""
}

// refuseJob answers a request that has no reply: 503 where it surely never runs, 504 where nobody knows.
func (s *Server) refuseJob(w http.ResponseWriter, r *http.Request, err error, wishes wishes) {
	retryIn := func(d time.Duration, p problem.Problem) {
		w.Header().Set("Retry-After", strconv.Itoa(int(d/time.Second)))
		p.Write(w, r)
	}
	retry := func(p problem.Problem) { retryIn(time.Second, p) }
	patience := s.patience(wishes)
	switch {
	case errors.Is(err, jobqueue.ErrFull):
		retryIn(s.producer.RetryAfter(patience), problem.QueueFull(s.config.maxQueue))
	case errors.Is(err, jobqueue.ErrBusy):
		retryIn(s.producer.RetryAfter(patience), problem.TooBusy(patience.Begins()))
	case errors.Is(err, jobqueue.ErrOrderFull):
		retryIn(s.producer.RetryAfter(patience), problem.OrderFull(jobqueue.MaxLane(s.config.maxQueue)))
	case errors.Is(err, jobqueue.ErrNoWorker):
		retry(problem.NoWorker())
	case errors.Is(err, jobqueue.ErrClosed):
		w.Header().Set("Connection", "close")
		retry(problem.Draining())
	case errors.Is(err, jobqueue.ErrWithdrawn):
		retry(problem.NotStarted(s.config.deadline))
	case errors.Is(err, jobqueue.ErrUnavailable):
		retry(problem.StoreUnreachable())
	case errors.Is(err, jobqueue.ErrPayload):
		problem.IdempotencyKeyReused().Write(w, r)
	case errors.Is(err, jobqueue.ErrCrowded):
		retry(problem.RepliesFull(s.config.maxKept.Jobs, s.config.maxKept.Bytes))
	case errors.Is(err, jobqueue.ErrForgotten):
		problem.ReplyForgotten().Write(w, r)
	case errors.Is(err, jobqueue.ErrShared):
		problem.StillWanted().Write(w, r)
	case errors.Is(err, jobqueue.ErrRunning):
		problem.StillRunning(s.config.deadline).Write(w, r)
	default:
		s.cache.config.logger.Warn("scales: a request was answered 504", "error", err)
		problem.OutcomeUnknown().Write(w, r)
	}
}

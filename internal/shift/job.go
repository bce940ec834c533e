package shift

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/problem"
	"github.com/itscales/scales/internal/step"
)

// serve brings a job to its end. reserved says that a slot is taken for it.
func (s *shift) serve(d *jobqueue.Delivery, reserved bool) {
	defer s.end(d.StreamID)
	release := sync.OnceFunc(func() { <-s.slots })
	if reserved {
		defer release()
	}
	if d.Decided {
		s.finishDecided(d)
		return
	}
	request, target, err := parseJob(d)
	if err != nil {
		d.Broken, d.FreesScope = err, true
		s.bury(d, step.Pending{}, problem.WorkerDied(), err.Error())
		return
	}
	if s.isOver(d, request, target) {
		return
	}
	if !reserved {
		if !s.awaitSlot(d) {
			return
		}
		defer release()
		if s.isOver(d, request, target) { // the slot came late
			return
		}
	}
	if !s.Guards.NoLook && !s.stillOurs(d) {
		return
	}
	s.start(d.StreamID)
	result, owed := s.execute(d, request, target, release)
	if s.ended.Err() != nil {
		return // the handler was told to end: what it has answered then is not the answer
	}
	reply := s.replyTo(d, result)
	if d.Unattended() {
		if failure := failureOf(result); failure != "" {
			s.bury(d, owed.Rest(), problem.WorkerDied(), "it was replayed, and "+failure)
			return
		}
		s.Logger.Info("scales: a dead letter was replayed", "job", d.ID, "status", result.Status)
	}
	s.settle(d, reply, owed)
}

// awaitSlot takes a slot for a job that came without one. False means that another worker has the job, because this one drains, or
// that the shift has given up.
func (s *shift) awaitSlot(d *jobqueue.Delivery) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.leaves:
	case <-s.ended.Done():
		return false
	}
	for {
		if s.handOver(s.ended, map[string]int64{d.StreamID: d.Deliveries}) {
			return false
		}
		again := time.NewTimer(s.Consumer.BeatInterval()) // there may be another worker by then
		select {
		case s.slots <- struct{}{}:
			again.Stop()
			// The answer to what has given it away may be lost.
			if s.retry(d, "look whether it is ours", func() (bool, error) { return s.Consumer.Owns(s.ended, d) }) {
				return true
			}
			<-s.slots
			return false
		case <-again.C:
		case <-s.ended.Done():
			again.Stop()
			return false
		}
	}
}

// failureOf says in what a job has failed that nobody waits for, "" if it has not: who would have been told must not be, so
// nothing that he would want to know may vanish.
func failureOf(result invoke.Result) string {
	switch {
	case result.Panic != nil:
		return "the application panicked"
	case result.Aborted, result.Short:
		return "the application broke off its response"
	case result.Status >= http.StatusBadRequest:
		return fmt.Sprintf("answered with status %d", result.Status)
	}
	return ""
}

// isOver ends a job that may not be run, or not any more.
func (s *shift) isOver(d *jobqueue.Delivery, request *message.Request, target *url.URL) bool {
	late := s.Consumer.Now() > d.Deadline
	switch {
	case !d.First() && (late || d.Unattended() || d.Deliveries > maxDeliveries || !s.mayRepeat(request)):
		s.bury(d, s.around(request, target), problem.WorkerDied(), "its worker died and it may not be repeated")
	case late && d.Unattended():
		s.buryAs(d, step.Pending{}, problem.WorkerDied(), "it was replayed, and no worker has begun it in time", false)
	case late:
		return s.expire(d)
	default:
		return false
	}
	return true
}

// maxDeliveries is how many workers at most run a job: what kills one worker would kill them all, as long as its deadline allows.
const maxDeliveries = 5

// expire ends a job that is begun too late. False means that somebody waits for it still.
func (s *shift) expire(d *jobqueue.Delivery) bool {
	reply := problem.Expired().Response()
	reply.Header.Set("Retry-After", "1")
	text, _ := encodeReply(reply) // never fails
	d.FreesScope = true
	s.retry(d, "let it expire", func() (bool, error) {
		done, err := s.Consumer.Expire(s.ended, d, text)
		return done || d.Extended(), err
	})
	if d.Extended() {
		d.FreesScope = false
	}
	return !d.Extended()
}

// stillOurs reports whether nobody has taken the job over before its handler begins: a worker that was stopped for longer
// than its lease must not run what another has run and answered.
func (s *shift) stillOurs(d *jobqueue.Delivery) bool {
	if s.Consumer.Keeps(d) {
		return true
	}
	return s.retry(d, "look whether it is ours", func() (bool, error) { return s.Consumer.Owns(s.ended, d) })
}

func parseJob(d *jobqueue.Delivery) (*message.Request, *url.URL, error) {
	if d.Broken != nil {
		return nil, nil, d.Broken
	}
	request, err := message.ParseRequest([]byte(d.Request))
	if err != nil {
		return nil, nil, err
	}
	target, err := url.ParseRequestURI(request.Target)
	if err != nil {
		return nil, nil, fmt.Errorf("request target: %w", err)
	}
	return request, target, nil
}

// mayRepeat reports whether a request may be run again after its worker died.
func (s *shift) mayRepeat(request *message.Request) bool {
	if step.Idempotent(request.Method) {
		return true
	}
	key, err := field.IdempotencyKey(request.Header)
	return s.RepeatKeyed && key != "" && err == nil
}

// execute calls the application and returns how it has answered, and what is owed before the reply is released. The slot goes back
// when the handler has returned: a job that waits for Redis, or for renders, holds none.
func (s *shift) execute(d *jobqueue.Delivery, request *message.Request, target *url.URL, release func()) (invoke.Result, step.Owed) {
	ctx, cancel := context.WithTimeout(s.ended, s.JobTimeout)
	defer cancel()
	ctx, buffer := s.Writer(ctx, d.ID)
	call := invoke.Call{
		Method: request.Method, Target: request.Target, Host: request.Host, Scheme: d.Scheme, RemoteAddr: d.Remote,
		Header: request.Header, Body: request.Body, Server: s.Server,
	}
	exchange := step.Exchange{
		Job: d.ID, Method: request.Method, Scheme: d.Scheme, Host: request.Host, Target: target, Buffer: buffer,
	}
	r, err := call.Request(ctx)
	if err != nil { // it was checked when the job was parsed
		exchange.Result = invoke.Result{Status: http.StatusInternalServerError, Panic: err}
	} else {
		exchange.Result = invoke.Serve(s.App, r, s.MaxReply)
	}
	release()
	d.FreesScope = exchange.Result.Panic != nil
	return exchange.Result, s.Rules.Owe(exchange, s.Exists)
}

// replyTo returns what the client is told.
func (s *shift) replyTo(d *jobqueue.Delivery, result invoke.Result) *message.Response {
	switch {
	case result.Panic != nil:
		s.Logger.Error("scales: the application panicked", "job", d.ID, "panic", result.Panic, "stack", string(result.Stack))
		return problem.ApplicationPanicked().Response()
	case result.Aborted:
		return problem.ApplicationAborted().Response()
	case result.Short:
		return problem.ApplicationAborted().Response()
	case result.TooLarge:
		s.Logger.Error("scales: a response is over the limit", "job", d.ID, "limit", s.MaxReply)
		return problem.ReplyTooLarge(s.MaxReply).Response()
	}
	field.RemoveHopByHop(result.Header)
	return &message.Response{Status: result.Status, Header: result.Header, Body: result.Body}
}

// around returns what is rendered where nobody knows what a job has changed.
func (s *shift) around(request *message.Request, target *url.URL) step.Pending {
	if step.Safe(request.Method) {
		return step.Pending{}
	}
	return s.Rules.Around(request.Host, target, s.Exists)
}

// settle does what a job owes and releases its reply.
//
// The decision and the renders need not wait for each other: a render tells the truth whenever it runs. Writes of the job
// itself wait for the decision, which says that the job is still ours.
func (s *shift) settle(d *jobqueue.Delivery, reply *message.Response, owed step.Owed) {
	if owed.Empty() {
		s.finish(d, reply)
		return
	}
	text, err := encodeReply(reply)
	if err != nil {
		s.Logger.Error("scales: a reply cannot be encoded", "job", d.ID, "error", err)
		text, _ = encodeReply(problem.ApplicationPanicked().Response())
	}
	if d.Unattended() {
		text = ""
	}
	stamped := s.retry(d, "order its writes", func() (bool, error) { return true, s.Renderer.Stamp(s.ended, &owed.Work) })
	if !stamped {
		return
	}
	debt, err := owed.Encode()
	if err != nil {
		s.bury(d, step.Pending{}, problem.ApplicationPanicked(), "what it owes cannot be encoded: "+err.Error())
		return
	}
	decide := func() bool {
		return s.retry(d, "decide", func() (bool, error) { return s.Consumer.Decide(s.ended, d, text, debt) })
	}
	if len(owed.Work.Writes) > 0 {
		switch {
		case !decide():
			s.pend(d, owed.Rest()) // its writes are dropped, but what it named is rendered
		default:
			s.payAndRelease(d, owed)
		}
		return
	}
	decided := make(chan bool, 1)
	go func() { decided <- decide() }()
	log, paid := s.pay(d, owed)
	if <-decided && paid {
		s.release(d, log)
	}
}

func encodeReply(reply *message.Response) (string, error) {
	b, err := message.AppendResponse(nil, reply)
	return string(b), err
}

// finishDecided ends the job of a worker that died after its application had answered.
func (s *shift) finishDecided(d *jobqueue.Delivery) {
	owed, err := step.Decode(d.Owed)
	if err != nil {
		s.Logger.Error("scales: what a job owes cannot be decoded; the cache may have drifted", "job", d.ID, "error", err)
	}
	owed.Work.Job = d.ID
	s.payAndRelease(d, owed)
}

func (s *shift) payAndRelease(d *jobqueue.Delivery, owed step.Owed) {
	if log, ok := s.pay(d, owed); ok {
		s.release(d, log)
	}
}

// pay does what a job owes to the cache, and returns how far the change logs have come with that.
func (s *shift) pay(d *jobqueue.Delivery, owed step.Owed) (log partition.Reach, ok bool) {
	if !owed.Pending.Empty() && !s.pend(d, owed.Pending) {
		return nil, false
	}
	results, err := s.Renderer.Perform(s.ended, owed.Work)
	if err != nil {
		return nil, false
	}
	return s.Renderer.Reach(owed.Work, results), true
}

// pend has something rendered in the background.
func (s *shift) pend(d *jobqueue.Delivery, what step.Pending) bool {
	return s.retry(d, "make keys pending", func() (bool, error) { return true, s.Pend(s.ended, d.ID, what) })
}

func (s *shift) release(d *jobqueue.Delivery, log partition.Reach) {
	s.retry(d, "release", func() (bool, error) { return s.Consumer.Release(s.ended, d, log.String()) })
}

func (s *shift) finish(d *jobqueue.Delivery, reply *message.Response) {
	text, err := encodeReply(reply)
	if err != nil {
		s.Logger.Error("scales: a reply cannot be encoded", "job", d.ID, "error", err)
		text, _ = encodeReply(problem.ApplicationPanicked().Response())
	}
	s.retry(d, "finish", func() (bool, error) { return s.Consumer.Finish(s.ended, d, text) })
}

// bury makes a job a dead letter, after what it may have changed was made pending.
func (s *shift) bury(d *jobqueue.Delivery, changed step.Pending, answer problem.Problem, reason string) {
	s.buryAs(d, changed, answer, reason, d.Broken == nil) // what is no job was never carried out
}

// buryAs is bury for who knows whether the cache may have drifted.
func (s *shift) buryAs(d *jobqueue.Delivery, changed step.Pending, answer problem.Problem, reason string, drift bool) {
	s.Logger.Error("scales: a job became a dead letter", "job", d.ID, "reason", reason, "cache may have drifted", drift)
	text, err := encodeReply(answer.Response())
	if err != nil {
		text = ""
	}
	if changed.Empty() || s.pend(d, changed) {
		s.retry(d, "bury", func() (bool, error) { return s.Consumer.Bury(s.ended, d, text, reason, drift) })
	}
}

// retry takes a step of a job, however long Redis is away. False means that the job is somebody else's by now, or that
// the shift has given up.
func (s *shift) retry(d *jobqueue.Delivery, name string, step func() (bool, error)) bool {
	const first, longest = 50 * time.Millisecond, time.Second
	for backoff := first; ; backoff = min(2*backoff, longest) {
		ok, err := step()
		if err == nil {
			if !ok {
				s.Logger.Warn("scales: a job was taken over by another worker", "job", d.ID, "step", name)
			}
			return ok
		}
		if s.ended.Err() != nil {
			return false
		}
		s.Logger.Warn("scales: a step of a job failed and is tried again", "job", d.ID, "step", name, "error", err)
		wait(s.ended, backoff)
	}
}

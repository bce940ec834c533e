package scales

import (
	"context"
	"errors"
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
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/step"
)

// maxInHand bounds how many jobs a worker owns at once: those in their handlers, and those whose handlers have returned
// and which wait for renders.
const maxInHand = 4096

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

func (c *Cache) newRenderer(config renderConfig, app http.Handler) *render.Renderer {
	return render.New(render.Config{
		Store: c.store, App: app, Rules: c.rules, Origin: c.origin, Mark: markRendering,
		Limit: config.concurrency, Timeout: config.timeout, MaxEntry: c.config.maxEntry,
		Lease: c.config.claimLease, Retry: 500 * time.Millisecond, Logger: c.config.logger,
	})
}

// Use wraps the application into middleware, the first one outermost, for jobs and renders. It is called before Run and
// Fill.
func (w *Worker) Use(middleware ...func(http.Handler) http.Handler) {
	w.middleware = append(w.middleware, middleware...)
	w.handler = chain(w.middleware, w.app)
}

func (w *Worker) serveApp(rw http.ResponseWriter, r *http.Request) { w.handler.ServeHTTP(rw, r) }

// Run takes jobs until ctx ends; then it finishes those under way, as far as DrainTimeout allows, and returns nil. It
// waits for Redis where that is away, at the start as well. A worker runs once at a time: otherwise ErrRunning.
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
	return newShift(w).run(ctx)
}

// A shift is one Run of a worker.
type shift struct {
	*Worker
	consumer *jobqueue.Consumer

	slots  chan struct{} // one for each handler that runs
	inHand sync.WaitGroup
	stop   context.CancelFunc
	ended  context.Context // ends when the shift gives up what is still under way

	mu   sync.Mutex
	jobs map[string]struct{} // stream ids of the jobs in hand
}

func newShift(w *Worker) *shift {
	config := w.cache.queueConfig()
	config.Retention, config.MaxDead = retention, w.config.maxDead
	s := &shift{
		Worker:   w,
		consumer: jobqueue.NewConsumer(config, w.config.lease, w.config.concurrency),
		slots:    make(chan struct{}, w.config.concurrency),
		jobs:     make(map[string]struct{}),
	}
	s.ended, s.stop = context.WithCancel(context.Background())
	return s
}

func (s *shift) run(ctx context.Context) error {
	defer s.stop()
	var background sync.WaitGroup
	untend := s.cache.tending(s.renderer)
	defer untend()
	background.Go(func() { s.renderer.Tend(ctx) })
	background.Go(func() { s.beat(s.ended) })

	s.take(ctx)
	drained := make(chan struct{})
	go func() {
		s.inHand.Wait()
		close(drained)
	}()
	timer := time.NewTimer(s.config.drainTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		s.cache.config.logger.Error("scales: jobs were under way at the end of the drain; other workers finish them")
	}
	s.stop()
	background.Wait()
	if err := s.consumer.Leave(context.WithoutCancel(ctx)); err != nil {
		s.cache.config.logger.Warn("scales: the worker could not say that it leaves", "error", err)
	}
	return nil
}

// beat keeps the leases of the worker's jobs, and takes over those of workers that have died.
func (s *shift) beat(ctx context.Context) {
	ticker := time.NewTicker(s.consumer.BeatInterval())
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		took, err := s.consumer.Beat(ctx)
		if err != nil {
			s.cache.config.logger.Warn("scales: a heartbeat failed", "error", err)
			continue
		}
		if took || s.consumer.Doubt() {
			s.takeMine(ctx)
		}
	}
}

// takeMine takes the jobs that the worker owns without having them in hand: taken over from others, or delivered by a
// fetch whose answer was lost.
func (s *shift) takeMine(ctx context.Context) {
	mine, err := s.consumer.Mine(ctx)
	if err != nil {
		s.consumer.SetDoubt()
		s.cache.config.logger.Warn("scales: the jobs of this worker could not be listed", "error", err)
	}
	for _, d := range mine {
		if s.begin(d) {
			go s.serve(d, false)
		}
	}
}

// take fetches jobs for free slots until ctx ends.
func (s *shift) take(ctx context.Context) {
	const pause = 100 * time.Millisecond
	for joined := false; ctx.Err() == nil; {
		if !joined {
			err := s.consumer.Join(ctx)
			joined = err == nil
			if err != nil {
				s.cache.config.logger.Warn("scales: the worker waits for Redis", "error", err)
				wait(ctx, pause)
				continue
			}
		}
		free := s.reserve(ctx)
		if free == 0 {
			return
		}
		fetched, err := s.consumer.Fetch(ctx, free)
		for range free - len(fetched) {
			<-s.slots
		}
		for _, d := range fetched {
			if s.begin(d) {
				go s.serve(d, true)
			} else {
				<-s.slots
			}
		}
		if err != nil {
			s.cache.config.logger.Warn("scales: jobs could not be fetched", "error", err)
			wait(ctx, pause)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reserve takes all slots that are free, at least one.
func (s *shift) reserve(ctx context.Context) (n int) {
	for s.count() >= maxInHand {
		wait(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			return 0
		}
	}
	select {
	case s.slots <- struct{}{}:
		n++
	case <-ctx.Done():
		return 0
	}
	for {
		select {
		case s.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
}

func (s *shift) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs)
}

// begin takes a job in hand. False means that it is in hand already.
func (s *shift) begin(d *jobqueue.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.jobs[d.StreamID]; ok {
		return false
	}
	s.jobs[d.StreamID] = struct{}{}
	s.inHand.Add(1)
	return true
}

func (s *shift) end(d *jobqueue.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, d.StreamID)
	s.inHand.Done()
}

// serve brings a job to its end. reserved says that a slot is taken for it.
func (s *shift) serve(d *jobqueue.Delivery, reserved bool) {
	defer s.end(d)
	release := sync.OnceFunc(func() { <-s.slots })
	if reserved {
		defer release()
	}
	request, target, err := parseJob(d)
	switch {
	case err != nil:
		s.bury(d, nil, problem.WorkerDied(), err.Error())
	case d.Decided:
		s.finishDecided(d)
	case !d.First() && !(step.Idempotent(request.Method) && s.consumer.Now() < d.Deadline):
		s.bury(d, s.targetOf(request, target), problem.WorkerDied(), "its worker died and it may not be repeated")
	case d.First() && s.consumer.Now() > d.Deadline:
		s.finish(d, problem.Expired().Response())
	default:
		if !reserved {
			select {
			case s.slots <- struct{}{}:
				defer release()
			case <-s.ended.Done():
				return
			}
		}
		reply, owed := s.execute(d, request, target)
		release() // a job that waits for renders holds no slot
		s.settle(d, reply, owed)
	}
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

// execute calls the application and returns its reply, and what is owed before that is released.
func (s *shift) execute(d *jobqueue.Delivery, request *message.Request, target *url.URL) (*message.Response, step.Owed) {
	writer := newJobWriter(s.cache)
	ctx, cancel := context.WithTimeout(writer.with(s.ended), s.config.jobTimeout)
	defer cancel()
	call := invoke.Call{
		Method: request.Method, Target: request.Target, Host: request.Host, Scheme: d.Scheme, RemoteAddr: d.Remote,
		Header: request.Header, Body: request.Body,
	}
	exchange := step.Exchange{
		Method: request.Method, Scheme: d.Scheme, Host: request.Host, Target: target, Buffer: writer.buffer,
	}
	r, err := call.Request(ctx)
	if err != nil { // it was checked when the job was parsed
		exchange.Result = invoke.Result{Status: http.StatusInternalServerError, Panic: err}
	} else {
		exchange.Result = invoke.Serve(s.handler, r, s.config.maxReply)
	}
	return s.replyTo(d, exchange.Result), s.rules.Owe(exchange, s.exists)
}

// replyTo returns what the client is told.
func (s *shift) replyTo(d *jobqueue.Delivery, result invoke.Result) *message.Response {
	switch {
	case result.Panic != nil:
		s.cache.config.logger.Error("scales: the application panicked", "job", d.ID, "panic", result.Panic, "stack", string(result.Stack))
		return problem.ApplicationPanicked().Response()
	case result.Aborted:
		return problem.ApplicationAborted().Response()
	case result.Short:
		return problem.ApplicationAborted().Response()
	case result.TooLarge:
		s.cache.config.logger.Error("scales: a response is over the limit", "job", d.ID, "limit", s.config.maxReply)
		return problem.ReplyTooLarge(s.config.maxReply).Response()
	}
	field.RemoveHopByHop(result.Header)
	return &message.Response{Status: result.Status, Header: result.Header, Body: result.Body}
}

// exists reports whether a key has an entry or a tombstone. When in doubt it does: a render tells.
func (s *shift) exists(key string) bool { return s.cache.exists(key) }

func (c *Cache) exists(key string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), c.config.timeout)
	defer cancel()
	found, err := c.store.Of(key).Read(ctx, key)
	return err != nil || found.Exists || found.Lost
}

func (s *shift) targetOf(request *message.Request, target *url.URL) []string {
	if key, ok := s.rules.Target(request.Host, target, s.exists); ok && !step.Safe(request.Method) {
		return []string{key}
	}
	return nil
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
		s.cache.config.logger.Error("scales: a reply cannot be encoded", "job", d.ID, "error", err)
		text, _ = encodeReply(problem.ApplicationPanicked().Response())
	}
	debt, err := owed.Encode()
	if err != nil {
		s.cache.config.logger.Error("scales: what a job owes cannot be encoded", "job", d.ID, "error", err)
		return
	}
	decide := func() bool {
		return s.retry(d, "decide", func() (bool, error) { return s.consumer.Decide(s.ended, d, text, debt) })
	}
	if len(owed.Work.Writes) > 0 {
		if decide() && s.pay(d, owed) {
			s.release(d)
		}
		return
	}
	decided := make(chan bool, 1)
	go func() { decided <- decide() }()
	paid := s.pay(d, owed)
	if <-decided && paid {
		s.release(d)
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
		s.cache.config.logger.Error("scales: what a job owes cannot be decoded; the cache may have drifted", "job", d.ID, "error", err)
	}
	if s.pay(d, owed) {
		s.release(d)
	}
}

// pay does what a job owes to the cache.
func (s *shift) pay(d *jobqueue.Delivery, owed step.Owed) bool {
	if len(owed.Pending) > 0 && !s.pend(d, owed.Pending) {
		return false
	}
	if _, err := s.renderer.Perform(s.ended, owed.Work); err != nil {
		return false
	}
	return true
}

// pend makes keys pending.
func (s *shift) pend(d *jobqueue.Delivery, keys []string) bool {
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = partition.Operation{Kind: partition.OpPend, Key: key, Limited: true}
	}
	return s.retry(d, "make keys pending", func() (bool, error) {
		err := s.cache.commit(s.ended, operations)
		if errors.Is(err, ErrNotStorable) {
			s.cache.config.logger.Error("scales: keys could not be made pending", "job", d.ID, "error", err)
			return true, nil
		}
		return err == nil, err
	})
}

func (s *shift) release(d *jobqueue.Delivery) {
	s.retry(d, "release", func() (bool, error) { return s.consumer.Release(s.ended, d) })
}

func (s *shift) finish(d *jobqueue.Delivery, reply *message.Response) {
	text, err := encodeReply(reply)
	if err != nil {
		s.cache.config.logger.Error("scales: a reply cannot be encoded", "job", d.ID, "error", err)
		text, _ = encodeReply(problem.ApplicationPanicked().Response())
	}
	s.retry(d, "finish", func() (bool, error) { return s.consumer.Finish(s.ended, d, text) })
}

// bury makes a job a dead letter, after what it may have changed was made pending.
func (s *shift) bury(d *jobqueue.Delivery, keys []string, answer problem.Problem, reason string) {
	s.cache.config.logger.Error("scales: a job became a dead letter; the cache may have drifted", "job", d.ID, "reason", reason)
	text, err := encodeReply(answer.Response())
	if err != nil {
		text = ""
	}
	if len(keys) == 0 || s.pend(d, keys) {
		s.retry(d, "bury", func() (bool, error) { return s.consumer.Bury(s.ended, d, text, reason) })
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
				s.cache.config.logger.Warn("scales: a job was taken over by another worker", "job", d.ID, "step", name)
			}
			return ok
		}
		if s.ended.Err() != nil {
			return false
		}
		s.cache.config.logger.Warn("scales: a step of a job failed and is tried again", "job", d.ID, "step", name, "error", err)
		wait(s.ended, backoff)
	}
}

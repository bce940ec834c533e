package jobqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/batch"
	"github.com/itscales/scales/internal/streamid"
)

const (
	// fresh is how old the knowledge about the queue may be on which a job is admitted.
	fresh = 500 * time.Millisecond

	readBlock = time.Second
	readCount = 256
)

// A Producer enqueues jobs and waits for their replies. It is safe for concurrent use.
type Producer struct {
	config  Config
	keys    keys
	scripts scripts
	server  string // a fresh id per start names the stream of replies

	enqueues    *batch.Batcher[Job, enqueued]
	withdrawals *batch.Batcher[withdrawal, string]
	looks       *batch.Batcher[struct{}, status]
	clock       redisClock
	blind       atomic.Int64 // when a look at Redis failed, in ns; 0 once one has succeeded
	calls       atomic.Int64 // round trips that enqueue

	mu         sync.Mutex
	waiting    map[string]*waiter // by job id; each is told once and then removed
	last       status
	lookedAt   time.Time // when last was learnt
	pace       pace
	identified time.Time // when last.redis was asked for
	read       string    // the id up to which replies were read
	trimmed    time.Time // when the latest enqueue said so
	reading    bool
	closed     bool
	drained    chan struct{} // closed when the producer is closed and nobody waits any more
	wake       context.CancelFunc
	readers    sync.WaitGroup

	closing   context.Context // ends with Close
	endDoubts context.CancelFunc
	resolving sync.WaitGroup // of enqueues without an answer
}

// A waiter is a caller that waits for a reply.
type waiter struct {
	outcomes chan outcome
	taken    chan struct{} // closed when Redis is known to have taken the job

	at     string // the job's id in the stream of jobs; unknown before Redis took it
	joined string // the job waited for, where it is not the caller's own

	// What Redis was when it took the job, and when, by its clock; unknown before that.
	incarnation string
	redis       string
	since       int64
}

// An outcome is what a caller is told: a reply, whose reply is kept, or why there will be none.
type outcome struct {
	reply Reply
	kept  string
	err   error
}

type status struct {
	alive       int64
	slots       int64 // of those that are alive
	length      int64
	parked      int64 // jobs besides, which wait for their turn
	finished    int64
	last        string
	incarnation string
	now         int64  // by Redis's clock, in µs
	redis       string // see identity
}

// NewProducer returns a producer; it does no I/O.
func NewProducer(config Config) *Producer {
	p := &Producer{
		config: config, keys: newKeys(config.Prefix), scripts: compile(config.Guards), server: NewID(),
		waiting: make(map[string]*waiter), drained: make(chan struct{}), read: "0",
	}
	p.keys.replies += p.server
	p.closing, p.endDoubts = context.WithCancel(context.Background())
	p.enqueues = batch.New(batch.Config[Job, enqueued]{
		Send: p.sendEnqueues, FullFlights: 1, Patience: config.Timeout, Weight: func(j Job) int { return len(j.Request) },
	})
	p.withdrawals = batch.New(batch.Config[withdrawal, string]{Send: p.sendWithdrawals, Patience: config.Timeout})
	p.looks = batch.New(batch.Config[struct{}, status]{Send: p.sendLooks, Patience: config.Timeout, MaxCalls: 1 << 20})
	return p
}

// Admit reports, before its body is read, whether a job would be enqueued now: nil, ErrUnavailable, ErrNoWorker,
// ErrFull, ErrBusy or ErrClosed.
func (p *Producer) Admit(ctx context.Context, patience Patience) error {
	_, err := p.admit(ctx, patience)
	return err
}

// admit also returns how many jobs may be in the queue before this one.
func (p *Producer) admit(ctx context.Context, patience Patience) (most int64, err error) {
	p.mu.Lock()
	closed, known := p.closed, time.Since(p.lookedAt) <= fresh
	most, refusal := p.judge(patience)
	p.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	if known && refusal == nil {
		return most, nil
	}
	if _, err := p.look(ctx); err != nil { // nobody is refused on old knowledge
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge(patience)
}

// judge is called with mu held.
func (p *Producer) judge(patience Patience) (most int64, refusal error) {
	most = p.most(patience)
	switch {
	case p.last.alive == 0:
		return most, ErrNoWorker
	case p.last.length+p.last.parked >= int64(p.config.MaxQueue):
		return most, ErrFull
	case p.last.length >= most:
		return most, ErrBusy
	}
	return most, nil
}

// most is called with mu held.
func (p *Producer) most(patience Patience) int64 {
	if p.config.Guards.NoPace {
		return int64(p.config.MaxQueue)
	}
	return p.pace.most(patience.begin(), p.last.slots, int64(p.config.MaxQueue))
}

// see takes note of the queue as it was before jobs were added; see pace.
func (p *Producer) see(now, finished, length int64, added int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace.see(now, finished, length)
	p.last.length = length + int64(added)
}

// RetryAfter returns when, by what is known, a job may be enqueued that is not now, because of ErrFull or ErrBusy: full seconds.
func (p *Producer) RetryAfter(patience Patience) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.retryAfter(p.last.length, p.most(patience))
}

// look asks Redis for the state of the queue.
func (p *Producer) look(ctx context.Context) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	s, err := p.looks.Do(ctx, struct{}{})
	if err != nil {
		p.blind.Store(time.Now().UnixNano())
		return s, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.blind.Store(0)
	return s, nil
}

func (p *Producer) sendLooks(calls []struct{}) ([]status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	keys := []string{p.keys.workers, p.keys.jobs, p.keys.replies, p.config.Meta, p.keys.servers, p.keys.statistics}
	reply, err := run(ctx, p.config.Client, p.scripts.status, keys, []any{p.server})
	if err != nil {
		return nil, err
	}
	if err := expect(reply, 8, "status"); err != nil {
		return nil, err
	}
	s := status{
		now: number(reply[0]), alive: number(reply[1]), slots: number(reply[2]), length: number(reply[3]), parked: number(reply[4]),
		finished: number(reply[5]), last: text(reply[6]), incarnation: text(reply[7]), redis: p.recentIdentity(ctx),
	}
	p.clock.learn(time.Now(), number(reply[0]))
	p.learn(s)
	all := make([]status, len(calls))
	for i := range all {
		all[i] = s
	}
	return all, nil
}

// learn takes note of the state of the queue. Where Redis has lost everything, jobs and replies are lost with it: who
// waits for a job from before is told so, and replies are read from the beginning of the new stream.
func (p *Producer) learn(s status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.lookedAt = s, time.Now()
	p.pace.see(s.now, s.finished, s.length)
	if s.last != "" && streamid.Less(s.last, p.read) {
		p.read = "0"
	}
	for id, w := range p.waiting {
		if w.incarnation != "" && w.incarnation != s.incarnation && w.since < s.now {
			p.tell(id, outcome{err: fmt.Errorf("%w: Redis lost the queue", ErrUnknown)})
		}
	}
}

// Patience is how long a job, and the caller who waits for its reply, have time.
type Patience struct {
	Wait time.Duration // of the caller

	// Begin is how long the job may wait for a worker, and be repeated. If it is zero, that is Wait.
	Begin time.Duration

	// Accept lets a tracked job without a reply at the end of Wait go on: that is ErrAccepted. Else it is withdrawn.
	Accept bool
}

// begin is how long a job may wait for a worker.
func (p Patience) begin() time.Duration { return max(p.Begin, p.Wait) }

// Do enqueues a job and waits for its reply until the time is up or ctx ends; then it withdraws the job, if no worker has
// begun it and nobody else waits for it. The errors are those of this package. With ErrAccepted the reply's Job is the name for
// Track, which cannot be guessed.
func (p *Producer) Do(ctx context.Context, job Job, patience Patience) (Reply, error) {
	reply, err := p.do(ctx, job, patience)
	reply.Job = cmp.Or(reply.Job, job.ID)
	return reply, err
}

func (p *Producer) do(ctx context.Context, job Job, patience Patience) (Reply, error) {
	most, err := p.admit(ctx, patience)
	switch scoped := job.Tracking.Scope != ""; {
	case err == nil:
	case scoped && (errors.Is(err, ErrFull) || errors.Is(err, ErrBusy)): // it may be known, and need no room
	case scoped && errors.Is(err, ErrNoWorker):
		return p.findKept(ctx, job.Tracking, err) // who was answered before must not hear that nothing was carried out
	default:
		return Reply{}, err
	}
	redisTime, _ := p.clock.now()
	wait := patience.Wait
	job.Deadline, job.most = redisTime+patience.begin().Microseconds(), most
	begin := time.Now()

	waiter, err := p.register(job.ID)
	if err != nil {
		return Reply{}, err
	}
	defer p.forget(job.ID)

	// The answer to the enqueue is not waited for: the reply comes after it, and where there will be no reply
	// sendEnqueues tells the waiter. So this goroutine wakes up once.
	call := p.enqueues.Start(job)
	leaving := p.config.Timeout * 3 / 2 // until the job has left
	timer := time.NewTimer(min(wait, leaving))
	defer timer.Stop()
	for {
		select {
		case o := <-waiter.outcomes:
			return p.open(ctx, o)
		case <-timer.C:
			if left := time.Until(begin.Add(wait)); left > 0 {
				if call.GiveUp() {
					return Reply{}, fmt.Errorf("%w: it takes no jobs", ErrUnavailable)
				}
				timer.Reset(left)
				continue
			}
		case <-ctx.Done():
		}
		// A client that leaves early must not hide the id that withdraws its job, so the answer to the enqueue is waited for.
		taken, err := p.awaitEnqueued(job.ID, call, begin.Add(leaving))
		if patience.Accept && errors.Is(err, ErrUnknown) {
			// It is looked into. Who is answered early has nothing else from which to learn what became of the job.
			lookedInto := time.NewTimer(3 * p.config.Timeout)
			defer lookedInto.Stop()
			select {
			case <-waiter.taken:
				taken, err = p.taken(job.ID), nil
			case o := <-waiter.outcomes:
				return p.open(ctx, o)
			case <-lookedInto.C:
			case <-ctx.Done():
			}
		}
		switch {
		case err != nil:
			return Reply{}, err
		case taken.kept != "":
			return p.fetchKept(ctx, taken.kept)
		}
		return p.giveUp(job, taken, patience.Accept && ctx.Err() == nil, waiter)
	}
}

// open returns what a caller was told. The reply itself is fetched where only its place is known.
func (p *Producer) open(ctx context.Context, o outcome) (Reply, error) {
	if o.kept != "" {
		return p.fetchKept(ctx, o.kept)
	}
	return o.reply, o.err
}

// giveUp withdraws a job, or has it go on. A reply that arrives meanwhile is still taken.
func (p *Producer) giveUp(job Job, taken enqueued, accept bool, waiter *waiter) (Reply, error) {
	id := job.ID
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	w := withdrawal{id: id, at: taken.id}
	if job.Tracking.Keep > 0 {
		w.job = cmp.Or(taken.joined, id)
	}
	if accept {
		w.token = NewID()
	}
	fate, err := p.withdrawals.Do(ctx, w)
	switch {
	case err != nil:
		return Reply{}, fmt.Errorf("%w: it could not be withdrawn: %w", ErrUnknown, err)
	case fate == "withdrawn":
		// A Redis that was replaced may have forgotten that a worker took the job.
		if taker := p.taken(id).redis; taker != "" && p.identity(ctx) != taker {
			return Reply{}, fmt.Errorf("%w: Redis was restarted or replaced", ErrUnknown)
		}
		return Reply{}, ErrWithdrawn
	case fate == "started":
		return Reply{}, ErrRunning
	case fate == "shared":
		return Reply{}, ErrShared
	}
	if token, ok := strings.CutPrefix(fate, "accepted:"); ok {
		return Reply{Job: w.job + "." + token}, ErrAccepted
	}
	// The job is finished, so its reply was stored before: it is on its way to us, or it is lost.
	select {
	case o := <-waiter.outcomes:
		return p.open(ctx, o)
	case <-ctx.Done():
	}
	return Reply{}, fmt.Errorf("%w: it is no longer in the queue", ErrUnknown)
}

// taken returns what is known of Redis's taking a job that somebody waits for. What is not known is "".
func (p *Producer) taken(id string) (e enqueued) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.waiting[id]; ok {
		e.id, e.joined, e.redis = w.at, w.joined, w.redis
	}
	return e
}

// awaitEnqueued waits for what becomes of an enqueue, which is an error where nothing was enqueued, or nobody knows.
func (p *Producer) awaitEnqueued(id string, call batch.Call[Job, enqueued], until time.Time) (enqueued, error) {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	result, err := call.Wait(ctx)
	switch {
	case errors.Is(err, batch.ErrNotSent):
		return enqueued{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case err != nil:
		result = p.taken(id) // it was looked into
	}
	if result.err == nil && result.id == "" && result.kept == "" {
		result.err = fmt.Errorf("%w: Redis did not answer when it was enqueued", ErrUnknown)
	}
	return result, result.err
}

func (p *Producer) register(id string) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	w := &waiter{outcomes: make(chan outcome, 1), taken: make(chan struct{})}
	p.waiting[id] = w
	p.start()
	return w, nil
}

// start begins to read replies, and to say that the server lives. It is called with mu held.
func (p *Producer) start() {
	if p.reading || p.closed {
		return
	}
	p.reading = true
	ctx, cancel := context.WithCancel(context.Background())
	p.wake = cancel
	p.readers.Add(1)
	go p.readReplies(ctx)
}

// Start has the producer say that its server lives, until it is closed. The first job does that, too.
func (p *Producer) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start()
}

// tell hands the outcome of a job to who waits for it, once. The caller holds mu.
func (p *Producer) tell(id string, o outcome) {
	if w, ok := p.waiting[id]; ok {
		delete(p.waiting, id)
		w.outcomes <- o
	}
}

func (p *Producer) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
	p.noteDrained()
}

// noteDrained is called with mu held whenever a waiter has gone or the producer was closed.
func (p *Producer) noteDrained() {
	if !p.closed || len(p.waiting) > 0 {
		return
	}
	select {
	case <-p.drained:
	default:
		close(p.drained)
	}
}

// Waiting returns the number of callers that wait for a reply.
func (p *Producer) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// readReplies hands replies to their waiters until the producer is closed.
func (p *Producer) readReplies(ctx context.Context) {
	defer p.readers.Done()
	// What does not arrive in time is asked for again in smaller pieces: replies may have many megabytes.
	count := int64(readCount)
	for ctx.Err() == nil {
		p.mu.Lock()
		read := p.read
		p.mu.Unlock()
		// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
		bounded, cancel := context.WithTimeout(ctx, readBlock+p.config.Timeout)
		streams, err := p.config.Client.XRead(bounded, &redis.XReadArgs{
			Streams: []string{p.keys.replies, read}, Count: count, Block: readBlock,
		}).Result()
		cancel()
		for _, stream := range streams {
			p.deliver(stream.Messages)
		}
		if err == nil || ctx.Err() != nil {
			count = min(2*count, readCount)
			continue // whoever gets replies has looked lately
		}
		if !errors.Is(err, redis.Nil) {
			count = max(1, count/8)
			select {
			case <-ctx.Done():
			case <-time.After(readBlock / 10):
			}
		}
		if p.Waiting() > 0 || p.unseen() {
			_, _ = p.look(ctx) // notices that Redis has lost everything
		}
	}
}

// unseen reports whether it is time to say that the server lives.
func (p *Producer) unseen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.lookedAt) >= presence
}

func (p *Producer) deliver(messages []redis.XMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, message := range messages {
		p.read = message.ID
		for id, record := range message.Values {
			record := text(record)
			if first, ok := strings.CutPrefix(record, "="); ok { // the same as that of another caller
				record = text(message.Values[first])
			}
			p.tell(id, outcome{reply: parseReply(record)})
		}
	}
}

// Close stops the producer: further jobs are refused with ErrClosed. It waits for those under way until ctx ends.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.noteDrained()
	reading, wake := p.reading, p.wake
	p.mu.Unlock()
	if !reading {
		p.endDoubts()
		return nil
	}
	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	wake()
	p.mu.Lock()
	p.endDoubts()
	p.mu.Unlock()
	p.resolving.Wait()
	// The reader blocks in Redis: an empty record wakes it, and the stream goes with us.
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.Timeout)
	defer cancel()
	_ = p.config.Client.XAdd(timeout, &redis.XAddArgs{Stream: p.keys.replies, Values: []string{"", ""}}).Err()
	p.readers.Wait()
	_ = p.config.Client.Del(timeout, p.keys.replies).Err() // it expires by itself where this fails
	_ = p.config.Client.ZRem(timeout, p.keys.servers, p.server).Err()
	return err
}

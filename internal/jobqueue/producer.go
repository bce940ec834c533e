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

	"github.com/itscales/scales/internal/batch"
)

const (
	// fresh is how old the knowledge about the queue may be on which a job is admitted.
	fresh = 500 * time.Millisecond

	// readBlock is how long a read waits for replies, and readCount how many records it takes at most.
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
	triedAt    time.Time // when a look failed
	pace       pace
	answered   answered
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

// Patience is how long a job, and the caller who waits for its reply, have time.
type Patience struct {
	Wait time.Duration // of the caller

	// Begin is how long the job may wait for a worker, and be repeated. If it is zero, that is Wait.
	Begin time.Duration

	// Accept lets a tracked job without a reply at the end of Wait go on: that is ErrAccepted. Else it is withdrawn.
	Accept bool
}

// Begins is how long a job may wait for a worker.
func (p Patience) Begins() time.Duration { return max(p.Begin, p.Wait) }

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
	job.Deadline, job.most = redisTime+patience.Begins().Microseconds(), most
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
		p.mu.Lock()
		p.answered.note(id, "")
		p.mu.Unlock()
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

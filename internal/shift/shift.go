// Package shift is one run of a worker: it takes jobs from the queue, calls the application, does what the answers owe to
// the cache, and releases the replies.
//
// The states of a job, and who moves it:
//
//	queued --fetch--> delivered --handler returns--> decided --renders committed--> released
//	   |                 |   \                          |
//	   | deadline, or    |    \ owes nothing: finish     | its worker dies: another takes it over and goes on here
//	   v client left     v     `-----------------------> released
//	withdrawn            its worker dies: run again if it may be repeated and its deadline has not passed, else buried
package shift

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/step"
)

// maxInHand bounds how many jobs a worker owns at once: those in their handlers, and those whose handlers have returned
// and which wait for renders.
const maxInHand = 4096

// Config is what a shift works with. Every field is required.
type Config struct {
	Consumer *jobqueue.Consumer
	Renderer *render.Renderer
	Rules    *step.Rules
	App      http.Handler
	Server   *http.Server // what handlers find under http.ServerContextKey

	// Writer gives the context of a job, which has an id, its writer, whose changes the buffer collects.
	Writer func(ctx context.Context, job string) (context.Context, *step.Buffer)

	// Exists reports whether a key has an entry or a tombstone.
	Exists func(key string) bool

	// Pend has something rendered in the background that a job has named. Only an outage is an error.
	Pend func(ctx context.Context, job string, what step.Pending) error

	Concurrency  int           // handlers at once
	JobTimeout   time.Duration // of a handler
	DrainTimeout time.Duration // of the jobs under way when Run is told to end
	MaxReply     int64         // largest body of a response
	RepeatKeyed  bool          // jobs with an idempotency key are repeated, whatever their method
	Logger       *slog.Logger
	Outage       *outage.Log

	Guards Guards
}

// Guards switches single safeguards off. Only tests do that, to see the violation that the safeguard prevents.
type Guards struct {
	// EarlyLook looks at a job that is owned before it is taken in hand, not after.
	EarlyLook bool

	// NoLook runs a job without a look whether it was taken over while it waited for a slot.
	NoLook bool

	// NoHandOver keeps jobs that were never begun when the shift ends.
	NoHandOver bool

	// HandOverBegun gives away what has begun, too.
	HandOverBegun bool

	// NoLongDoubt looks for jobs of a failed fetch once, not for as long as the fetch may take them.
	NoLongDoubt bool
}

type shift struct {
	Config

	slots  chan struct{} // one for each handler that runs
	doubts chan struct{} // tells that jobs may be ours that are not in hand
	asked  chan func()   // has a heartbeat sent now; it is called after the next one that has arrived
	inHand sync.WaitGroup
	stop   context.CancelFunc
	ended  context.Context // ends when the shift gives up what is still under way
	leaves chan struct{}   // closed when the drain begins

	mu       sync.Mutex
	jobs     map[string]hand // the jobs in hand, by stream id
	started  map[string]bool // those whose handlers have begun, and which are not settled: they are no other worker's to begin
	draining bool            // no further job is taken in hand
	room     chan struct{}   // told when a job has ended
}

// Run works until ctx ends and then finishes the jobs under way, as far as DrainTimeout allows.
func Run(ctx context.Context, config Config) {
	s := &shift{
		Config: config, slots: make(chan struct{}, config.Concurrency), doubts: make(chan struct{}, 1), asked: make(chan func()),
		jobs: make(map[string]hand), started: make(map[string]bool), room: make(chan struct{}, 1), leaves: make(chan struct{}),
	}
	s.ended, s.stop = context.WithCancel(context.Background())
	defer s.stop()
	var beating, tending sync.WaitGroup
	tending.Go(func() { s.Renderer.Tend(ctx, s.ended) })
	beating.Go(func() { s.beat(s.ended) })
	beating.Go(func() { s.lookInto(s.ended) })

	s.take(ctx)
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.Consumer.Drain()
	go func() { // the others are told now
		select {
		case s.asked <- func() {}:
		case <-s.ended.Done():
		}
	}()
	close(s.leaves)
	drained := make(chan struct{})
	go func() {
		s.inHand.Wait()
		tending.Wait()
		close(drained)
	}()
	timer := time.NewTimer(s.DrainTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		s.Logger.Error("scales: jobs were under way at the end of the drain; other workers finish them")
	}
	s.stop()
	beating.Wait()
	tending.Wait()
	s.leave(context.WithoutCancel(ctx))
}

// leave gives away what the worker owns and has not begun, and removes it from those that are known, unless it owns what it has
// begun. While it does the one another worker may give it something, so it looks again.
func (s *shift) leave(ctx context.Context) {
	for range 3 {
		s.handOverRest(ctx)
		left, err := s.Consumer.Leave(ctx)
		if err != nil {
			s.Logger.Warn("scales: the worker could not say that it leaves", "error", err)
		}
		if err != nil || left {
			return
		}
	}
}

// pause is the time between two tries while Redis is away.
const pause = 100 * time.Millisecond

// beat keeps the leases of the worker's jobs. Until the drain begins it takes over those of workers that have died. While
// Redis is away it tries more often, so that servers find a worker alive soon after.
//
// A fetch that was given up may be carried out all the same when Redis is back, and get jobs for as long as a fetch takes:
// their records go to a connection that is closed. So after a fetch has failed the worker is in doubt for that time.
func (s *shift) beat(ctx context.Context) {
	var (
		missing  int
		asked    []func()
		doubtful time.Time // until when there is doubt with every beat
	)
	for next := s.Consumer.BeatInterval(); ; {
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case then := <-s.asked:
			timer.Stop()
			asked = append(asked, then)
		case <-ctx.Done():
			timer.Stop()
			return
		}
		beat := s.Consumer.BeatAndTakeOver
		if s.isDraining() {
			beat = s.Consumer.Beat
		}
		owned, err := beat(ctx)
		s.Outage.Note(err)
		if err != nil {
			next = min(s.Consumer.BeatInterval(), pause)
			continue
		}
		if len(asked) > 0 {
			doubtful = time.Now().Add(jobqueue.FetchBlock + pause)
			for _, then := range asked {
				then()
			}
			asked = nil
		}
		// A fetch whose answer was lost, and that go-redis has sent again, shows in the count alone. What is on its way
		// to us at the moment shows there too, so it has to show twice.
		if owned > s.count() {
			missing++
		} else {
			missing = 0
		}
		next = s.Consumer.BeatInterval()
		doubt := s.Consumer.Doubt() || missing >= 2
		if time.Now().Before(doubtful) && !s.Guards.NoLongDoubt {
			doubt, next = true, min(next, pause)
		}
		if doubt {
			missing = 0
			select {
			case s.doubts <- struct{}{}:
			default: // it is looked into already
			}
		}
	}
}

// awaitRedis returns when a heartbeat has arrived that was sent from now on, or ctx ends. Until then no fetch is sent: it
// would be given up, and take jobs when Redis is back.
func (s *shift) awaitRedis(ctx context.Context) {
	beaten := make(chan struct{})
	select {
	case s.asked <- func() { close(beaten) }:
	case <-ctx.Done():
		return
	}
	select {
	case <-beaten:
	case <-ctx.Done():
	}
}

// lookInto takes jobs in hand whenever the beat is in doubt. It is not done by the beat, which must not wait.
func (s *shift) lookInto(ctx context.Context) {
	for {
		select {
		case <-s.doubts:
			s.takeMine(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// takeMine takes the jobs that the worker owns without having them in hand.
//
// A job is taken in hand before it is looked at, and is worked on as it is then:
//
//	takeMine lists jobs: J is ours, its handler is running
//	J ends: it is acknowledged, and no longer in hand
//	takeMine takes J in hand, loads it, and finds that nobody owns it: without the look it would run J again
func (s *shift) takeMine(ctx context.Context) {
	owned, err := s.Consumer.Owned(ctx)
	if err != nil {
		s.Consumer.SetDoubt()
		s.Outage.Note(err)
	}
	for id, deliveries := range owned {
		s.takeOne(ctx, id, deliveries)
	}
}

func (s *shift) takeOne(ctx context.Context, id string, deliveries int64) {
	look := func() *jobqueue.Delivery {
		loaded, err := s.Consumer.Load(ctx, id)
		if err != nil {
			s.Consumer.SetDoubt()
			return nil
		}
		return loaded[0]
	}
	var d *jobqueue.Delivery
	if s.Guards.EarlyLook {
		d = look()
	}
	switch s.begin(id, s.Consumer.ID(), deliveries) {
	case begun:
		if d == nil {
			d = look()
		}
		if d == nil {
			s.end(id)
			return
		}
		go s.serve(d, false)
	case heldAsAnother:
		// It was taken from us and has come back, and the handler of the first time still runs.
		s.Consumer.SetDoubt()
	case refused:
		s.handOver(ctx, map[string]int64{id: deliveries})
	}
}

// handOver gives jobs that were never begun to another worker, and reports whether it has them all.
func (s *shift) handOver(ctx context.Context, jobs map[string]int64) bool {
	if s.Guards.NoHandOver {
		return false
	}
	n, err := s.Consumer.HandOver(ctx, jobs)
	if err != nil {
		s.Logger.Warn("scales: jobs could not be handed over; other workers take them over after the lease", "error", err)
	}
	return err == nil && n == len(jobs)
}

// handOverRest gives away what the worker owns and has not begun: the jobs of a fetch whose answer was lost, which show only after a
// while.
func (s *shift) handOverRest(ctx context.Context) {
	owned, err := s.Consumer.Owned(ctx)
	if err != nil {
		return // Leave says so
	}
	s.mu.Lock()
	for id := range owned {
		if _, inHand := s.jobs[id]; (inHand || s.started[id]) && !s.Guards.HandOverBegun {
			delete(owned, id)
		}
	}
	s.mu.Unlock()
	s.handOver(ctx, owned)
}

// take fetches jobs for free slots until ctx ends.
func (s *shift) take(ctx context.Context) {
	for joined := false; ctx.Err() == nil; {
		if !joined {
			err := s.Consumer.Join(ctx)
			joined = err == nil
			if err != nil {
				s.Outage.Note(err)
				wait(ctx, pause)
				continue
			}
		}
		free := s.reserve(ctx)
		if free == 0 {
			return
		}
		fetched, err := s.Consumer.Fetch(ctx, free)
		for range free - len(fetched) {
			<-s.slots
		}
		for _, d := range fetched {
			if s.begin(d.StreamID, d.Consumer, d.Deliveries) == begun {
				go s.serve(d, true)
			} else {
				<-s.slots
			}
		}
		if err == nil || ctx.Err() == nil { // a fetch that was told to end says nothing of Redis
			s.Outage.Note(err)
		}
		if err != nil {
			wait(ctx, pause)
			s.awaitRedis(ctx)
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
	for s.size() >= maxInHand {
		select {
		case <-s.room:
		case <-ctx.Done():
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

func (s *shift) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs)
}

// count returns how many jobs of the consumer's present id are in hand.
func (s *shift) count() (n int) {
	consumer := s.Consumer.ID()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.jobs {
		if h.consumer == consumer {
			n++
		}
	}
	return n
}

func (s *shift) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// hand is under which name, and for the how-manieth time, a job in hand was delivered.
type hand struct {
	consumer   string
	deliveries int64
}

type beginning int

const (
	begun         beginning = iota
	inHand                  // the same delivery is in hand
	heldAsAnother           // another delivery of the job is in hand
	refused                 // the shift is draining, and has not begun the job
)

// begin takes a job in hand.
func (s *shift) begin(id, consumer string, deliveries int64) beginning {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.jobs[id]
	switch {
	case s.draining && s.Guards.HandOverBegun:
		return refused
	case ok && h == hand{consumer, deliveries}:
		return inHand
	case ok:
		return heldAsAnother
	case s.started[id]: // it was begun and given up
		return inHand
	case s.draining:
		return refused
	}
	s.jobs[id] = hand{consumer, deliveries}
	s.inHand.Add(1)
	return begun
}

// start notes that a handler begins.
func (s *shift) start(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[id] = true
}

func (s *shift) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, id)
	if s.ended.Err() == nil { // else nobody knows whether it is settled
		delete(s.started, id)
	}
	s.inHand.Done()
	select {
	case s.room <- struct{}{}:
	default:
	}
}

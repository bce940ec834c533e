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
//
// A worker that ends hands over what was delivered to it and whose handler has not begun: it is delivered to another one.
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
	Reading      *outage.Log // of calls to Redis
	Writing      *outage.Log

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

// A shift is one run of a worker.
type shift struct {
	Config

	slots  chan struct{} // one for each handler that runs
	doubts chan struct{} // tells that jobs may be ours that are not in hand
	asked  chan func()   // each has a heartbeat sent at once, and is called when one has arrived
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
	s.drain(&tending)
	s.stop()
	beating.Wait()
	tending.Wait()
	s.leave(context.WithoutCancel(ctx))
}

// pause is the time between two tries while Redis is away, and between two heartbeats while the worker is in doubt.
const pause = 100 * time.Millisecond

// take fetches jobs for free slots until ctx ends.
func (s *shift) take(ctx context.Context) {
	for joined := false; ctx.Err() == nil; {
		if !joined {
			err := s.Consumer.Join(ctx)
			joined = err == nil
			if err != nil {
				s.Writing.Note(ctx, err)
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
			if s.takeInHand(d.StreamID, d.Consumer, d.Deliveries) == taken {
				go s.serve(d, true)
			} else {
				<-s.slots
			}
		}
		s.Reading.Note(ctx, err)
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

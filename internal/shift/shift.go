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

	// Writer gives the context of a job its writer, whose changes the buffer collects.
	Writer func(context.Context) (context.Context, *step.Buffer)

	// Exists reports whether a key has an entry or a tombstone.
	Exists func(key string) bool

	// Pend makes keys pending. Only an outage is an error.
	Pend func(ctx context.Context, keys []string) error

	Concurrency  int           // handlers at once
	JobTimeout   time.Duration // of a handler
	DrainTimeout time.Duration // of the jobs under way when Run is told to end
	MaxReply     int64         // largest body of a response
	Logger       *slog.Logger
	Outage       *outage.Log
}

type shift struct {
	Config

	slots  chan struct{} // one for each handler that runs
	inHand sync.WaitGroup
	stop   context.CancelFunc
	ended  context.Context // ends when the shift gives up what is still under way

	mu   sync.Mutex
	jobs map[string]struct{} // stream ids of the jobs in hand
	room chan struct{}       // told when a job has ended
}

// Run works until ctx ends and then finishes the jobs under way, as far as DrainTimeout allows.
func Run(ctx context.Context, config Config) {
	s := &shift{
		Config: config, slots: make(chan struct{}, config.Concurrency), jobs: make(map[string]struct{}), room: make(chan struct{}, 1),
	}
	s.ended, s.stop = context.WithCancel(context.Background())
	defer s.stop()
	var beating, tending sync.WaitGroup
	tending.Go(func() { s.Renderer.Tend(ctx, s.ended) })
	beating.Go(func() { s.beat(s.ended) })

	s.take(ctx)
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
	if err := s.Consumer.Leave(context.WithoutCancel(ctx)); err != nil {
		s.Logger.Warn("scales: the worker could not say that it leaves", "error", err)
	}
}

// beat keeps the leases of the worker's jobs, and takes over those of workers that have died.
func (s *shift) beat(ctx context.Context) {
	ticker := time.NewTicker(s.Consumer.BeatInterval())
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		took, err := s.Consumer.Beat(ctx)
		s.Outage.Note(err)
		if err != nil {
			continue
		}
		if took || s.Consumer.Doubt() {
			s.takeMine(ctx)
		}
	}
}

// takeMine takes the jobs that the worker owns without having them in hand: taken over from others, or delivered by a
// fetch whose answer was lost.
func (s *shift) takeMine(ctx context.Context) {
	mine, err := s.Consumer.Mine(ctx)
	if err != nil {
		s.Consumer.SetDoubt()
		s.Logger.Warn("scales: the jobs of this worker could not be listed", "error", err)
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
			if s.begin(d) {
				go s.serve(d, true)
			} else {
				<-s.slots
			}
		}
		s.Outage.Note(err)
		if err != nil {
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
	select {
	case s.room <- struct{}{}:
	default:
	}
}

package shift

import (
	"context"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
)

// beat keeps the leases of the worker's jobs. Until the drain begins it takes over those of workers that have died. In the drain it goes
// on, and says that the worker is leaving: nobody hands it anything, and servers count on a successor. While Redis is away it tries
// more often, so that servers find a worker alive soon after.
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
		s.Writing.Note(ctx, err)
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
		s.Reading.Note(ctx, err)
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
	switch s.takeInHand(id, s.Consumer.ID(), deliveries) {
	case taken:
		if d == nil {
			d = look()
		}
		if d == nil {
			s.end(id)
			return
		}
		go s.serve(d, false)
	case takenBefore:
		// It was taken from us and has come back, and the handler of the first time still runs.
		s.Consumer.SetDoubt()
	case refused:
		s.handOver(ctx, map[string]int64{id: deliveries})
	}
}

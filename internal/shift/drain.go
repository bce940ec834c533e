package shift

import (
	"context"
	"sync"
	"time"
)

// drain takes no further job in hand, and waits until the jobs under way have ended, and the renders that are tended, or DrainTimeout is
// over.
func (s *shift) drain(tending *sync.WaitGroup) {
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
}

// leave gives away what the worker owns and has not begun, and removes it from those that are known, unless it owns what it has
// begun. Another worker may give it something meanwhile, if no heartbeat has arrived that says that this one is leaving; so it looks again.
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

// handOver gives jobs that were never begun to another worker, and reports whether that one has them all.
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

func (s *shift) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

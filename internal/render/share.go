package render

import (
	"sync"

	"github.com/itscales/scales/internal/partition"
)

// share lets all callers in a process that need the same key wait for the same render.
//
// Of each key there are at most two flights: the current one, and the next. A flight can be joined until its claim is
// sent, because its ticket is taken after that. Who comes later joins the next flight, which begins when the current one
// has ended:
//
//	          join: lead                   seal                    land
//	(nothing) ----------> current, open ----------> current, sealed ----> (nothing), or the next becomes current
//	                       join: wait                join: next, open
type share struct {
	mu      sync.Mutex
	flights map[string]*pair
}

type pair struct {
	current, next *flight
}

type flight struct {
	key     string
	limited bool
	at      int             // where it waits for a slot: behind if only members of groups are needed so. Guarded by share.mu, constant once sealed
	cause   partition.Cause // of who needed it first
	sealed  bool            // guarded by share.mu
	done    chan struct{}   // closed when result is set
	result  Result
}

// join returns the flight that shows what the caller needs shown, and what the caller has to do for it: with lead it
// claims and renders the key itself; with follow it lets somebody do so when current has landed; otherwise it waits.
func (s *share) join(need Need, job string) (f *flight, lead bool, follow *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.flights[need.Key]
	switch {
	case p == nil:
		f = newFlight(need, job)
		s.flights[need.Key] = &pair{current: f}
		return f, true, nil
	case !p.current.sealed:
		f = p.current
	case p.next == nil:
		p.next = newFlight(need, job)
		return p.next, false, p.current
	default:
		f = p.next
	}
	if !f.sealed && !need.behind {
		f.at = inFront
	}
	return f, false, nil
}

func newFlight(need Need, job string) *flight {
	f := &flight{key: need.Key, limited: need.Limited, cause: partition.Cause{Job: job, Why: need.Why}, done: make(chan struct{})}
	if need.behind {
		f.at = behind
	}
	return f
}

// seal ends the time in which a flight can be joined. It comes before the claim is sent.
func (s *share) seal(flights ...*flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range flights {
		f.sealed = true
	}
}

// land gives everybody who waits for a flight its result.
func (s *share) land(f *flight, result Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.flights[f.key]
	if p.next == nil {
		delete(s.flights, f.key)
	} else {
		p.current, p.next = p.next, nil
	}
	f.result = result
	close(f.done)
}

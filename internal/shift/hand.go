package shift

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

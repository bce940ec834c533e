package shift

// hand is under which name, and for the how-manieth time, a job in hand was delivered.
type hand struct {
	consumer   string
	deliveries int64
}

// What comes of taking a job in hand.
type taking int

const (
	taken       taking = iota
	known              // the same delivery is in hand, or was
	takenBefore        // another delivery of the job is in hand
	refused            // the shift is draining, and the job's handler has not begun
)

// takeInHand takes a job in hand.
func (s *shift) takeInHand(id, consumer string, deliveries int64) taking {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.jobs[id]
	switch {
	case s.draining && s.Guards.HandOverBegun:
		return refused
	case ok && h == hand{consumer, deliveries}:
		return known
	case ok:
		return takenBefore
	case s.started[id]: // its handler has begun, and it was given up
		return known
	case s.draining:
		return refused
	}
	s.jobs[id] = hand{consumer, deliveries}
	s.inHand.Add(1)
	return taken
}

// start notes that a handler begins.
func (s *shift) start(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[id] = true
}

// end has a job in hand no more.
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

// size is how many jobs are in hand.
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

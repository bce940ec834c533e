package render

import "sync"

// turnsInFront is after how many slots in a row that went past somebody behind one goes to who is behind.
const turnsInFront = 7

// slots bound how many renders run at once. Who waits for a slot is in front, with the keys that a request names, or
// behind, with all others: members of groups, and what nobody waits for. A slot that becomes free goes to who has waited
// longest in front, so that a write does not stand in line behind a group that has many members. One in eight goes to who
// is behind, so that nobody waits forever.
type slots struct {
	all     int
	mu      sync.Mutex
	free    int
	passed  int // slots that went to somebody in front, in a row, while somebody was behind
	waiting [2][]*turn
}

// A turn is somebody who waits for a slot, or who has it.
type turn struct {
	granted chan struct{} // closed when the slot is there
	left    bool          // guarded by the mutex of the slots
}

// Where somebody waits.
const (
	inFront = iota
	behind
)

func newSlots(n int) *slots { return &slots{all: n, free: n} }

// idle returns how many slots are free.
func (s *slots) idle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free
}

// take begins to wait for a slot. The slot is the caller's when granted is closed, until give is called. A caller that
// waits no longer calls leave.
func (s *slots) take(at int) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &turn{granted: make(chan struct{})}
	if s.free > 0 {
		s.free--
		close(t.granted)
		return t
	}
	s.waiting[at] = append(s.waiting[at], t)
	return t
}

// spare takes a slot if more than half of them are free: then nobody waits for one, and others find one, whatever becomes of
// this.
func (s *slots) spare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if 2*s.free <= s.all {
		return false
	}
	s.free--
	return true
}

// leave gives up a turn, which may have been granted just now.
func (s *slots) leave(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-t.granted:
		s.pass()
	default:
		t.left = true
	}
}

// give returns a slot.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// pass hands a slot on. The caller holds mu.
func (s *slots) pass() {
	front, back := s.first(inFront), s.first(behind)
	next := inFront
	switch {
	case front == nil && back == nil:
		s.free++
		return
	case back == nil:
		s.passed = 0
	case front == nil || s.passed >= turnsInFront:
		next, s.passed = behind, 0
	default:
		s.passed++
	}
	close(s.waiting[next][0].granted)
	s.waiting[next] = s.waiting[next][1:]
}

// first returns who is first in line, and forgets those before who have left. The caller holds mu.
func (s *slots) first(at int) *turn {
	for len(s.waiting[at]) > 0 && s.waiting[at][0].left {
		s.waiting[at] = s.waiting[at][1:]
	}
	if len(s.waiting[at]) == 0 {
		return nil
	}
	return s.waiting[at][0]
}

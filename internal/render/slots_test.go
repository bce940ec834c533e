package render

import (
	"slices"
	"testing"
)

// order gives a slot back until nobody waits, and returns who got it, in order.
func order(s *slots, turns map[string]*turn) (names []string) {
	for range len(turns) {
		s.give()
		for name, t := range turns {
			select {
			case <-t.granted:
				names = append(names, name)
				delete(turns, name)
			default:
			}
		}
	}
	return names
}

func TestWhoIsInFrontGetsASlotBeforeWhoIsBehind(t *testing.T) {
	s := newSlots(1)
	s.take(behind)
	turns := make(map[string]*turn)
	for _, name := range []string{"b1", "b2"} {
		turns[name] = s.take(behind)
	}
	for _, name := range []string{"f1", "f2"} {
		turns[name] = s.take(inFront)
	}
	if got, want := order(s, turns), []string{"f1", "f2", "b1", "b2"}; !slices.Equal(got, want) {
		t.Errorf("slots went to %v, want %v", got, want)
	}
	if s.give(); s.idle() != 1 {
		t.Errorf("%d slots are free, want 1", s.idle())
	}
}

func TestWhoIsBehindGetsOneSlotInEight(t *testing.T) {
	s := newSlots(1)
	s.take(inFront)
	b := s.take(behind)
	for range turnsInFront {
		s.take(inFront)
		s.give()
	}
	select {
	case <-b.granted:
		t.Fatal("a slot went to somebody behind too early")
	default:
	}
	s.take(inFront)
	s.give()
	select {
	case <-b.granted:
	default:
		t.Error("nobody behind has got a slot")
	}
}

func TestWhoLeavesGetsNoSlotAndKeepsNone(t *testing.T) {
	s := newSlots(1)
	s.take(inFront)
	gone, granted, last := s.take(inFront), s.take(inFront), s.take(behind)
	s.leave(gone)
	s.give() // to granted
	s.leave(granted)
	select {
	case <-last.granted:
	default:
		t.Fatal("the slot of who has left was not passed on")
	}
	if s.give(); s.idle() != 1 {
		t.Errorf("%d slots are free, want 1", s.idle())
	}
}

package jobqueue

import (
	"testing"
	"time"
)

// A view is a queue as a producer sees it, every tenth of a second.
type view struct {
	p        pace
	now      int64
	finished int64
	decided  int64 // of the queue
}

// pass lets time go by in which some jobs are finished per second, and the queue has a length.
func (v *view) pass(seconds float64, perSecond, length int64) {
	for range int(seconds * 10) {
		v.now += 100_000
		v.finished += perSecond / 10
		v.p.see(v.now, v.finished, length, length-v.decided)
	}
}

const longest, slots = 10_000, 8

func (v *view) most(patience time.Duration) int64 { return v.p.most(patience, slots, longest) }

// retries are the shortest and the longest of many answers.
func (v *view) retries(patience time.Duration, length, most int64) (shortest, longest time.Duration) {
	shortest = time.Hour
	for range 1000 {
		wait := v.p.retryAfter(patience, slots, length, most)
		shortest, longest = min(shortest, wait), max(longest, wait)
	}
	return shortest, longest
}

func TestAQueueIsAsLongAsWorkersCanBeInTime(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 100, 900)
	// In eight seconds, four fifths of ten, 100 a second are 800, and there are those for which there are slots.
	if got := v.most(10 * time.Second); got < 807 || got > 808 {
		t.Errorf("%d jobs may be before one, not 808", got)
	}
	if got := v.most(2000 * time.Second); got != longest {
		t.Errorf("%d jobs may be before one that can wait for long, not %d", got, longest)
	}
	if got := v.most(10 * time.Millisecond); got != slots {
		t.Errorf("%d jobs may be before one that cannot wait, not as many as there are slots", got)
	}
	if shortest, longest := v.retries(10*time.Second, 1006, 808); shortest != 2*time.Second || longest != 4*time.Second {
		t.Errorf("room for one of 199 jobs too many after %v to %v", shortest, longest)
	}
	if shortest, longest := v.retries(10*time.Second, 808, 808); shortest != time.Second || longest != 2*time.Second {
		t.Errorf("room for one job after %v to %v", shortest, longest)
	}
}

func TestNobodyIsRefusedWithoutEvidence(t *testing.T) {
	for name, pass := range map[string]func(v *view){
		"nothing was seen":                    func(*view) {},
		"it was not seen for long":            func(v *view) { v.pass(2, 100, 900) },
		"a server begins while workers stand": func(v *view) { v.pass(7, 0, 900) },
		"there was nothing to do":             func(v *view) { v.pass(4, 1, 0) },
		"slots were free":                     func(v *view) { v.pass(4, 1, slots/2) },
		"slots were free for a moment":        func(v *view) { v.pass(4, 100, 900); v.pass(0.1, 100, 2); v.pass(2, 100, 900) },
		"jobs do not wait for long":           func(v *view) { v.pass(4, 100, 200) },
		"Redis was not seen for long":         func(v *view) { v.pass(4, 100, 900); v.now += 4_000_000; v.pass(2, 100, 900) },
		"Redis is another one":                func(v *view) { v.pass(4, 100, 900); v.finished = 0; v.pass(2, 100, 900) },
		"Redis's clock was set back for long": func(v *view) { v.now = 1e9; v.pass(4, 100, 900); v.now = 1; v.pass(2, 100, 900) },
	} {
		v := &view{now: 1}
		pass(v)
		if got := v.most(10 * time.Second); got != longest {
			t.Errorf("where %s, %d jobs may be before one, not %d", name, got, longest)
		}
	}
}

// Jobs that wait for the same render are finished together, and hold no slot meanwhile.
func TestJobsThatAreFinishedInBurstsAreNotTooMany(t *testing.T) {
	const perSecond, patience = 200, 15 * time.Second
	v := &view{now: 1}
	var shown, length int64 // by the render under way
	for v.now < 60_000_000 {
		v.now += 100_000
		length += perSecond / 10
		if v.now%2_500_000 < 100_000 { // a render is committed: those who came before it began are answered
			v.finished += shown
			length -= shown
			shown = length
		}
		v.p.see(v.now, v.finished, length, 1)
		if most := v.most(patience); most <= length {
			t.Fatalf("after %v %d jobs may be before one, and %d are, which are finished within 5 s", time.Duration(v.now)*time.Microsecond, most, length)
		}
	}
}

// Where renders are what there is too much of, slots are free.
func TestJobsThatWaitForRendersAreTooMany(t *testing.T) {
	v := &view{now: 1, decided: 3000}
	v.pass(10, 100, 3000)
	if got := v.most(15 * time.Second); got < 1207 || got > 1208 {
		t.Errorf("%d jobs may be before one, not 1208", got)
	}
}

// Workers that stand still for a while, as for a database that fails over, go on.
func TestAStallIsNoReasonToRefuse(t *testing.T) {
	const patience = 15 * time.Second
	v := &view{now: 1}
	v.pass(30, 300, 20)
	for length := int64(20); length < 300*4; length += 30 {
		v.pass(0.1, 0, length)
		if most := v.most(patience); most <= length {
			t.Fatalf("%d jobs may be before one, and %d are, which are at most four seconds of work", most, length)
		}
	}
}

func TestSlowHandlersLetInWhatTheyCanDo(t *testing.T) {
	v := &view{now: 1}
	v.pass(30, 10, 300) // of eight slots with handlers of 0.8 s
	if got := v.most(15 * time.Second); got < 127 || got > 128 {
		t.Errorf("%d jobs may be before one, not 128", got)
	}
}

func TestWhereNothingIsFinishedTheSlotsAreStillTried(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 0, 500)
	if got := v.most(3 * time.Second); got != slots {
		t.Errorf("%d jobs may be before one, not %d", got, slots)
	}
	if shortest, longest := v.retries(3*time.Second, 500, slots); shortest != unknownRetry || longest != 2*unknownRetry {
		t.Errorf("another try after %v to %v", shortest, longest)
	}
	v.pass(4, 100, 500)
	if got := v.most(3 * time.Second); got < 247 || got > 248 {
		t.Errorf("%d jobs may be before one once workers go on, not 248", got)
	}
}

func TestAnAnswerThatComesLateChangesNothing(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 100, 900)
	before := v.most(10 * time.Second)
	v.p.see(v.now-50_000, v.finished-5, 0, 0)
	if got := v.most(10 * time.Second); got != before {
		t.Errorf("%d jobs may be before one, not %d", got, before)
	}
}

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
}

// pass lets time go by in which some jobs are finished per second, and the queue has a length.
func (v *view) pass(seconds float64, perSecond, length int64) {
	for range int(seconds * 10) {
		v.now += 100_000
		v.finished += perSecond / 10
		v.p.see(v.now, v.finished, length)
	}
}

const longest, slots = 10_000, 8

func (v *view) most(patience time.Duration) int64 { return v.p.most(patience, slots, longest) }

func TestAQueueIsAsLongAsWorkersCanBeInTime(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 100, 900)
	// In eight seconds, four fifths of ten, 100 a second are 800; with the eight that run it is 108 a second.
	if got := v.most(10 * time.Second); got != 864 {
		t.Errorf("%d jobs may be before one, not 864", got)
	}
	if got := v.most(2000 * time.Second); got != longest {
		t.Errorf("%d jobs may be before one that can wait for long, not %d", got, longest)
	}
	if got := v.most(10 * time.Millisecond); got != slots {
		t.Errorf("%d jobs may be before one that cannot wait, not as many as there are slots", got)
	}
	if got := v.p.retryAfter(1062, 864); got != 2*time.Second {
		t.Errorf("room for one of 200 jobs too many after %v", got)
	}
	if got := v.p.retryAfter(864, 864); got != time.Second {
		t.Errorf("room for one job after %v", got)
	}
}

func TestNobodyIsRefusedWithoutEvidence(t *testing.T) {
	for name, pass := range map[string]func(v *view){
		"nothing was seen":                    func(*view) {},
		"it was not seen for long":            func(v *view) { v.pass(0.5, 100, 900) },
		"there was nothing to do":             func(v *view) { v.pass(4, 1, 0) },
		"slots were free":                     func(v *view) { v.pass(4, 1, slots/2) },
		"slots were free for a moment":        func(v *view) { v.pass(4, 100, 900); v.pass(0.1, 100, 2); v.pass(0.5, 100, 900) },
		"jobs do not wait for long":           func(v *view) { v.pass(4, 100, 200) },
		"Redis was not seen for long":         func(v *view) { v.pass(4, 100, 900); v.now += 4_000_000; v.pass(0.5, 100, 900) },
		"Redis is another one":                func(v *view) { v.pass(4, 100, 900); v.finished = 0; v.pass(0.5, 100, 900) },
		"Redis's clock was set back for long": func(v *view) { v.now = 1e9; v.pass(4, 100, 900); v.now = 1; v.pass(0.5, 100, 900) },
	} {
		v := &view{now: 1}
		pass(v)
		if got := v.most(10 * time.Second); got != longest {
			t.Errorf("where %s, %d jobs may be before one, not %d", name, got, longest)
		}
	}
}

func TestWhereNothingIsFinishedTheSlotsAreStillTried(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 0, 500)
	if got := v.most(time.Second); got != slots {
		t.Errorf("%d jobs may be before one, not %d", got, slots)
	}
	if got := v.p.retryAfter(500, slots); got != longestRetry {
		t.Errorf("another try after %v, not %v", got, longestRetry)
	}
	v.pass(4, 100, 500)
	if got := v.most(3 * time.Second); got != 259 {
		t.Errorf("%d jobs may be before one once workers go on, not 259", got)
	}
}

func TestAnAnswerThatComesLateChangesNothing(t *testing.T) {
	v := &view{now: 1}
	v.pass(4, 100, 900)
	before := v.most(10 * time.Second)
	v.p.see(v.now-50_000, v.finished-5, 0)
	if got := v.most(10 * time.Second); got != before {
		t.Errorf("%d jobs may be before one, not %d", got, before)
	}
}

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/audit"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A world is a cache, an application and a queue, as one comparison of a key asks for them. What is there at the beginning
// stays, but for what happens at moments of the comparison: "2 before" is before the cache is asked in the second look,
// "2 ask" before the application is, "2 after" before the cache is asked again, and "2 end" when that has answered; then "2 newest"
// and "2 next" before it is asked which jobs there are, before and after the pause.
type world struct {
	status  partition.Status
	answer  partition.Operation
	result  render.Result
	jobs    []string // in order
	happens map[string]func(w *world)
	broken  map[string]error // what cannot be asked, at moments

	patience, settling time.Duration
	end                context.CancelCauseFunc

	looks  int
	after  bool // the cache was asked once in this look
	paused bool // it was asked for jobs once after this look
}

// entry returns a stored entry.
func entry(e message.Entry) string {
	if e.Status == 0 && !e.Gone {
		e.Status = http.StatusOK
	}
	value, err := message.AppendEntry(nil, &e)
	if err != nil {
		panic(err)
	}
	return string(value)
}

func at(microseconds int) string { return fmt.Sprintf("%020d", microseconds) }

// stale returns a world in which the cache has version 1, and the application answers version 2.
func stale() *world {
	return &world{
		status: partition.Status{
			Found: partition.Found{Value: entry(message.Entry{Ticket: at(5), Body: []byte("version 1")}), Exists: true}, Indexed: true, Clock: 7,
		},
		answer: partition.Operation{Kind: partition.OpStore, Value: entry(message.Entry{Ticket: at(0), Body: []byte("version 2")})},
		result: render.Result{State: render.Stored}, patience: 5 * time.Second,
		happens: make(map[string]func(*world)), broken: make(map[string]error),
	}
}

// render has the cache show what the application answers.
func (w *world) render(ticket int) {
	e, err := message.ParseEntry(w.answer.Value)
	if err != nil {
		panic(err)
	}
	e.Ticket = at(ticket)
	w.status.Value, w.status.Groups, w.status.Listed = entry(*e), w.answer.Groups, len(w.answer.Groups)
}

func (w *world) moment(name string) error {
	name = fmt.Sprint(w.looks, " ", name)
	if happens := w.happens[name]; happens != nil {
		happens(w)
	}
	return w.broken[name]
}

func (w *world) compare(t *testing.T) (audit.Finding, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w.end = cancel
	a := audit.New(audit.Config{
		Status: func(context.Context, string) (partition.Status, error) {
			if !w.after {
				w.looks++
				w.after, w.paused = true, false
				err := w.moment("before")
				return w.status, err
			}
			w.after = false
			err := w.moment("after")
			status := w.status
			_ = w.moment("end")
			return status, err
		},
		Look: func(context.Context, string) (partition.Operation, render.Result) {
			_ = w.moment("ask")
			return w.answer, w.result
		},
		Jobs: func(context.Context) (oldest, newest string, err error) {
			err = w.moment(map[bool]string{false: "newest", true: "next"}[w.paused])
			w.paused = true
			if len(w.jobs) > 0 {
				oldest, newest = w.jobs[0], w.jobs[len(w.jobs)-1]
			}
			return oldest, newest, err
		},
		Patience: w.patience, Settling: w.settling, Pause: 2 * time.Millisecond,
	})
	return a.Compare(ctx, "/a")
}

// is expects what comes of a comparison, after so many looks.
func (w *world) is(t *testing.T, kind audit.Kind, looks int) audit.Finding {
	t.Helper()
	f, err := w.compare(t)
	if err != nil || f.Kind != kind || w.looks != looks {
		t.Errorf("after %d looks: %+v, %v; want %q after %d", w.looks, f, err, kind, looks)
	}
	return f
}

func TestADifferenceThatNothingExplainsIsFoundByTwoLooks(t *testing.T) {
	if f := stale().is(t, audit.Stale, 2); f.Written != 5 || f.Reason != "the body differs" || !strings.HasSuffix(f.Answer, "version 2") {
		t.Errorf("%+v", f)
	}
	w := stale()
	w.render(5)
	w.is(t, audit.Current, 1)
}

func TestARenderUnderWayAtAnyTimeOfTheSecondLookExplainsADifference(t *testing.T) {
	for name, work := range map[string]func(*partition.Status, bool){
		"pending": func(s *partition.Status, on bool) { s.Pending = on },
		"running": func(s *partition.Status, on bool) { s.Running = on },
		"walked":  func(s *partition.Status, on bool) { s.Walked = map[bool]int{true: 1}[on] },
	} {
		t.Run(name, func(t *testing.T) {
			begins, ends := func(w *world) { work(&w.status, true) }, func(w *world) { work(&w.status, false) }
			until := stale()
			until.happens["1 end"], until.happens["2 ask"] = begins, ends
			until.is(t, audit.Stale, 3)
			since := stale()
			since.happens["2 ask"], since.happens["2 end"] = begins, ends
			since.is(t, audit.Stale, 3)
			throughout := stale()
			throughout.happens["1 end"], throughout.happens["2 end"] = begins, ends
			throughout.is(t, audit.Stale, 3)
			before := stale()
			begins(before)
			before.happens["1 end"] = ends
			before.is(t, audit.Stale, 2)
		})
	}
}

// A job that ends during a look has had rendered what the look did not see any more.
func TestAJobThatEndsDuringTheSecondLookExplainsADifference(t *testing.T) {
	w := stale()
	w.jobs = []string{"3-0"}
	w.happens["2 end"] = func(w *world) { w.jobs = nil; w.render(8) }
	w.is(t, audit.Current, 3)
	w = stale()
	w.jobs = []string{"3-0"}
	w.happens["2 end"] = func(w *world) { w.jobs = nil }
	w.is(t, audit.Stale, 3)
}

func TestAllJobsOfTheFirstLookHaveToEndAndNoOthers(t *testing.T) {
	w := stale()
	w.jobs = []string{"3-0", "3-1"}
	w.happens["1 next"] = func(w *world) { w.jobs = []string{"3-1", "9-0"} } // one of two has ended
	w.happens["2 next"] = func(w *world) { w.jobs = []string{"9-0", "10-0"} }
	w.happens["3 next"] = func(w *world) { w.jobs = []string{"11-0"} }
	w.is(t, audit.Stale, 4)
	w = stale()
	w.jobs = []string{"3-0"}
	w.happens["1 next"] = func(w *world) { w.jobs = []string{"9-0"} }
	w.is(t, audit.Stale, 2)
	w = stale()
	w.happens["1 next"] = func(w *world) { w.jobs = []string{"9-0"} }
	w.is(t, audit.Stale, 2)
}

func TestADifferenceThatIsAnotherOneEachTimeIsNone(t *testing.T) {
	w := stale()
	w.happens["2 ask"] = func(w *world) { w.answer.Value = entry(message.Entry{Ticket: at(0), Body: []byte("version 3")}) }
	w.is(t, audit.Stale, 3)
	w = stale()
	w.happens["2 ask"] = func(w *world) { w.status.Groups = []string{"g"} }
	w.is(t, audit.Stale, 3)
}

// What was written since needs no comparison, even where the application has changed once more.
func TestAnEntryWrittenSinceTheComparisonBeganIsCurrent(t *testing.T) {
	w := stale()
	w.happens["2 ask"] = func(w *world) { w.render(8) }
	w.happens["2 after"] = func(w *world) { w.answer.Value = "" }
	w.is(t, audit.Current, 2)
	w = stale()
	w.happens["2 ask"] = func(w *world) {
		w.status.Value = entry(message.Entry{Ticket: at(8), Body: []byte("another version")})
	}
	w.is(t, audit.Current, 2)
	w = stale()
	w.happens["1 ask"] = func(w *world) { // with a ticket from before
		w.status.Value = entry(message.Entry{Ticket: at(7), Body: []byte("another version")})
	}
	w.is(t, audit.Stale, 2)
}

func TestADifferenceHasToLast(t *testing.T) {
	w := stale()
	w.settling = 20 * time.Millisecond
	began := time.Now()
	f, err := w.compare(t)
	if took := time.Since(began); err != nil || f.Kind != audit.Stale || took < w.settling || w.looks < 3 {
		t.Errorf("after %v and %d looks: %+v, %v", took, w.looks, f, err)
	}
	w = stale()
	w.settling = time.Hour
	w.happens["5 ask"] = func(w *world) { w.render(8) }
	w.is(t, audit.Current, 5)
	w = stale()
	w.settling, w.result = time.Hour, render.Result{State: render.Failed, Reason: "status 500"}
	w.happens["5 ask"] = func(w *world) { w.result = render.Result{State: render.Stored}; w.render(8) }
	w.is(t, audit.Current, 5)
}

func TestPatienceEnds(t *testing.T) {
	w := stale()
	w.jobs, w.patience = []string{"3-0"}, 10*time.Millisecond
	if f, err := w.compare(t); err != nil || f.Kind != audit.Unsettled || f.Reason != "the body differs; a write that explains it has not ended" {
		t.Errorf("a job that does not end: %+v, %v", f, err)
	}
	w = stale()
	w.patience = 10 * time.Millisecond
	for look := range 100 {
		w.happens[fmt.Sprint(look, " ask")] = func(w *world) {
			w.answer.Value = entry(message.Entry{Ticket: at(0), Body: fmt.Append(nil, "at ", look)})
		}
	}
	if f, err := w.compare(t); err != nil || f.Kind != audit.Unsettled || f.Reason != "the body differs; the application never answers the same twice" {
		t.Errorf("a page that is never the same: %+v, %v", f, err)
	}
}

func TestAComparisonEndsWithItsContextAndWithErrors(t *testing.T) {
	enough := errors.New("enough")
	for _, moment := range []string{"1 before", "1 after", "2 before", "2 after", "1 newest", "1 next"} {
		w := stale()
		w.broken[moment] = enough
		if f, err := w.compare(t); !errors.Is(err, enough) {
			t.Errorf("%s: %+v, %v", moment, f, err)
		}
	}
	for _, moment := range []string{"1 ask", "1 end", "2 ask"} {
		w := stale()
		w.happens[moment] = func(w *world) { w.end(enough) }
		if f, err := w.compare(t); !errors.Is(err, enough) {
			t.Errorf("ctx ends at %s: %+v, %v", moment, f, err)
		}
	}
}

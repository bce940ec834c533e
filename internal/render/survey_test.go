package render_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/variant"
)

// varied is an application with pages that vary by X-A, which has the values 0 to 4.
type varied struct {
	answer func(w http.ResponseWriter, r *http.Request, value string)

	calls   atomic.Int64
	running atomic.Int64
	most    atomic.Int64 // at once
}

func (v *varied) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.calls.Add(1)
	running := v.running.Add(1)
	defer v.running.Add(-1)
	for most := v.most.Load(); running > most && !v.most.CompareAndSwap(most, running); most = v.most.Load() {
	}
	w.Header().Set("Vary", "X-A")
	v.answer(w, r, r.Header.Get("X-A"))
}

func (v *varied) looker(t *testing.T, limit int, change ...func(*render.Config)) *render.Renderer {
	t.Helper()
	redistest.Require(t)
	r, _ := looker(t, redistest.Shared(t), v.ServeHTTP, append(change, func(c *render.Config) {
		c.Limit = limit
		c.Vary = variant.Fields{{Name: "X-A", Values: []string{"0", "1", "2", "3", "4"}}}
	})...)
	return r
}

// looks expects how a look ends, and returns the entry.
func looks(t *testing.T, r *render.Renderer, want render.State, reason string) *message.Entry {
	t.Helper()
	op, result := r.Look(t.Context(), "/page")
	if result.State != want || !strings.Contains(result.Reason, reason) {
		t.Errorf("%+v, want the state %d and %q", result, want, reason)
		return new(message.Entry)
	}
	if want != render.Stored {
		return new(message.Entry)
	}
	entry, err := message.ParseEntry(op.Value)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func sayValue(w http.ResponseWriter, _ *http.Request, value string) { _, _ = io.WriteString(w, value) }

func TestARenderOfManyVariantsNeedsOneSlot(t *testing.T) {
	app := &varied{answer: sayValue}
	r := app.looker(t, 1)
	var looking sync.WaitGroup
	for range 4 { // each of which waits for a slot while another has it
		looking.Go(func() {
			entry := looks(t, r, render.Stored, "")
			for i, one := range entry.Variants {
				if one == nil || string(one.Body) != fmt.Sprint(i) {
					t.Errorf("variant %d is %+v", i, one)
				}
			}
		})
	}
	looking.Wait()
	if app.most.Load() != 1 || app.calls.Load() != 20 {
		t.Errorf("%d calls, up to %d at once; want 20, one after another", app.calls.Load(), app.most.Load())
	}
}

func TestARenderUsesSlotsThatAreFree(t *testing.T) {
	var together sync.WaitGroup
	together.Add(4)
	app := &varied{answer: func(w http.ResponseWriter, r *http.Request, value string) {
		if value != "0" { // the others wait for each other
			together.Done()
			together.Wait()
		}
	}}
	r := app.looker(t, 8) // half of which it leaves to others
	looks(t, r, render.Stored, "")
	if app.most.Load() != 4 {
		t.Errorf("%d calls at once, want 4", app.most.Load())
	}
	together.Add(4)
	looks(t, r, render.Stored, "") // so all slots were given back
}

func TestAllVariantsHaveTheTimeOfOneRender(t *testing.T) {
	release := make(chan struct{})
	app := &varied{answer: func(_ http.ResponseWriter, r *http.Request, value string) {
		if value == "2" {
			<-release // whatever its context says
		}
	}}
	r := app.looker(t, 1, func(c *render.Config) { c.Timeout = 50 * time.Millisecond })
	looks(t, r, render.Failed, "no answer within 50ms (option RenderTimeout) (X-A: 2)")
	if app.calls.Load() != 3 {
		t.Errorf("%d calls: the time was over in the third", app.calls.Load())
	}
	// The handler that has not returned keeps its slot.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, result := r.Look(ctx, "/page"); result.State != render.Failed || app.calls.Load() != 3 {
		t.Errorf("%+v after %d calls: a slot was free", result, app.calls.Load())
	}
	close(release)
	looks(t, r, render.Stored, "")
}

func TestAFailureEndsARender(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		state  render.State
		reason string
	}{
		"a status":   {func(w http.ResponseWriter) { w.WriteHeader(500) }, render.Failed, "status 500 Internal Server Error (X-A: 1)"},
		"a panic":    {func(http.ResponseWriter) { panic("no") }, render.Failed, "panic: no (X-A: 1)"},
		"a refusal":  {func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "private") }, render.Refused, "Cache-Control: private (X-A: 1)"},
		"a field":    {func(w http.ResponseWriter) { w.Header().Add("Vary", "X-B") }, render.Refused, "Vary: X-B (X-A: 1)"},
		"its length": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 2<<10)) }, render.Refused, "over 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			app := &varied{answer: func(w http.ResponseWriter, r *http.Request, value string) {
				if value == "1" {
					test.answer(w)
				}
			}}
			looks(t, app.looker(t, 1), test.state, test.reason)
			if app.calls.Load() != 2 {
				t.Errorf("%d calls, want 2", app.calls.Load())
			}
		})
	}
}

// What is under way when one has failed is not waited for.
func TestAFailureEndsWhatIsUnderWay(t *testing.T) {
	begun := make(chan struct{})
	app := &varied{answer: func(w http.ResponseWriter, r *http.Request, value string) {
		switch value {
		case "1":
			<-begun
			w.WriteHeader(500)
		case "2":
			close(begun)
			<-r.Context().Done()
		}
	}}
	looks(t, app.looker(t, 8), render.Failed, "status 500 Internal Server Error (X-A: 1)")
}

// However many variants hang, half of the slots are there for others.
func TestVariantsLeaveSlotsToOthers(t *testing.T) {
	begun, release := make(chan struct{}, 4), make(chan struct{})
	app := &varied{answer: func(w http.ResponseWriter, r *http.Request, value string) {
		if r.URL.Path == "/page" && value != "0" {
			begun <- struct{}{}
			<-release
		}
	}}
	r := app.looker(t, 4)
	var looking sync.WaitGroup
	looking.Go(func() { looks(t, r, render.Stored, "") })
	<-begun
	<-begun
	if _, result := r.Look(t.Context(), "/other"); result.State != render.Stored {
		t.Errorf("%+v", result)
	}
	close(release)
	looking.Wait()
	if app.most.Load() > 3 {
		t.Errorf("%d calls at once", app.most.Load())
	}
}

func TestBodiesOfVariantsAreLimitedTogether(t *testing.T) {
	app := &varied{answer: func(w http.ResponseWriter, _ *http.Request, _ string) {
		_, _ = io.WriteString(w, strings.Repeat("x", 400))
	}}
	looks(t, app.looker(t, 1), render.Refused, "over 1024 bytes (option MaxEntrySize) in all its variants")
	if app.calls.Load() != 3 {
		t.Errorf("%d calls, where the third is too much", app.calls.Load())
	}
}

func TestGroupsOfVariantsAreLimitedTogether(t *testing.T) {
	app := &varied{answer: func(w http.ResponseWriter, _ *http.Request, value string) {
		for i := range 30 {
			w.Header().Add("Cache-Groups", fmt.Sprintf(`"%s-%d", "all"`, value, i))
		}
	}}
	var log bytes.Buffer
	r := app.looker(t, 1, func(c *render.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	op, _ := r.Look(t.Context(), "/page")
	if len(op.Groups) != 0 || !strings.Contains(log.String(), "151 groups") {
		t.Errorf("it is in %d groups, and the log says %s", len(op.Groups), log.String())
	}
}

func TestCloseEndsARenderBetweenItsVariants(t *testing.T) {
	var r *render.Renderer
	var closing sync.WaitGroup
	app := &varied{}
	app.answer = func(_ http.ResponseWriter, asked *http.Request, value string) {
		if value == "1" {
			closing.Go(r.Close)
			<-asked.Context().Done()
		}
	}
	r = app.looker(t, 1)
	looks(t, r, render.Failed, "the renderer was closed")
	closing.Wait()
	if app.calls.Load() != 2 {
		t.Errorf("%d calls, want 2", app.calls.Load())
	}
}

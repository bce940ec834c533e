package render_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/render"
)

// looker returns a renderer with one slot that nothing runs in the background, around an application.
func looker(t *testing.T, rdb redis.UniversalClient, app http.HandlerFunc, change ...func(*render.Config)) (*render.Renderer, *partition.Store) {
	t.Helper()
	store := partition.New(partition.Config{
		Client: rdb, Namespace: redistest.Namespace(t), Partitions: 1, TombstoneLife: time.Minute, ClaimLease: time.Minute, LogLength: 1000,
		MaxEntries: 1000, Timeout: 5 * time.Second,
	})
	config := render.Config{
		Store: store, App: app, Rules: &canonical.Rules{QueryAll: true}, Origin: &url.URL{Scheme: "https", Host: "example.com"},
		Server: &http.Server{}, Mark: func(ctx context.Context) context.Context { return context.WithValue(ctx, marked{}, true) },
		Limit: 1, Timeout: time.Minute, MaxEntry: 1 << 10, Lease: time.Minute, Retry: time.Second,
		Logger: slog.New(slog.DiscardHandler), Writing: outage.Writing(slog.New(slog.DiscardHandler)),
	}
	for _, c := range change {
		c(&config)
	}
	r := render.New(config)
	t.Cleanup(func() {
		r.Close()
		store.Close()
	})
	return r, store
}

type (
	marked struct{}
	caller struct{}
)

func TestALookReturnsWhatARenderWouldCommitAndLeavesNoTrace(t *testing.T) {
	redistest.Require(t)
	r, store := looker(t, redistest.Shared(t), func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || r.Header.Get("Accept") != "*/*" || r.Context().Value(marked{}) == nil || r.Context().Value(caller{}) != nil {
			t.Errorf("not asked as in a render: %s, %v", r.Host, r.Header)
		}
		switch r.URL.Path {
		case "/page":
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Date", "today")
			_, _ = io.WriteString(w, "a page?"+r.URL.RawQuery)
		case "/private":
			w.Header().Set("Cache-Control", "private")
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", 2<<10))
		case "/broken":
			w.WriteHeader(500)
		case "/panic":
			panic("no")
		default:
			http.NotFound(w, r)
		}
	})
	ctx := context.WithValue(t.Context(), caller{}, true)
	for key, want := range map[string]struct {
		kind  partition.Kind
		state render.State
	}{
		"/page?a=1": {partition.OpStore, render.Stored},
		"/private":  {partition.OpRefuse, render.Refused},
		"/large":    {partition.OpRefuse, render.Refused},
		"/none":     {partition.OpDestroy, render.Destroyed},
		"/broken":   {partition.OpFail, render.Failed},
		"/panic":    {partition.OpFail, render.Failed},
	} {
		op, result := r.Look(ctx, key)
		if op.Kind != want.kind || op.Key != key || op.Position != (partition.Position{}) || result.Key != key || result.State != want.state {
			t.Errorf("%s: %+v, %+v", key, op, result)
		}
		if want.state == render.Failed {
			continue
		}
		entry, err := message.ParseEntry(op.Value)
		switch {
		case err != nil:
			t.Errorf("%s: %v", key, err)
		case entry.Gone != (want.state != render.Stored):
			t.Errorf("%s: %+v", key, entry)
		case !entry.Gone && (entry.Status != 200 || string(entry.Body) != "a page?a=1" || entry.Header.Get("Date") != ""):
			t.Errorf("%s: %+v", key, entry)
		}
		if found, err := store.Of(key).Read(t.Context(), key); err != nil || found.Exists || found.Lost {
			t.Errorf("%s: it left %+v, %v", key, found, err)
		}
	}
	if n, err := store.Pending(t.Context()); n != 0 || err != nil {
		t.Errorf("%d keys are pending, %v", n, err)
	}
}

func TestALookEndsWithItsContextAndItsRenderer(t *testing.T) {
	redistest.Require(t)
	asked := make(chan struct{}, 8)
	r, _ := looker(t, redistest.Shared(t), func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	look := func() (end context.CancelCauseFunc, ended chan render.Result) {
		ctx, end := context.WithCancelCause(t.Context())
		ended = make(chan render.Result, 1)
		go func() {
			_, result := r.Look(ctx, "/slow")
			ended <- result
		}()
		return end, ended
	}
	enough := errors.New("enough")
	endFirst, first := look()
	<-asked
	endSecond, second := look() // the only slot is taken
	endSecond(enough)
	if got := <-second; got.State != render.Failed || got.Reason != enough.Error() {
		t.Errorf("while it waits for a slot: %+v", got)
	}
	endFirst(enough)
	if got := <-first; got.State != render.Failed || got.Reason != enough.Error() {
		t.Errorf("while the application is asked: %+v", got)
	}
	_, third := look()
	<-asked
	r.Close()
	if got := <-third; got.State != render.Failed {
		t.Errorf("when the renderer is closed: %+v", got)
	}
	if _, got := r.Look(t.Context(), "/slow"); got.State != render.Failed {
		t.Errorf("after the renderer was closed: %+v", got)
	}
}

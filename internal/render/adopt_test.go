package render_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/render"
)

// echo is a Redis that carries the claims of a key out again after the first commit, as if they had been sent twice and
// come late once. Nobody gets the answer.
type echo struct {
	redis.UniversalClient
	key string

	mu     sync.Mutex
	claim  func()
	echoed bool
}

func (e *echo) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := e.UniversalClient.EvalSha(ctx, sha, keys, args...)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.echoed || !strings.HasSuffix(keys[len(keys)-1], e.key):
	case strings.HasSuffix(keys[4], ":failing"):
		e.claim = func() {
			e.echoed = e.UniversalClient.EvalSha(context.WithoutCancel(ctx), sha, keys, args...).Err() == nil
		}
	case strings.HasSuffix(keys[1], ":index") && e.claim != nil:
		e.claim()
	}
	return cmd
}

// renderer returns a renderer with long leases that looks after what is pending, and a count of its renders.
func renderer(t *testing.T, rdb redis.UniversalClient, guards render.Guards) (*render.Renderer, *atomic.Int64) {
	t.Helper()
	store := partition.New(partition.Config{
		Client: rdb, Namespace: redistest.Namespace(t), Partitions: 1, TombstoneLife: time.Minute, ClaimLease: time.Minute, LogLength: 1000,
		MaxEntries: 1000, Timeout: 5 * time.Second,
	})
	renders := new(atomic.Int64)
	app := func(w http.ResponseWriter, _ *http.Request) {
		renders.Add(1)
		_, _ = w.Write([]byte("a page"))
	}
	r := render.New(render.Config{
		Store: store, App: http.HandlerFunc(app), Rules: &canonical.Rules{}, Origin: &url.URL{Scheme: "http", Host: "localhost"},
		Server: &http.Server{}, Mark: func(ctx context.Context) context.Context { return ctx },
		Limit: 4, Timeout: 5 * time.Second, MaxEntry: 1 << 10, Lease: time.Minute, Retry: time.Second,
		Logger: slog.New(slog.DiscardHandler), Writing: outage.Writing(slog.New(slog.DiscardHandler)), Guards: guards,
	})
	ctx, cancel := context.WithCancel(context.Background())
	tended := make(chan struct{})
	go func() {
		defer close(tended)
		r.Tend(ctx, ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-tended
		r.Close()
		store.Close()
	})
	return r, renders
}

func needs(keys ...string) (work render.Work) {
	for _, key := range keys {
		work.Needs = append(work.Needs, render.Need{Key: key})
	}
	return work
}

// performTwice renders a key whose claim is echoed after the render, and then again.
func performTwice(t *testing.T, guards render.Guards) error {
	t.Helper()
	rdb := &echo{UniversalClient: redistest.Shared(t), key: ":e:/a"}
	r, _ := renderer(t, rdb, guards)
	for _, key := range []string{"/the-scripts-are-loaded", "/a"} {
		if _, err := r.Perform(t.Context(), needs(key)); err != nil {
			t.Fatal(err)
		}
	}
	if !rdb.echoed {
		t.Fatal("no claim came twice")
	}
	limited, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	_, err := r.Perform(limited, needs("/a"))
	return err
}

// A claim for nobody would keep everybody waiting until its lease ends.
func TestAClaimThatNobodyHoldsIsTakenInHand(t *testing.T) {
	redistest.Require(t)
	if err := performTwice(t, render.Guards{}); err != nil {
		t.Error(err)
	}
}

func TestWithoutAdoptionAClaimThatNobodyHoldsIsWaitedFor(t *testing.T) {
	redistest.Require(t)
	if err := performTwice(t, render.Guards{NoAdoption: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v: it is not the adoption that ends the claim", err)
	}
}

// slowClaims is a Redis whose answers to claims come late, but not too late.
type slowClaims struct{ redis.UniversalClient }

func (s slowClaims) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := s.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if len(keys) > 5 && strings.HasSuffix(keys[4], ":failing") && cmd.Err() == nil {
		<-time.After(2 * time.Second) // four looks for strays
	}
	return cmd
}

func TestAClaimWhoseAnswerIsOnItsWayIsNotTakenForAStray(t *testing.T) {
	redistest.Require(t)
	r, renders := renderer(t, slowClaims{redistest.Shared(t)}, render.Guards{})
	if _, err := r.Perform(t.Context(), needs("/the-scripts-are-loaded")); err != nil {
		t.Fatal(err)
	}
	before := renders.Load()
	if _, err := r.Perform(t.Context(), needs("/a", "/b", "/c")); err != nil {
		t.Fatal(err)
	}
	if n := renders.Load() - before; n != 3 {
		t.Errorf("3 keys were rendered %d times", n)
	}
}

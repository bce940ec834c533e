package render_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
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

// performTwice renders a key whose claim is echoed after the render, and then again.
func performTwice(t *testing.T, guards render.Guards) error {
	t.Helper()
	rdb := &echo{UniversalClient: redistest.Shared(t), key: ":e:/a"}
	store := partition.New(partition.Config{
		Client: rdb, Namespace: redistest.Namespace(t), Partitions: 1, TombstoneLife: time.Minute, ClaimLease: time.Minute, LogLength: 1000,
		MaxEntries: 1000, Timeout: 5 * time.Second,
	})
	defer store.Close()
	r := render.New(render.Config{
		Store: store, App: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a page")) }),
		Rules: &canonical.Rules{}, Origin: &url.URL{Scheme: "http", Host: "localhost"}, Server: &http.Server{},
		Mark:  func(ctx context.Context) context.Context { return ctx },
		Limit: 4, Timeout: 5 * time.Second, MaxEntry: 1 << 10, Lease: time.Minute, Retry: time.Second,
		Logger: slog.New(slog.DiscardHandler), Outage: outage.New(slog.New(slog.DiscardHandler), "Redis"), Guards: guards,
	})
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.Tend(ctx, ctx)
	for _, key := range []string{"/the-scripts-are-loaded", "/a"} {
		if _, err := r.Perform(ctx, render.Work{Needs: []render.Need{{Key: key}}}); err != nil {
			t.Fatal(err)
		}
	}
	if !rdb.echoed {
		t.Fatal("no claim came twice")
	}
	limited, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	_, err := r.Perform(limited, render.Work{Needs: []render.Need{{Key: "/a"}}})
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

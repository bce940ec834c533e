package jobqueue_test

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/histories"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

var (
	number = flag.Int("queue-histories", 0, "number of histories of the property test of the queue; 0: 300, with the race detector 60, with -short 40")
	seed   = flag.Uint64("queue-seed", 0, "seed of the first history, the next one has the next number; 0: a random one")
)

// campaign plays histories, a few at once, until count were played or judge, which is given each verdict and never called
// concurrently, has seen enough.
func campaign(t *testing.T, client *redis.Client, count int, guards jobqueue.Guards, judge func(verdict) (enough bool)) {
	const atOnce = 4
	var all counts
	namespace, started := redistest.Namespace(t), time.Now()
	player := func() (func(uint64) verdict, func()) {
		l := &link{}
		client := redis.NewClient(&redis.Options{Addr: client.Options().Addr, ContextTimeoutEnabled: true})
		client.AddHook(l)
		return func(seed uint64) verdict { return play(client, l, namespace, seed, guards) }, func() { _ = client.Close() }
	}
	played := histories.Play(t, *seed, count, atOnce, player, func(v verdict) (enough bool) {
		all.add(v.counts)
		return judge(v)
	})
	t.Logf("%d histories in %v: %v", played, time.Since(started).Round(time.Millisecond), all)
}

// TestQueue plays random histories of servers and workers that go away, stall and come back, with calls that are sent twice,
// get no answer, or arrive later. After every step Redis holds what the model says. A job that may not be repeated is run once
// at most; one that is withdrawn, decided or at its end is not run any more; what is decided is released with the reply that is
// held. Everybody who waits is told one outcome, that of its own job or of the job of its scope. In the end nothing is left.
func TestQueue(t *testing.T) {
	check := func(t *testing.T, client *redis.Client, count int) {
		campaign(t, client, count, jobqueue.Guards{}, func(v verdict) (enough bool) {
			if v.holds() {
				return false
			}
			t.Errorf("history %d: %v\n%s\nwhat happened:\n%s\nto play it again: go test ./internal/jobqueue -run %s -queue-histories 1 -queue-seed %d",
				v.seed, v.err, v.violated, strings.Join(v.notes, "\n"), t.Name(), v.seed)
			return true
		})
	}
	count := *number
	switch {
	case count == 0 && testing.Short():
		count = 40
	case count == 0 && raceDetector:
		count = 60
	case count == 0:
		count = 300
	}
	t.Run("embedded", func(t *testing.T) { check(t, redistest.StartEmbedded(t).Client(t), min(count, 10)) })
	t.Run("single", func(t *testing.T) { check(t, redistest.Shared(t), count) })
}

// TestQueueFailsWithoutAGuard switches off what keeps the queue to its model, one at a time.
func TestQueueFailsWithoutAGuard(t *testing.T) {
	const most = 1000
	for _, test := range []struct {
		guard  string
		guards jobqueue.Guards
	}{
		{"the lease token", jobqueue.Guards{NoLeaseToken: true}},
		{"the idempotent enqueue", jobqueue.Guards{NoIdempotentEnqueue: true}},
		{"the decided state", jobqueue.Guards{NoDecided: true}},
		{"scopes", jobqueue.Guards{NoScopes: true}},
		{"the look at others who wait", jobqueue.Guards{NoOthers: true}},
	} {
		t.Run(test.guard, func(t *testing.T) {
			shown := false
			campaign(t, redistest.Shared(t), most, test.guards, func(v verdict) (enough bool) {
				if v.err != nil {
					t.Errorf("history %d: %v\n%s", v.seed, v.err, strings.Join(v.notes, "\n"))
				}
				if v.violated != "" && !shown {
					shown = true
					t.Logf("history %d: %s", v.seed, v.violated)
				}
				return shown || v.err != nil
			})
			if !shown && !t.Failed() {
				t.Errorf("%d histories without a violation: it is not this guard that prevents it", most)
			}
		})
	}
}

// A history that fails can be played again.
func TestTheSeedRepeatsAHistory(t *testing.T) {
	l, client := &link{}, redistest.Shared(t)
	client.AddHook(l)
	for seed := range uint64(10) {
		first := play(client, l, redistest.Namespace(t), seed, jobqueue.Guards{})
		again := play(client, l, redistest.Namespace(t), seed, jobqueue.Guards{})
		if !slices.Equal(first.notes, again.notes) || first.counts != again.counts {
			t.Errorf("history %d was once\n%s\nand once\n%s", seed, strings.Join(first.notes, "\n"), strings.Join(again.notes, "\n"))
		}
	}
}

package render_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/histories"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

var (
	number = flag.Int("histories", 0, "number of histories of the property test of the fence; 0: 200, with the race detector 60, with -short 40")
	seed   = flag.Uint64("seed", 0, "seed of the first history, the next one has the next number; 0: a random one")
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// many returns a client of the same Redis that serves many histories at once, each of which reads several change logs. A
// machine that is busy makes a history slow and nothing else: the processes bound their calls themselves.
func many(t *testing.T, client *redis.Client) *redis.Client {
	client = redis.NewClient(&redis.Options{
		Addr: client.Options().Addr, ContextTimeoutEnabled: true, PoolSize: 2000, PoolTimeout: patience, ReadTimeout: patience,
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// campaign plays histories, several at once, until count were played or judge, which is given each verdict and never
// called concurrently, has seen enough.
func campaign(t *testing.T, client redis.UniversalClient, count int, guards partition.Guards, judge func(verdict) (enough bool)) {
	atOnce := 32
	if raceDetector {
		atOnce = 4 // more would be too slow for the leases of histories, which are some milliseconds
	}
	var ends sync.WaitGroup
	var all counts
	namespace, started := redistest.Namespace(t), time.Now()
	player := func() (func(uint64) verdict, func()) {
		return func(seed uint64) verdict {
			v, end := play(client, namespace, seed, guards)
			ends.Go(end)
			return v
		}, func() {}
	}
	played := histories.Play(t, *seed, count, atOnce, player, func(v verdict) (enough bool) {
		all.add(v.counts)
		return judge(v)
	})
	ends.Wait()
	t.Logf("%d histories in %v: %v", played, time.Since(started).Round(time.Millisecond), all)
}

// TestFence plays random histories of many workers and an application with a mutable store, with pauses and crashes at
// every step. When all is quiet every entry equals what the application answers, and is in the groups that the application
// has it in; who has the reply to a change, of keys or of groups, reads that change or a later one; nobody ever reads what
// the application never answered; and a verify, beside it and at the end, reports what has drifted and nothing else.
func TestFence(t *testing.T) {
	check := func(t *testing.T, client *redis.Client, count int) {
		campaign(t, many(t, client), count, partition.Guards{}, func(v verdict) (enough bool) {
			if v.holds() {
				return false
			}
			t.Errorf("history %d: %v\n%s\nwhat happened:\n%s\n"+
				"to play it again, which the scheduler may let end otherwise: go test ./internal/render -run %s -count 50 -histories 1 -seed %d",
				v.seed, v.err, strings.Join(slices.Concat(v.drift, v.stale, v.wrong), "\n"), strings.Join(v.notes, "\n"), t.Name(), v.seed)
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
		count = 200
	}
	t.Run("embedded", func(t *testing.T) { check(t, redistest.StartEmbedded(t).Client(t), min(count, 4)) })
	t.Run("single", func(t *testing.T) { check(t, redistest.Shared(t), count) })
}

// TestFenceFailsWithoutAGuard switches off what the fence is made of, one at a time. The cache then drifts, in histories
// like those of TestFence, and a verify reports it. Without marks only the last change of a group can leave a page behind, so all of those histories
// end as some of TestFence do: with keys that join groups which change.
func TestFenceFailsWithoutAGuard(t *testing.T) {
	const most = 10_000
	for _, test := range []struct {
		guard  string
		guards partition.Guards
	}{
		{"the ticket check", partition.Guards{NoTicketCheck: true}},
		{"tombstones", partition.Guards{NoTombstones: true}},
		{"the claim order", partition.Guards{LateTickets: true}},
		{"marks", partition.Guards{NoMarks: true}},
	} {
		t.Run(test.guard, func(t *testing.T) {
			drifted := false
			campaign(t, many(t, redistest.Shared(t)), most, test.guards, func(v verdict) (enough bool) {
				if v.err != nil || len(v.wrong) > 0 {
					t.Errorf("history %d: %v\n%s\n%s", v.seed, v.err, strings.Join(slices.Concat(v.drift, v.wrong), "\n"), strings.Join(v.notes, "\n"))
				}
				if len(v.drift) > 0 && !drifted {
					drifted = true
					t.Logf("history %d: %s", v.seed, strings.Join(v.drift, "\n"))
				}
				return drifted || v.err != nil || len(v.wrong) > 0
			})
			if !drifted && !t.Failed() {
				t.Errorf("%d histories without drift: it is not this guard that prevents it", most)
			}
		})
	}
}

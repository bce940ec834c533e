package render_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

var (
	histories = flag.Int("histories", 0, "number of histories of the property test of the fence; 0: 300, with -short 60")
	seed      = flag.Uint64("seed", 0, "seed of the first history, the next one has the next number; 0: a random one")
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// firstSeed returns the seed of the first history, and prints it.
func firstSeed(t *testing.T) uint64 {
	first := *seed
	if first == 0 {
		first = rand.Uint64() >> 1
	}
	t.Logf("the seed of the first history is %d", first)
	return first
}

// many returns a client of the same Redis that serves many histories at once, each of which reads several change logs.
func many(t *testing.T, client *redis.Client) *redis.Client {
	client = redis.NewClient(&redis.Options{
		Addr: client.Options().Addr, ContextTimeoutEnabled: true, PoolSize: 2000, PoolTimeout: patience,
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// campaign plays histories, several at once, until count were played or one gives a verdict that ends it. It calls
// judge with each verdict, never concurrently.
func campaign(t *testing.T, client redis.UniversalClient, first uint64, count int, guards partition.Guards, judge func(verdict) (enough bool)) {
	const atOnce = 32
	var (
		group, ends sync.WaitGroup
		mu          sync.Mutex
		played      int
		enough      bool
	)
	namespace := redistest.Namespace(t)
	namespace = namespace[len(namespace)-26:]
	for range min(atOnce, count) {
		group.Go(func() {
			for {
				mu.Lock()
				next := played
				if next >= count || enough {
					mu.Unlock()
					return
				}
				played++
				mu.Unlock()
				v, end := play(client, namespace, first+uint64(next), guards)
				ends.Go(end)
				mu.Lock()
				enough = judge(v) || enough
				mu.Unlock()
			}
		})
	}
	group.Wait()
	ends.Wait()
}

// TestFence plays random histories of many workers and an application with a mutable store, with pauses and crashes at
// every step. When all is quiet, every entry equals what the application answers; and who has the reply to a change
// reads that change, or a later one.
func TestFence(t *testing.T) {
	check := func(t *testing.T, client *redis.Client, count int) {
		first, started := firstSeed(t), time.Now()
		played := 0
		campaign(t, many(t, client), first, count, partition.Guards{}, func(v verdict) bool {
			played++
			if v.holds() {
				return false
			}
			t.Errorf("history %d:\n%s\n%v\nwhat happened:\n%s\nto play it again: go test ./internal/render -run %s -count 20 -histories 1 -seed %d",
				v.seed, strings.Join(append(v.drift, v.stale...), "\n"), v.err, strings.Join(v.notes, "\n"), t.Name(), v.seed)
			return true
		})
		t.Logf("%d histories in %v", played, time.Since(started).Round(time.Millisecond))
	}
	count := *histories
	switch {
	case count == 0 && testing.Short():
		count = 60
	case count == 0:
		count = 300
	}
	t.Run("embedded", func(t *testing.T) { check(t, redistest.StartEmbedded(t).Client(t), min(count, 20)) })
	t.Run("single", func(t *testing.T) { check(t, redistest.Shared(t), count) })
}

// TestFenceFailsWithoutAGuard switches off what the fence is made of, one at a time: the property no longer holds, and
// histories as those of TestFence show it.
func TestFenceFailsWithoutAGuard(t *testing.T) {
	const most = 3000
	for name, guards := range map[string]partition.Guards{
		"the ticket check": {NoTicketCheck: true},
		"tombstones":       {NoTombstones: true},
		"the claim order":  {LateTickets: true},
	} {
		t.Run(name, func(t *testing.T) {
			first, started := firstSeed(t), time.Now()
			played, violated := 0, 0
			campaign(t, many(t, redistest.Shared(t)), first, most, guards, func(v verdict) bool {
				played++
				if v.err != nil {
					t.Errorf("history %d: %v", v.seed, v.err)
				}
				if len(v.drift) > 0 && violated == 0 {
					violated = played
					t.Logf("history %d, the %dth: %s", v.seed, played, strings.Join(v.drift, "\n"))
				}
				return violated > 0 || v.err != nil
			})
			if violated == 0 && !t.Failed() {
				t.Errorf("%d histories without a violation: the guard is not what prevents it", played)
			}
			t.Logf("%d histories in %v", played, time.Since(started).Round(time.Millisecond))
		})
	}
}

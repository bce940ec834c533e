package localcopy_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/histories"
	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

var (
	number = flag.Int("histories", 0, "number of histories of the property test of the copy; 0: 150, with the race detector or -short 40")
	seed   = flag.Uint64("seed", 0, "seed of the first history, the next one has the next number; 0: a random one")
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// campaign plays histories, several at once, until count were played or judge, which is given each verdict and never
// called concurrently, has seen enough.
func campaign(t *testing.T, client *redis.Client, count int, dumps bool, g guards, judge func(verdict) (enough bool)) {
	const atOnce = 32
	client = redis.NewClient(&redis.Options{
		Addr: client.Options().Addr, ContextTimeoutEnabled: true, PoolSize: 10 * atOnce, PoolTimeout: patience, ReadTimeout: patience,
	})
	defer client.Close()
	var all counts
	namespace, started := redistest.Namespace(t), time.Now()
	player := func() (func(uint64) verdict, func()) {
		return func(seed uint64) verdict { return play(client, namespace, seed, dumps, g) }, func() {}
	}
	played := histories.Play(t, *seed, count, atOnce, player, func(v verdict) (enough bool) {
		all.add(v.counts)
		return judge(v)
	})
	t.Logf("%d histories in %v: %v", played, time.Since(started).Round(time.Millisecond), all)
}

// TestCopy plays random histories of a copy whose log is trimmed, lost and taken back, is late and breaks off, and whose
// fetches go to a primary and to replicas that are behind. A hit is what the log says, not before what it has said, or was
// promised; a fetch shows what was read, promised, or seen by another one before; and when all is quiet the copy has what
// Redis has.
func TestCopy(t *testing.T) {
	check := func(t *testing.T, client *redis.Client, count int, dumps bool) {
		campaign(t, client, count, dumps, guards{}, func(v verdict) (enough bool) {
			if v.holds() {
				return false
			}
			t.Errorf("history %d: %v\n%s\nwhat happened:\n%s\n"+
				"to play it again, which the scheduler may let end otherwise: go test ./internal/localcopy -run %s -count 50 -histories 1 -seed %d",
				v.seed, v.err, strings.Join(slices.Concat(v.stale, v.lost, v.ahead, v.drift), "\n"), strings.Join(v.notes, "\n"), t.Name(), v.seed)
			return true
		})
	}
	count := *number
	switch {
	case count == 0 && (testing.Short() || raceDetector):
		count = 40
	case count == 0:
		count = 150
	}
	t.Run("embedded", func(t *testing.T) { check(t, redistest.StartEmbedded(t).Client(t), min(count, 8), false) })
	t.Run("single", func(t *testing.T) { check(t, redistest.Shared(t), count, true) })
}

// TestCopyFailsWithoutAGuard switches off what keeps the copy current, one at a time.
func TestCopyFailsWithoutAGuard(t *testing.T) {
	const most = 10_000
	for _, test := range []struct {
		guard  string
		guards guards
		shows  func(verdict) []string
	}{
		{"the race check", guards{copy: localcopy.Guards{NoRaceCheck: true}}, func(v verdict) []string { return v.stale }},
		{"the replica check", guards{copy: localcopy.Guards{NoReplicaCheck: true}}, func(v verdict) []string { return v.stale }},
		{"the record check", guards{copy: localcopy.Guards{NoRecordCheck: true}}, func(v verdict) []string { return v.lost }},
		{"predecessors", guards{partition: partition.Guards{NoPredecessors: true}}, func(v verdict) []string { return slices.Concat(v.stale, v.lost, v.drift) }},
	} {
		t.Run(test.guard, func(t *testing.T) {
			shown := false
			campaign(t, redistest.Shared(t), most, true, test.guards, func(v verdict) (enough bool) {
				if v.err != nil {
					t.Errorf("history %d: %v", v.seed, v.err)
				}
				if violations := test.shows(v); len(violations) > 0 && !shown {
					shown = true
					t.Logf("history %d: %s", v.seed, violations[0])
				}
				return shown || v.err != nil
			})
			if !shown && !t.Failed() {
				t.Errorf("%d histories without a violation: it is not this guard that prevents it", most)
			}
		})
	}
}

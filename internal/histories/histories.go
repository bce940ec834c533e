// Package histories plays random histories, for property tests: each has a seed, from which it can be played again.
package histories

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// Play plays histories, so many at once, until count were played or judge, which is given each verdict and never called
// concurrently, has seen enough. The first history has that seed, or a random one if it is 0, which is logged; each further one has the
// next number. Each of those that play calls player once, for what plays a history of a seed, and end at its end. It returns how many
// were played.
func Play[V any](
	t testing.TB, first uint64, count, atOnce int, player func() (play func(seed uint64) V, end func()), judge func(V) (enough bool),
) (played int) {
	t.Helper()
	if first == 0 {
		first = rand.Uint64() >> 1
	}
	t.Logf("the seed of the first history is %d", first)
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		begun  int
		enough bool
	)
	next := func() (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if enough || begun == count {
			return 0, false
		}
		begun++
		return first + uint64(begun-1), true
	}
	for range min(atOnce, count) {
		group.Go(func() {
			play, end := player()
			defer end()
			for seed, ok := next(); ok; seed, ok = next() {
				v := play(seed)
				mu.Lock()
				played++
				enough = judge(v) || enough
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return played
}

// The table has no face of its own: this test is inside the package, for the other ones see it through a Part only.
package localcopy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// keysOf returns names of keys.
func keysOf(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("/%d", i)
	}
	return keys
}

// A table does what a map does, whatever the order of operations, through any number of rebuilds.
func TestATableIsAMap(t *testing.T) {
	for round := range 60 {
		first := rand.Uint64()
		random := rand.New(rand.NewPCG(first, 0))
		var (
			table table[int]
			model = make(map[string]int)
			keys  = keysOf(1 + random.IntN(300))
			fatal = func(format string, args ...any) {
				t.Helper()
				t.Fatalf("round %d, seed %d: %s", round, first, fmt.Sprintf(format, args...))
			}
		)
		weights := [3]int{1 + random.IntN(10), random.IntN(10), random.IntN(3)} // of put, remove and evict
		for step := range 2000 {
			key := keys[random.IntN(len(keys))]
			h := hash(key)
			switch roll := random.IntN(weights[0] + weights[1] + weights[2]); {
			case random.IntN(500) == 0:
				table.clear()
				clear(model)
			case roll < weights[0]:
				replaced := table.put(&item[int]{key: key, value: step, size: 1}, h)
				if was, ok := model[key]; ok != (replaced != nil) || ok && replaced.value != was {
					fatal("put of %s replaces %v, want %d, %t", key, replaced, was, ok)
				}
				model[key] = step
			case roll < weights[0]+weights[1]:
				removed := table.remove(key, h)
				if was, ok := model[key]; ok != (removed != nil) || ok && removed.value != was {
					fatal("remove of %s removes %v, want %d, %t", key, removed, was, ok)
				}
				delete(model, key)
			default:
				evicted := table.evict()
				if (evicted == nil) != (len(model) == 0) {
					fatal("evict of %d items removes %v", len(model), evicted)
				}
				if evicted != nil {
					if was, ok := model[evicted.key]; !ok || was != evicted.value {
						fatal("evict removes %s = %d, which is %d, %t", evicted.key, evicted.value, was, ok)
					}
					delete(model, evicted.key)
				}
			}
			if table.live != len(model) {
				fatal("%d items are live, want %d", table.live, len(model))
			}
			if slots := table.slots.Load(); slots != nil && 4*table.used > 3*len(*slots) {
				fatal("%d of %d slots are used", table.used, len(*slots))
			}
			if step%50 == 0 {
				for _, key := range keys {
					it := table.get(key, hash(key))
					if was, ok := model[key]; ok != (it != nil) || ok && it.value != was {
						fatal("get of %s: %v, want %d, %t", key, it, was, ok)
					}
				}
			}
		}
	}
}

// Slots whose item was removed are used again by a rebuild: a table does not grow without more items.
func TestATableDoesNotGrowByWhatWasRemoved(t *testing.T) {
	var table table[int]
	for i := range 10_000 {
		key := fmt.Sprintf("/%d", i)
		table.put(&item[int]{key: key}, hash(key))
		if i >= 4 {
			old := fmt.Sprintf("/%d", i-4)
			if table.remove(old, hash(old)) == nil {
				t.Fatalf("%s is not there", old)
			}
		}
	}
	if n := len(*table.slots.Load()); n > 2*smallestTable {
		t.Errorf("%d slots for %d items", n, table.live)
	}
}

// What is used stays; what is not goes first. What is used all the time goes in the end, when there is nothing else.
func TestWhatIsNotUsedIsEvictedFirst(t *testing.T) {
	var table table[int]
	for _, key := range keysOf(10) {
		table.put(&item[int]{key: key}, hash(key))
	}
	for _, key := range keysOf(5) {
		table.get(key, hash(key)).used.Store(true)
	}
	for range 5 {
		it := table.evict()
		for _, key := range keysOf(5) {
			if it.key == key {
				t.Errorf("%s goes, which was used", key)
			}
		}
	}
	for n := 5; n > 0; n-- {
		for _, key := range keysOf(5) {
			if it := table.get(key, hash(key)); it != nil {
				it.used.Store(true)
			}
		}
		if table.evict() == nil {
			t.Fatalf("nothing goes of %d that are used all the time", n)
		}
	}
	if it := table.evict(); it != nil {
		t.Errorf("an empty table gives %v", it)
	}
}

// Readers find what is there all the time, and never an older value than one that they have found, while items come and go
// around it and tables are rebuilt.
func TestATableIsReadWhileItChanges(t *testing.T) {
	var (
		table   table[int]
		floor   atomic.Int64 // of the value of changing
		done    atomic.Bool
		readers sync.WaitGroup
	)
	const steady, changing = "/steady", "/changing"
	table.put(&item[int]{key: steady, value: 7}, hash(steady))
	table.put(&item[int]{key: changing}, hash(changing))
	for range 3 {
		readers.Go(func() {
			for !done.Load() {
				if it := table.get(steady, hash(steady)); it == nil || it.value != 7 {
					t.Errorf("%s: %v", steady, it)
					return
				}
				least := floor.Load()
				if it := table.get(changing, hash(changing)); it == nil || int64(it.value) < least {
					t.Errorf("%s: %v, want at least %d", changing, it, least)
					return
				}
				runtime.Gosched()
			}
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	keys := keysOf(200)
	table.mu.Lock()
	for i := range 20_000 {
		key := keys[random.IntN(len(keys))]
		switch random.IntN(3) {
		case 0:
			table.put(&item[int]{key: changing, value: i}, hash(changing))
			floor.Store(int64(i))
		case 1:
			table.put(&item[int]{key: key}, hash(key))
		default:
			table.remove(key, hash(key))
		}
	}
	table.mu.Unlock()
	done.Store(true)
	readers.Wait()
}

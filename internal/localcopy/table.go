package localcopy

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// A table finds items by their keys. Any number of goroutines may read it while one changes it: reading takes no lock and
// writes nothing but the mark of a use. Those who change it hold mu.
//
// It is open addressing with linear probing. A slot that was used is never empty again before the table is rebuilt, so
// that a reader does not miss what lies behind it.
type table[V any] struct {
	slots atomic.Pointer[[]slot[V]]

	mu   sync.Mutex
	gone *item[V] // stands in slots whose item was removed
	used int      // slots that hold an item, or have held one since the table was built
	live int      // those that hold one
	hand int      // the slot at which the next search for an item to be evicted begins
}

type slot[V any] = atomic.Pointer[item[V]]

// An item is a value under a key. It is never changed, but for used.
type item[V any] struct {
	key   string
	value V
	size  int32
	used  atomic.Bool // since the last search for an item to be evicted came by
	gone  bool        // it is the one that stands in slots whose item was removed
}

const smallestTable = 8

var seed = maphash.MakeSeed()

func hash(key string) uint64 { return maphash.String(seed, key) }

// get returns the item of a key, nil if there is none.
func (t *table[V]) get(key string, hash uint64) *item[V] {
	it, _, _ := t.find(key, hash)
	return it
}

// find returns the item of a key, and the slot in which it is; nil if there is none.
func (t *table[V]) find(key string, hash uint64) (it *item[V], in []slot[V], at int) {
	slots := t.slots.Load()
	if slots == nil {
		return nil, nil, 0
	}
	mask := uint64(len(*slots) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		switch it := (*slots)[at].Load(); {
		case it == nil:
			return nil, nil, 0
		case it.key == key && !it.gone:
			return it, *slots, int(at)
		}
	}
}

// put puts an item in the place of what has its key, which it returns. The caller holds mu.
func (t *table[V]) put(it *item[V], hash uint64) (replaced *item[V]) {
	if slots := t.slots.Load(); slots == nil || 4*(t.used+1) > 3*len(*slots) {
		t.rebuild()
	}
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		switch present := slots[at].Load(); {
		case present == nil:
			slots[at].Store(it)
			t.used, t.live = t.used+1, t.live+1
			return nil
		case present.key == it.key && !present.gone:
			slots[at].Store(it)
			return present
		}
	}
}

// remove removes the item of a key and returns it; nil if there is none. The caller holds mu.
func (t *table[V]) remove(key string, hash uint64) *item[V] {
	it, slots, at := t.find(key, hash)
	if it != nil {
		t.take(slots, at)
	}
	return it
}

// evict removes an item that was not used since the search came by before, and returns it; nil if there are no items. The
// caller holds mu.
func (t *table[V]) evict() *item[V] {
	if t.live == 0 {
		return nil
	}
	slots := *t.slots.Load()
	for tried := 0; ; tried++ {
		at := t.hand
		t.hand = (t.hand + 1) % len(slots)
		it := slots[at].Load()
		if it == nil || it.gone || it.used.Swap(false) && tried < len(slots) {
			continue // once around, and only what is read all the time is still in use
		}
		t.take(slots, at)
		return it
	}
}

// take empties a slot. The caller holds mu.
func (t *table[V]) take(slots []slot[V], at int) {
	if t.gone == nil {
		t.gone = &item[V]{gone: true}
	}
	slots[at].Store(t.gone)
	t.live--
}

// clear removes all items. The caller holds mu.
func (t *table[V]) clear() {
	t.slots.Store(nil)
	t.used, t.live, t.hand = 0, 0, 0
}

// rebuild makes a table with room for half as many items again. The caller holds mu.
func (t *table[V]) rebuild() {
	size := smallestTable
	for 2*size < 4*(t.live+1) {
		size *= 2
	}
	slots := make([]slot[V], size)
	if old := t.slots.Load(); old != nil {
		for i := range *old {
			it := (*old)[i].Load()
			if it == nil || it.gone {
				continue
			}
			at := hash(it.key) & uint64(size-1)
			for slots[at].Load() != nil {
				at = (at + 1) & uint64(size-1)
			}
			slots[at].Store(it)
		}
	}
	t.used, t.hand = t.live, 0
	t.slots.Store(&slots)
}

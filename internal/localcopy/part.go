package localcopy

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// staleAfter is how long a part counts as current after the last answer of Redis.
const staleAfter = 2 * time.Second

// A State says what a part of the copy is worth.
type State uint32

// The states of a part.
const (
	// Void means that nobody follows the log: what the part has must not be used. It has nothing.
	Void State = iota

	// Behind means that the log was promised to be read further than it is by now: what the part has is not used yet.
	Behind

	// Unreachable means that Redis has not answered for a while: the part is as current as it can be.
	Unreachable

	// Current means that the part is.
	Current
)

// A Part is what a copy has of one partition. It is safe for concurrent use; Begin, Changed, Answered and Lost are called
// one after another by who follows the log.
type Part[V any] struct {
	copy   *Copy[V]
	tables []table[V]
	state  atomic.Uint32

	begun chan struct{} // closed when the log is followed for the first time

	mu          sync.Mutex
	closed      bool
	following   bool
	unreachable bool
	read        string   // the id up to which the log was read
	recent      []string // the ids that were read last; at least recentIDs of them once there were so many
	promised    string   // the id that somebody relies on; "" if nobody does
	promisedAt  time.Time
	seen        string // the id up to which a fetch has shown the log
	before      string // what the log that was lost had come to, in any of these ways; "" once another one is followed
	flights     map[string]*flight[V]
	early       []*flight[V] // those that have landed before the log was read as far as they show it
	waiters     map[*waiter]struct{}
	answeredAt  time.Time
	stale       *time.Timer
}

func newPart[V any](c *Copy[V], tables int) *Part[V] {
	return &Part[V]{
		copy: c, tables: make([]table[V], tables), begun: make(chan struct{}),
		flights: make(map[string]*flight[V]), waiters: make(map[*waiter]struct{}),
	}
}

// State says what the part is worth.
func (p *Part[V]) State() State { return State(p.state.Load()) }

// Get returns what the copy has under a key, and whether it may be used. State is Current or Unreachable then; else it is
// that of the part. Get takes no lock and allocates nothing.
func (p *Part[V]) Get(key string) (value V, state State, ok bool) {
	state = State(p.state.Load())
	if state < Unreachable {
		return value, state, false
	}
	h := hash(key)
	it := p.table(h).get(key, h)
	if it == nil {
		return value, state, false
	}
	if !it.used.Load() { // to write to what many read is dear
		it.used.Store(true)
	}
	return it.value, state, true
}

// table returns the table of a key. Tables look at the lower bits of the hash, so the upper ones choose among them.
func (p *Part[V]) table(hash uint64) *table[V] {
	return &p.tables[(hash>>48)%uint64(len(p.tables))]
}

// keep puts a value into the copy. The caller holds mu.
func (p *Part[V]) keep(key string, fetched Fetched[V]) bool {
	size := fetched.size(key)
	if int64(size) > p.copy.limit/4 || size > math.MaxInt32 {
		p.drop(key) // it would push out too much
		return false
	}
	h := hash(key)
	t := p.table(h)
	t.mu.Lock()
	defer t.mu.Unlock()
	p.copy.used.Add(int64(size))
	key = strings.Clone(key) // it may be a part of a whole request
	if old := t.put(&item[V]{key: key, value: fetched.Value, size: int32(size)}, h); old != nil {
		p.copy.used.Add(-int64(old.size))
	}
	return true
}

// drop removes a key. The caller holds mu.
func (p *Part[V]) drop(key string) {
	h := hash(key)
	t := p.table(h)
	t.mu.Lock()
	defer t.mu.Unlock()
	if it := t.remove(key, h); it != nil {
		p.copy.used.Add(-int64(it.size))
	}
}

func (p *Part[V]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		select {
		case <-p.begun:
		default:
			close(p.begun)
		}
	}
	p.void()
	if p.stale != nil {
		p.stale.Stop()
	}
}

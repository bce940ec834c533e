package localcopy

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/streamid"
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
	read        string // the id up to which the log was read
	promised    string // the id that somebody relies on; "" if nobody does
	seen        string // the id up to which a fetch has shown the log
	flights     map[string]*flight[V]
	waiters     map[*waiter]struct{}
	stale       *time.Timer
}

// A flight is a fetch that everybody waits for who needs its key meanwhile.
type flight[V any] struct {
	done    chan struct{}
	value   V
	err     error
	changed bool // the key has changed since it was begun; guarded by mu of the part
}

// errPanicked is what those get who wait for a fetch that has panicked.
var errPanicked = errors.New("the fetch has panicked")

// A waiter waits until the log was read up to an id.
type waiter struct {
	id      string
	reached chan struct{}
}

func newPart[V any](c *Copy[V], tables int) *Part[V] {
	return &Part[V]{
		copy: c, tables: make([]table[V], tables), begun: make(chan struct{}),
		flights: make(map[string]*flight[V]), waiters: make(map[*waiter]struct{}),
	}
}

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

// A Fetched is what a fetch has brought.
type Fetched[V any] struct {
	Value V
	Size  int  // of the value, in bytes
	Keep  bool // it may be kept

	// At is the id up to which the value shows the log, \"\" if that is not known.
	At string
}

// Fetch gets a value from where it comes from and keeps it. Calls for a key while a fetch of it is under way share it,
// unless the key has changed since it was begun. get is given the id up to which the log has been read, or has to be read
// because somebody relies on it, "" if it was not: what it returns shows everything up to there. It is not called with any
// lock held, and must return in a bounded time, whatever becomes of ctx, which only ends the waiting for the fetch of another.
func (p *Part[V]) Fetch(ctx context.Context, key string, get func(since string) (Fetched[V], error)) (V, error) {
	p.mu.Lock()
	if f := p.flights[key]; f != nil && !f.changed && p.following { // else nobody would say that the key has changed
		p.mu.Unlock()
		select {
		case <-f.done:
			return f.value, f.err
		case <-ctx.Done():
			var none V
			return none, context.Cause(ctx)
		}
	}
	f := &flight[V]{done: make(chan struct{}), err: errPanicked}
	p.flights[key] = f
	since := p.since()
	p.mu.Unlock()

	var fetched Fetched[V]
	defer func() {
		p.land(key, f, fetched)
		close(f.done)
	}()
	fetched, f.err = get(since)
	f.value = fetched.Value
	return f.value, f.err
}

// land ends a flight.
func (p *Part[V]) land(key string, f *flight[V], fetched Fetched[V]) {
	p.mu.Lock()
	if p.flights[key] == f {
		delete(p.flights, key)
	}
	if fetched.At != "" && streamid.Less(p.seen, fetched.At) {
		p.seen = fetched.At
	}
	kept := false
	if f.err == nil && fetched.Keep && p.following && (!f.changed || p.copy.guards.NoRaceCheck) {
		kept = p.keep(key, fetched)
	}
	p.mu.Unlock()
	if kept {
		p.copy.makeRoom()
	}
}

// since returns the id that a fetch has to show: nobody is to see something older than what was seen. The caller holds mu.
func (p *Part[V]) since() string {
	if p.copy.guards.NoReplicaCheck {
		return ""
	}
	since := p.read
	for _, id := range [...]string{p.promised, p.seen} {
		if id != "" && streamid.Less(since, id) {
			since = id
		}
	}
	return since
}

// keep puts a value into the copy. The caller holds mu.
func (p *Part[V]) keep(key string, fetched Fetched[V]) bool {
	size := fetched.Size + len(key) + overhead
	if int64(size) > p.copy.limit/4 || size > math.MaxInt32 {
		p.drop(key) // it would push out too much
		return false
	}
	h := hash(key)
	t := p.table(h)
	t.mu.Lock()
	defer t.mu.Unlock()
	p.copy.used.Add(int64(size))
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

// Begin says that the log is followed from an id on.
func (p *Part[V]) Begin(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.void()
	if p.closed {
		return
	}
	select {
	case <-p.begun:
	default:
		close(p.begun)
	}
	p.following, p.read, p.unreachable = true, id, false
	p.tell()
	p.settle()
	p.answered()
}

// Changed says that keys have changed, and that the log was read up to an id.
func (p *Part[V]) Changed(keys []string, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		p.drop(key)
		if f := p.flights[key]; f != nil {
			f.changed = true
		}
	}
	p.read = id
	p.tell()
	p.settle()
}

// Answered says that Redis has answered; end, that the end of the log was reached.
func (p *Part[V]) Answered(end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end {
		p.unreachable = false
		p.settle()
	}
	p.answered()
}

// Lost says that the log does not go on where it was read. Nothing is kept until Begin, whose id has to be asked for after
// that: it then shows whatever was promised before, unless Redis has lost it.
func (p *Part[V]) Lost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised, p.seen = "", ""
	p.void()
}

// void drops everything, and leaves the fetches that are under way to those who wait for them. The caller holds mu.
func (p *Part[V]) void() {
	p.following, p.read = false, ""
	p.settle()
	p.turnAway()
	for i := range p.tables {
		t := &p.tables[i]
		t.mu.Lock()
		if slots := t.slots.Load(); slots != nil {
			for j := range *slots {
				if it := (*slots)[j].Load(); it != nil {
					p.copy.used.Add(-int64(it.size))
				}
			}
		}
		t.clear()
		t.mu.Unlock()
	}
}

// turnAway has nobody join the fetches that are under way, and none of them kept. The caller holds mu.
func (p *Part[V]) turnAway() {
	for _, f := range p.flights {
		f.changed = true
	}
}

// answered restarts the time after which the part is stale. The caller holds mu.
func (p *Part[V]) answered() {
	if p.stale == nil {
		p.stale = time.AfterFunc(staleAfter, p.silent)
		return
	}
	p.stale.Reset(staleAfter)
}

// silent is called when Redis has not answered for staleAfter.
func (p *Part[V]) silent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unreachable = true
	p.settle()
}

// Begun returns a channel that is closed when the log was followed for the first time.
func (p *Part[V]) Begun() <-chan struct{} { return p.begun }

func (p *Part[V]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.void()
	if p.stale != nil {
		p.stale.Stop()
	}
}

// settle makes the state what the other fields say. The caller holds mu.
func (p *Part[V]) settle() {
	state := Current
	switch {
	case !p.following:
		state = Void
	case p.promised != "" && streamid.Less(p.read, p.promised):
		state = Behind
	case p.unreachable:
		state = Unreachable
	}
	p.state.Store(uint32(state))
}

// tell wakes those who wait for what was read. The caller holds mu.
func (p *Part[V]) tell() {
	for w := range p.waiters {
		if !streamid.Less(p.read, w.id) {
			close(w.reached)
			delete(p.waiters, w)
		}
	}
}

// Reach waits until the log was read up to an id, so that whoever has been told of a change sees it. Where ctx ends first, or
// nobody follows the log, the part is not used before it was: reads go where they come from.
func (p *Part[V]) Reach(ctx context.Context, id string) {
	p.mu.Lock()
	if p.following && !streamid.Less(p.read, id) {
		p.mu.Unlock()
		return
	}
	if p.following && !p.unreachable {
		w := &waiter{id, make(chan struct{})}
		p.waiters[w] = struct{}{}
		p.mu.Unlock()
		select {
		case <-w.reached:
			return
		case <-ctx.Done():
		}
		p.mu.Lock()
		delete(p.waiters, w)
	}
	defer p.mu.Unlock()
	if p.following && !streamid.Less(p.read, id) {
		return
	}
	if p.promised == "" || streamid.Less(p.promised, id) {
		p.promised = id
	}
	p.turnAway()
	p.settle()
}

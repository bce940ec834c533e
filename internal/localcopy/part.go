package localcopy

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
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

// recentIDs is how many ids a part remembers: more than come while the answer to a fetch is on its way.
const recentIDs = 256

// A flight is a fetch that everybody waits for who needs its key meanwhile.
type flight[V any] struct {
	key   string
	done  chan struct{}
	value V
	err   error

	// Guarded by mu of the part.
	since   string // it shows the log up to there at least
	changed bool   // the key has changed since it was begun
	fetched Fetched[V]
}

var errFetch = errors.New("the fetch has panicked")

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

// A Fetched is what a fetch has brought.
type Fetched[V any] struct {
	Value V
	Size  int  // of the value, in bytes
	Keep  bool // it may be kept, if At is known

	// At is the id of the record that was the last one of the log when the value was read; "" if that is not known.
	At string
}

// Fetch gets a value from where it comes from and keeps it. Calls for a key while a fetch of it is under way share it,
// unless the key has changed since it was begun, or something newer was seen. get is given the id up to which the log has
// been read, or has to be read because somebody relies on it, "" if it was not: what it returns shows everything up to there.
// It is not called with any lock held, and must return in a bounded time, whatever becomes of ctx, which only ends the waiting
// for the fetch of another.
func (p *Part[V]) Fetch(ctx context.Context, key string, get func(since string) (Fetched[V], error)) (V, error) {
	p.mu.Lock()
	since := p.since()
	if f := p.flights[key]; f != nil {
		if p.mayJoin(f, since) {
			p.mu.Unlock()
			select {
			case <-f.done:
				return f.value, f.err
			case <-ctx.Done():
				var none V
				return none, context.Cause(ctx)
			}
		}
		f.changed = true // from now on nobody says so
	}
	f := &flight[V]{key: key, done: make(chan struct{}), since: since, err: errFetch}
	p.flights[key] = f
	p.mu.Unlock()

	defer func() {
		p.land(f)
		close(f.done)
	}()
	var err error
	f.fetched, err = get(since)
	f.value, f.err = f.fetched.Value, err
	return f.value, f.err
}

// mayJoin reports whether a flight brings what shows the log up to since: what it was begun with, and all that was read
// after that, for its key has not changed. The caller holds mu.
func (p *Part[V]) mayJoin(f *flight[V], since string) bool {
	if f.changed || !p.following { // nobody would say that the key has changed
		return false
	}
	return !streamid.Less(f.since, since) || !streamid.Less(p.read, since)
}

// land ends a flight, or leaves it to settleEarly.
func (p *Part[V]) land(f *flight[V]) {
	p.mu.Lock()
	at := f.fetched.At
	if at != "" && streamid.Less(p.seen, at) {
		p.seen = at
	}
	kept := false
	switch {
	case f.err != nil || !f.fetched.Keep || !p.mayKeep(f):
	case streamid.Less(at, f.since): // Redis has lost records that were read, which will show
	case p.hasRead(at) || p.copy.guards.NoRecordCheck:
		kept = p.keep(f.key, f.fetched)
	case !streamid.Less(p.read, at):
	case !p.copy.reserve(f.fetched.size(f.key)):
		p.drop(f.key)
	default:
		p.drop(f.key) // lest something older is shown after this
		f.since = at
		p.early = append(p.early, f)
		p.mu.Unlock()
		p.copy.makeRoom()
		return
	}
	p.forget(f)
	p.mu.Unlock()
	if kept {
		p.copy.makeRoom()
	}
}

// mayKeep reports whether what a flight has brought is still so. The caller holds mu.
func (p *Part[V]) mayKeep(f *flight[V]) bool {
	return p.following && (!f.changed || p.copy.guards.NoRaceCheck)
}

// hasRead reports whether a record is one of those that were read last. What a fetch shows is only sure to be of the log that
// is followed if it is:
//
//	the log was read up to 7
//	record 8 is written; a fetch shows what it says
//	Redis crashes, and comes back without record 8
//	record 9 is written, which names 7 as the one before it: nothing is missing
//
// The caller holds mu.
func (p *Part[V]) hasRead(id string) bool {
	for _, recent := range slices.Backward(p.recent) { // most often it is the last one
		if recent == id {
			return true
		}
	}
	return false
}

// forget removes a flight. The caller holds mu.
func (p *Part[V]) forget(f *flight[V]) {
	if p.flights[f.key] == f {
		delete(p.flights, f.key)
	}
}

// settleEarly decides about the flights that have landed early, now that the log was read further. The caller holds mu.
func (p *Part[V]) settleEarly() (kept bool) {
	p.early = slices.DeleteFunc(p.early, func(f *flight[V]) bool {
		if p.mayKeep(f) && streamid.Less(p.read, f.fetched.At) {
			return false
		}
		p.copy.release(f.fetched.size(f.key))
		if p.mayKeep(f) && p.hasRead(f.fetched.At) {
			kept = p.keep(f.key, f.fetched) || kept
		}
		p.forget(f)
		return true
	})
	return kept
}

// since returns the id that a fetch has to show: nobody is to see something older than what was seen. The caller holds mu.
func (p *Part[V]) since() string {
	if p.copy.guards.NoReplicaCheck {
		return ""
	}
	return p.reached()
}

// reached returns the highest id that was read, promised or seen, "" if there is none. The caller holds mu.
func (p *Part[V]) reached() string {
	reached := p.read
	for _, id := range [...]string{p.promised, p.seen, p.before} {
		if id != "" && streamid.Less(reached, id) {
			reached = id
		}
	}
	return reached
}

// size returns how much memory a value needs under a key.
func (f *Fetched[V]) size(key string) int { return f.Size + len(key) + overhead }

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

// emptyLog is the id up to which an empty log was read. It is that of no record, so nothing is kept by it: another log that
// is empty looks the same.
const emptyLog = "0-0"

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
	p.following, p.read, p.before, p.unreachable = true, id, "", false
	if id != emptyLog {
		p.remember(id)
	}
	p.tell()
	p.settle()
	p.answered()
}

// Changed says that keys have changed, and which records were read.
func (p *Part[V]) Changed(keys, ids []string) {
	p.mu.Lock()
	for _, key := range keys {
		p.drop(key)
		if f := p.flights[key]; f != nil {
			f.changed = true
		}
	}
	p.read = ids[len(ids)-1]
	p.remember(ids...)
	kept := p.settleEarly()
	p.tell()
	p.settle()
	p.mu.Unlock()
	if kept {
		p.copy.makeRoom()
	}
}

// remember takes note of records that were read. The caller holds mu.
func (p *Part[V]) remember(ids ...string) {
	p.recent = append(p.recent, ids...)
	if extra := len(p.recent) - recentIDs; extra > recentIDs {
		p.recent = append(p.recent[:0:0], p.recent[extra:]...)
	}
}

// Answered says that Redis has answered; end, that the end of the log was reached.
func (p *Part[V]) Answered(end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end {
		p.unreachable = false
		if p.promised != "" && time.Since(p.promisedAt) > staleAfter {
			p.promised = "" // a log that ends before it has lost it
		}
		p.settle()
	}
	p.answered()
}

// Lost says that the log does not go on where it was read. Nothing is kept until Begin, whose id has to be asked for after
// that: it then shows whatever was promised before, unless Redis has lost it.
func (p *Part[V]) Lost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.void()
	p.promised, p.seen = "", ""
}

// void drops everything, and leaves the fetches that are under way to those who wait for them. The caller holds mu.
func (p *Part[V]) void() {
	p.before = p.reached()
	p.following, p.read, p.recent = false, "", nil
	p.settle()
	p.turnAway()
	p.settleEarly()
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
	p.answeredAt = time.Now()
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
	if time.Since(p.answeredAt) < staleAfter {
		return // Redis has answered while the timer waited for the lock
	}
	p.unreachable = true
	p.settle()
}

// Begun returns a channel that is closed when the log was followed for the first time, or the copy was closed.
func (p *Part[V]) Begun() <-chan struct{} { return p.begun }

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
		p.promised, p.promisedAt = id, time.Now()
	}
	p.turnAway()
	p.settle()
}

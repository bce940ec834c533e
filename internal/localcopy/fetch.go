package localcopy

import (
	"context"
	"errors"
	"slices"

	"github.com/itscales/scales/internal/streamid"
)

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

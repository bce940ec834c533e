package localcopy

import (
	"context"
	"time"

	"github.com/itscales/scales/internal/streamid"
)

// recentIDs is how many ids a part remembers: more than come while the answer to a fetch is on its way.
const recentIDs = 256

// A waiter waits until the log was read up to an id.
type waiter struct {
	id      string
	reached chan struct{}
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

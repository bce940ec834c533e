package jobqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/itscales/scales/internal/streamid"
)

// A status is what a producer knows of the queue.
type status struct {
	alive       int64 // workers to count on: that take jobs, or else that are leaving or have left
	slots       int64 // of these
	length      int64
	held        int64 // of length: decided
	parked      int64 // jobs besides, which wait for their turn
	finished    int64
	last        string
	incarnation string
	now         int64  // by Redis's clock, in µs
	redis       string // see identity
}

// Admit reports, before its body is read, whether a job would be enqueued now: nil, ErrUnavailable, ErrNoWorker,
// ErrFull, ErrBusy or ErrClosed.
func (p *Producer) Admit(ctx context.Context, patience Patience) error {
	_, err := p.admit(ctx, patience)
	return err
}

// admit also returns how many jobs may be in the queue before this one.
func (p *Producer) admit(ctx context.Context, patience Patience) (most int64, err error) {
	p.mu.Lock()
	closed, known := p.closed, time.Since(p.lookedAt) <= fresh
	most, refusal := p.judge(p.last, patience)
	p.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	if known && refusal == nil {
		return most, nil
	}
	now, err := p.look(ctx, p.config.Timeout) // nobody is refused on old knowledge
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge(now, patience)
}

// judge is called with mu held.
func (p *Producer) judge(s status, patience Patience) (most int64, refusal error) {
	most = p.most(patience)
	switch {
	case s.alive == 0:
		return most, ErrNoWorker
	case s.length+s.parked >= int64(p.config.MaxQueue):
		return most, ErrFull
	case s.length >= most:
		return most, ErrBusy
	}
	return most, nil
}

// most is called with mu held.
func (p *Producer) most(patience Patience) int64 {
	if p.config.Guards.NoPace {
		return int64(p.config.MaxQueue)
	}
	return p.pace.most(patience.Begins(), p.last.slots, int64(p.config.MaxQueue))
}

// see takes note of the queue as it was before jobs were added; see pace.
func (p *Producer) see(now, finished, length, added int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace.see(now, finished, length, unseen)
	p.last.length = length + added
}

// RetryAfter returns when, by what is known, a job may be enqueued that is not now, because of ErrFull or ErrBusy: full seconds, and
// not the same for all. Where neither the queue nor the pace says anything, as with ErrOrderFull, that is one second or two.
func (p *Producer) RetryAfter(patience Patience) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.retryAfter(patience.Begins(), p.last.slots, p.last.length, p.most(patience))
}

// look asks Redis for the state of the queue, and has limit for it. That ctx ends says nothing of Redis.
func (p *Producer) look(ctx context.Context, limit time.Duration) (status, error) {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := p.looks.Do(timed, struct{}{})
	switch {
	case err != nil && ctx.Err() != nil:
		return s, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case err != nil:
		p.blind.Store(time.Now().UnixNano())
		p.mu.Lock()
		p.triedAt = time.Now()
		p.mu.Unlock()
		return s, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.blind.Store(0)
	return s, nil
}

func (p *Producer) sendLooks(calls []struct{}) ([]status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	keys := []string{p.keys.workers, p.keys.jobs, p.keys.replies, p.config.Meta, p.keys.servers, p.keys.statistics, p.keys.held, p.keys.left}
	reply, err := run(ctx, p.config.Client, p.scripts.status, keys, []any{p.server})
	p.config.Reading.Note(p.closing, err) // also if nobody has waited for so long
	if err != nil {
		return nil, err
	}
	if err := expect(reply, 9, "status"); err != nil {
		return nil, err
	}
	s := status{
		now: number(reply[0]), alive: number(reply[1]), slots: number(reply[2]), length: number(reply[3]), held: number(reply[4]),
		parked: number(reply[5]), finished: number(reply[6]), last: text(reply[7]), incarnation: text(reply[8]), redis: p.recentIdentity(ctx),
	}
	p.clock.learn(time.Now(), number(reply[0]))
	p.learn(s)
	all := make([]status, len(calls))
	for i := range all {
		all[i] = s
	}
	return all, nil
}

// learn takes note of the state of the queue. Where Redis has lost everything, jobs and replies are lost with it: who
// waits for a job from before is told so, and replies are read from the beginning of the new stream.
func (p *Producer) learn(s status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.lookedAt = s, time.Now()
	p.pace.see(s.now, s.finished, s.length, s.length-s.held)
	if s.last != "" && streamid.Less(s.last, p.read) {
		p.read = "0"
	}
	for id, w := range p.waiting {
		if w.incarnation != "" && w.incarnation != s.incarnation && w.since < s.now {
			p.tell(id, outcome{err: fmt.Errorf("%w: Redis lost the queue", ErrUnknown)})
		}
	}
}

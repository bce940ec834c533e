// Package batch shares round trips: what waits while one round trip is under way leaves together as the next one.
//
// There are no timers and no added latency: an idle batcher sends a call at once. The idea is the group commit of
// databases (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotSent marks a call whose caller gave up before the call left: its effect surely never happens.
var ErrNotSent = errors.New("the call never left")

// Config shapes a Batcher. Send is required.
type Config[Q, R any] struct {
	// Send performs one round trip for all requests. It returns one result per request, in order, or an error that
	// then is the error of every call. It is called from goroutines of the batcher.
	Send func([]Q) ([]R, error)

	// Weight is the size of a request in bytes; nil means that requests have no weight.
	Weight func(Q) int

	// MaxCalls is the largest number of calls in one round trip. Default 128.
	MaxCalls int

	// MaxWeight is the weight after which a round trip takes no further call. Default 1 MiB.
	MaxWeight int

	// Flights is how many round trips may be under way at once. Default 1.
	Flights int

	// Patience is how long a round trip may take before it stops counting as one of the Flights, so that calls do
	// not queue behind a connection that is dead. Default one second.
	Patience time.Duration
}

// maxStuck bounds the round trips that have outlived the patience of their batcher.
const maxStuck = 8

// A Batcher groups calls. It is safe for concurrent use and needs no closing: it owns a goroutine only while a round
// trip is under way.
type Batcher[Q, R any] struct {
	config Config[Q, R]

	mu      sync.Mutex
	waiting []*call[Q, R]
	flights int // round trips under way and within their patience
	stuck   int // round trips under way beyond their patience
}

// The life of a call: waiting, then sent or given up, never both.
const (
	stateWaiting int32 = iota
	stateSent
	stateGivenUp
)

type call[Q, R any] struct {
	request Q
	result  R
	err     error
	state   atomic.Int32
	done    chan struct{}
}

// New returns a batcher.
func New[Q, R any](config Config[Q, R]) *Batcher[Q, R] {
	if config.MaxCalls <= 0 {
		config.MaxCalls = 128
	}
	if config.MaxWeight <= 0 {
		config.MaxWeight = 1 << 20
	}
	if config.Flights <= 0 {
		config.Flights = 1
	}
	if config.Patience <= 0 {
		config.Patience = time.Second
	}
	return &Batcher[Q, R]{config: config}
}

// Do sends the request with the next round trip and returns its result.
//
// When ctx ends first, the error wraps its cause, and ErrNotSent if the request had not left; without ErrNotSent the
// request may still take effect.
func (b *Batcher[Q, R]) Do(ctx context.Context, request Q) (R, error) {
	results, errs := b.DoAll(ctx, []Q{request})
	return results[0], errs[0]
}

// DoAll is Do for several requests that leave together, as far as the limits of a round trip allow.
func (b *Batcher[Q, R]) DoAll(ctx context.Context, requests []Q) ([]R, []error) {
	calls := make([]call[Q, R], len(requests))
	b.mu.Lock()
	for i := range calls {
		calls[i].request = requests[i]
		calls[i].done = make(chan struct{})
		b.waiting = append(b.waiting, &calls[i])
	}
	b.launch()
	b.mu.Unlock()

	results, errs := make([]R, len(calls)), make([]error, len(calls))
	for i := range calls {
		results[i], errs[i] = calls[i].wait(ctx)
	}
	return results, errs
}

func (c *call[Q, R]) wait(ctx context.Context) (R, error) {
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
	}
	var zero R
	if c.state.CompareAndSwap(stateWaiting, stateGivenUp) {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	select {
	case <-c.done: // it came back while we were giving up
		return c.result, c.err
	default:
		return zero, context.Cause(ctx)
	}
}

// launch starts a flight if one is allowed and somebody waits. The caller holds mu.
func (b *Batcher[Q, R]) launch() {
	if b.flights < b.config.Flights && len(b.waiting) > 0 {
		b.flights++
		go b.fly()
	}
}

// fly sends round trips until nobody waits, or until another flight has taken over because one of its own was slow.
func (b *Batcher[Q, R]) fly() {
	b.mu.Lock()
	for {
		calls := b.take()
		if len(calls) == 0 {
			b.flights--
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()

		landed, overdue := false, false // guarded by mu; the timer may fire while the round trip lands
		timer := time.AfterFunc(b.config.Patience, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !landed && b.stuck < maxStuck {
				overdue = true
				b.stuck++
				b.flights--
				b.launch()
			}
		})
		b.send(calls)

		timer.Stop()
		b.mu.Lock()
		landed = true
		if overdue {
			b.stuck--
			if b.flights >= b.config.Flights {
				b.mu.Unlock()
				return
			}
			b.flights++
		}
	}
}

// take removes the calls of the next round trip from the waiting ones. The caller holds mu.
func (b *Batcher[Q, R]) take() []*call[Q, R] {
	var calls []*call[Q, R]
	weight, taken := 0, 0
	for _, c := range b.waiting {
		if len(calls) >= b.config.MaxCalls || (weight >= b.config.MaxWeight && len(calls) > 0) {
			break
		}
		taken++
		if !c.state.CompareAndSwap(stateWaiting, stateSent) {
			continue
		}
		calls = append(calls, c)
		if b.config.Weight != nil {
			weight += b.config.Weight(c.request)
		}
	}
	rest := copy(b.waiting, b.waiting[taken:])
	clear(b.waiting[rest:])
	b.waiting = b.waiting[:rest]
	return calls
}

func (b *Batcher[Q, R]) send(calls []*call[Q, R]) {
	requests := make([]Q, len(calls))
	for i, c := range calls {
		requests[i] = c.request
	}
	results, err := b.config.Send(requests)
	if err == nil && len(results) != len(calls) {
		err = fmt.Errorf("%d results for %d calls", len(results), len(calls))
	}
	for i, c := range calls {
		if err != nil {
			c.err = err
		} else {
			c.result = results[i]
		}
		close(c.done)
	}
}

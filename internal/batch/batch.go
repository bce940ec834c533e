// Package batch shares round trips: what waits while one round trip is under way leaves together as the next one.
//
// There are no timers and no added latency: an idle batcher sends a call at once. The idea is the group commit of
// databases (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
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

	// FullFlights is how many more may be under way as long as full ones wait. While the next calls still fit into one
	// round trip, waiting for the last one to land costs less than sending another beside it. Default 0.
	FullFlights int

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
	waiting []*group[Q, R] // the next round trips; only the last one takes further calls
	flights int            // round trips under way and within their patience
	stuck   int            // round trips under way beyond their patience

	// size is the number of calls of the latest round trip. Where it is several, those who are ready to run may be about
	// to call too (a reply for many wakes many), and a flight lets them run first. One caller alone is not delayed.
	size int
}

// A group is the calls of one round trip, before and after it leaves.
type group[Q, R any] struct {
	landed chan struct{} // closed when results and err are there

	// Guarded by the batcher's mu until the group has left, constant from then on.
	requests []Q
	weight   int
	givenUp  map[int]struct{} // calls whose callers gave up before the group left
	left     bool

	results []R // one for each request, if err is nil
	err     error
}

// A Call is a request on its way. It is safe for concurrent use.
type Call[Q, R any] struct {
	batcher *Batcher[Q, R]
	group   *group[Q, R]
	index   int // among the requests of the group
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

// Start sends the request with the next round trip and does not wait for it.
func (b *Batcher[Q, R]) Start(request Q) Call[Q, R] {
	b.mu.Lock()
	defer b.mu.Unlock()
	call := b.join(request)
	b.launch()
	return call
}

// Do sends the request with the next round trip and returns its result.
//
// When ctx ends first, the error wraps its cause, and ErrNotSent if the request had not left; without ErrNotSent the
// request may still take effect.
func (b *Batcher[Q, R]) Do(ctx context.Context, request Q) (R, error) {
	return b.Start(request).Wait(ctx)
}

// DoAll is Do for several requests that leave together, as far as the limits of a round trip allow.
func (b *Batcher[Q, R]) DoAll(ctx context.Context, requests []Q) ([]R, []error) {
	calls := make([]Call[Q, R], len(requests))
	b.mu.Lock()
	for i := range calls {
		calls[i] = b.join(requests[i])
	}
	b.launch()
	b.mu.Unlock()

	results, errs := make([]R, len(calls)), make([]error, len(calls))
	for i := range calls {
		results[i], errs[i] = calls[i].Wait(ctx)
	}
	return results, errs
}

// join puts a request into the next round trip that has room. The caller holds mu.
func (b *Batcher[Q, R]) join(request Q) Call[Q, R] {
	var g *group[Q, R]
	if n := len(b.waiting); n > 0 {
		g = b.waiting[n-1]
	}
	if g == nil || b.full(g) {
		g = &group[Q, R]{landed: make(chan struct{}), requests: make([]Q, 0, b.size)}
		b.waiting = append(b.waiting, g)
	}
	g.requests = append(g.requests, request)
	if b.config.Weight != nil {
		g.weight += b.config.Weight(request)
	}
	return Call[Q, R]{b, g, len(g.requests) - 1}
}

// Wait returns the result of the call; see Do for the errors when ctx ends first.
func (c Call[Q, R]) Wait(ctx context.Context) (R, error) {
	select {
	case <-c.group.landed:
		return c.result()
	case <-ctx.Done():
	}
	var zero R
	if c.GiveUp() {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	select {
	case <-c.group.landed: // it came back while we were giving up
		return c.result()
	default:
		return zero, context.Cause(ctx)
	}
}

func (c Call[Q, R]) result() (R, error) {
	if c.group.err != nil {
		var zero R
		return zero, c.group.err
	}
	return c.group.results[c.index], nil
}

// GiveUp takes the request back. It reports whether it was in time: then the request surely never leaves.
func (c Call[Q, R]) GiveUp() bool {
	c.batcher.mu.Lock()
	defer c.batcher.mu.Unlock()
	if c.group.left {
		return false
	}
	if c.group.givenUp == nil {
		c.group.givenUp = make(map[int]struct{})
	}
	c.group.givenUp[c.index] = struct{}{}
	return true
}

// launch starts a flight if one is allowed and somebody waits. The caller holds mu.
func (b *Batcher[Q, R]) launch() {
	if b.mayLeave(b.flights) {
		b.flights++
		go b.fly()
	}
}

// mayLeave reports whether somebody waits whose round trip is allowed beside so many others. The caller holds mu.
func (b *Batcher[Q, R]) mayLeave(others int) bool {
	if len(b.waiting) == 0 {
		return false
	}
	return others < b.config.Flights || others < b.config.Flights+b.config.FullFlights && b.full(b.waiting[0])
}

func (b *Batcher[Q, R]) full(g *group[Q, R]) bool {
	return len(g.requests) >= b.config.MaxCalls || g.weight >= b.config.MaxWeight
}

// fly sends round trips until nobody waits, or until another flight has taken over because one of its own was slow.
func (b *Batcher[Q, R]) fly() {
	growStack(0)
	b.mu.Lock()
	for {
		if b.size > 1 {
			b.mu.Unlock()
			runtime.Gosched()
			b.mu.Lock()
		}
		var g *group[Q, R]
		if b.mayLeave(b.flights - 1) {
			g = b.take()
		}
		if g == nil {
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
		b.send(g)

		timer.Stop()
		b.mu.Lock()
		landed = true
		if overdue {
			b.stuck--
			b.flights++
		}
	}
}

// growStack has the stack of a new goroutine grow once, while there is little on it to copy, instead of three times
// below the calls of a client of Redis: that would cost a tenth of a round trip on the same host.
//
//go:noinline
func growStack(n int) byte {
	var frame [6 << 10]byte
	return frame[n%len(frame)]
}

// take removes the next round trip from the waiting ones: nil if there is none. The caller holds mu.
func (b *Batcher[Q, R]) take() *group[Q, R] {
	for len(b.waiting) > 0 {
		g := b.waiting[0]
		b.waiting = slices.Delete(b.waiting, 0, 1)
		g.left = true
		b.size = len(g.requests)
		if len(g.givenUp) < len(g.requests) {
			return g
		}
	}
	return nil
}

// send performs a round trip.
func (b *Batcher[Q, R]) send(g *group[Q, R]) {
	defer close(g.landed)
	requests := g.requests
	if len(g.givenUp) > 0 {
		requests = nil
		for i, request := range g.requests {
			if _, ok := g.givenUp[i]; !ok {
				requests = append(requests, request)
			}
		}
	}
	results, err := b.config.Send(requests)
	switch {
	case err != nil:
		g.err = err
	case len(results) != len(requests):
		g.err = fmt.Errorf("%d results for %d calls", len(results), len(requests))
	case len(g.givenUp) == 0:
		g.results = results
	default:
		g.results = make([]R, len(g.requests))
		for i := range g.requests {
			if _, ok := g.givenUp[i]; !ok {
				g.results[i], results = results[0], results[1:]
			}
		}
	}
}

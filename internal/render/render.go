// Package render keeps the cache current: it asks the application for representations and commits them under the fence.
//
// The order is always the same: claim the key, take a ticket, ask the application, commit. A key is rendered by one
// process at a time; who needs it meanwhile waits for the next render, together with everybody else who does.
package render

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/variant"
)

// Config shapes a Renderer. Every field is required but Codings, Vary, Pause and Guards.
type Config struct {
	Store  *partition.Store
	App    http.Handler
	Rules  *canonical.Rules
	Origin *url.URL                              // scheme and host of every render
	Server *http.Server                          // what handlers find under http.ServerContextKey
	Mark   func(context.Context) context.Context // marks the context of a render
	Limit  int                                   // renders at once

	// GroupLimit is how many members of groups that have changed are rendered before Perform returns, rather than in the
	// background.
	GroupLimit int

	Timeout  time.Duration                                    // of one render
	MaxEntry int                                              // largest body, in bytes
	Codings  *coding.Encoder                                  // makes those of a body; nil makes none
	Vary     variant.Fields                                   // by which there are variants of what says so
	Lease    time.Duration                                    // of a claim; that of the store
	Retry    time.Duration                                    // delay after the first failure of a render
	Logger   *slog.Logger                                     //
	Writing  *outage.Log                                      // of calls to Redis
	Pause    func(ctx context.Context, at Moment, key string) // called at every step; tests use it to crash and to wait

	Guards Guards
}

// Guards switches single safeguards off. Only tests do that, to see the violation that the safeguard prevents, and
// benchmarks, to measure what a safeguard is worth.
type Guards struct {
	// NoAdoption leaves claims to their leases that were granted to calls which were given up.
	NoAdoption bool

	// NoSharing has Perform make a render for each need, however many are under way for the same key.
	NoSharing bool
}

// A Moment is a place in the life of a render at which a test may interfere.
type Moment string

// The moments of a render.
const (
	AfterClaim  Moment = "after claim"
	AfterRender Moment = "after render"
	AfterCommit Moment = "after commit"
)

// remoteAddr is the client of every render, from TEST-NET-1 (RFC 5737).
const remoteAddr = "192.0.2.1:1"

// A Renderer renders keys of one cache through one application. It is safe for concurrent use.
type Renderer struct {
	config Config
	token  string // makes the tokens of claims unique
	claims atomic.Uint64
	slots  *slots
	share  share
	held   held
	kick   chan struct{}

	declared []string // the names of config.Vary

	stopped  context.Context
	stop     context.CancelCauseFunc
	entering sync.Mutex // keeps the first of work from beginning while Close waits for the last
	work     sync.WaitGroup
}

var errClosed = errors.New("the renderer was closed")

// New returns a renderer; it does no I/O.
func New(config Config) *Renderer {
	r := &Renderer{
		config: config, token: rand.Text(), slots: newSlots(config.Limit), kick: make(chan struct{}, 1),
	}
	for _, f := range config.Vary {
		r.declared = append(r.declared, f.Name)
	}
	r.share.flights = make(map[string]*pair)
	r.held.claims, r.held.asking = make(map[place]heldClaim), make(map[string]bool)
	r.stopped, r.stop = context.WithCancelCause(context.Background())
	return r
}

// Close stops what is under way, and waits for its goroutines. What it leaves unfinished is pending again when its
// claims expire.
func (r *Renderer) Close() {
	r.entering.Lock()
	r.stop(errClosed)
	r.entering.Unlock()
	r.work.Wait()
}

// enter counts the caller as work that Close waits for, until it calls r.work.Done. False means that the renderer was
// closed.
func (r *Renderer) enter() bool {
	r.entering.Lock()
	defer r.entering.Unlock()
	if r.stopped.Err() != nil {
		return false
	}
	r.work.Add(1)
	return true
}

// State says how the render of a key ended.
type State int

// How the render of a key ended.
const (
	Stored    State = iota // the cache has what the application answered, or something later
	Destroyed              // the application has no such resource (any more)
	Refused                // what the application answers must not be stored; the key is destroyed
	Failed                 // the application gave nothing usable; the last good entry stays
	Pushed                 // the entry is push-only and stays as it is
)

// A Result is how the render of a key ended and, if it was refused or failed, why.
type Result struct {
	Key    string
	State  State
	Reason string
}

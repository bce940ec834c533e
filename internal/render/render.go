// Package render keeps the cache current: it asks the application for representations and commits them under the fence.
//
// The order is always the same: claim the key, take a ticket, ask the application, commit. A key is rendered by one
// process at a time; who needs it meanwhile waits for the next render, together with everybody else who does.
package render

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
)

// Config shapes a Renderer. Every field is required but Codings, Pause and Guards.
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
	Lease    time.Duration                                    // of a claim; that of the store
	Retry    time.Duration                                    // delay after the first failure of a render
	Logger   *slog.Logger                                     //
	Outage   *outage.Log                                      // of Redis
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

	stopped  context.Context
	stop     context.CancelFunc
	entering sync.Mutex // keeps the first of work from beginning while Close waits for the last
	work     sync.WaitGroup
}

var errClosed = errors.New("the renderer was closed")

// New returns a renderer; it does no I/O.
func New(config Config) *Renderer {
	r := &Renderer{
		config: config, token: rand.Text(), slots: newSlots(config.Limit), kick: make(chan struct{}, 1),
	}
	r.share.flights = make(map[string]*pair)
	r.held.claims, r.held.asking = make(map[place]heldClaim), make(map[string]bool)
	r.stopped, r.stop = context.WithCancel(context.Background())
	return r
}

// Close stops what is under way, and waits for its goroutines. What it leaves unfinished is pending again when its
// claims expire.
func (r *Renderer) Close() {
	r.entering.Lock()
	r.stop()
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

// ask renders a key: it returns the operation that commits what the application answered, and why if that is a failure
// or a refusal. The caller has taken a slot. When ctx ends first, that is the failure. codings makes those of the body; nil makes none.
func (r *Renderer) ask(ctx context.Context, due partition.Due, codings *coding.Encoder) (partition.Operation, Result) {
	op := partition.Operation{Key: due.Key, Position: due.Position, Cause: due.Cause}
	fail := func(format string, args ...any) (partition.Operation, Result) {
		reason := fmt.Sprintf(format, args...)
		op.Kind, op.Value, op.Delay = partition.OpFail, reason, r.config.Retry
		return op, Result{due.Key, Failed, reason}
	}
	answer, err := r.call(ctx, due.Key)
	switch {
	case err != nil:
		return fail("%v", err)
	case answer.Panic != nil:
		r.config.Logger.Error("scales: the application panicked in a render", "key", due.Key, "panic", answer.Panic, "stack", string(answer.Stack))
		return fail("panic: %v", answer.Panic)
	case answer.Aborted:
		return fail("the handler aborted")
	case answer.Short:
		return fail("fewer bytes than its Content-Length declares")
	}
	verdict, reason := field.Storable(answer.Status, answer.Header)
	if verdict == field.Store && answer.TooLarge {
		verdict, reason = field.Refuse, tooLarge(r.config.MaxEntry)
	}
	if verdict == field.Store {
		answer.Body, verdict, reason = r.decode(answer.Header, answer.Body)
	}
	switch verdict {
	case field.Store:
		field.Strip(answer.Header)
		op.Groups = r.groupsOf(due.Key, answer.Header)
		entry := message.Entry{
			Ticket: due.Ticket, Status: answer.Status, Header: answer.Header, Body: answer.Body, Job: due.Cause.Job, Why: due.Cause.Why,
		}
		representation.Complete(&entry, codings)
		value, err := message.AppendEntry(nil, &entry)
		if err != nil {
			return fail("%v", err)
		}
		op.Kind, op.Value = partition.OpStore, string(value)
		return op, Result{due.Key, Stored, ""}
	case field.Destroy:
		op.Kind, op.Value = partition.OpDestroy, tombstone(due, "")
		return op, Result{due.Key, Destroyed, ""}
	case field.Refuse:
		op.Kind, op.Value = partition.OpRefuse, tombstone(due, reason)
		return op, Result{due.Key, Refused, reason}
	default:
		return fail("%s", reason)
	}
}

// tombstone returns what is left of a key that was rendered in vain.
func tombstone(due partition.Due, refusal string) string {
	value, err := message.AppendEntry(nil, &message.Entry{
		Ticket: due.Ticket, Gone: true, Job: due.Cause.Job, Why: due.Cause.Why, Refusal: refusal,
	})
	if err != nil {
		return "" // a tombstone that says nothing
	}
	return string(value)
}

// groupsOf returns the groups that an answer puts its entry into. A field that cannot be read is ignored.
func (r *Renderer) groupsOf(key string, header http.Header) []string {
	groups, err := field.Groups(header, field.CacheGroups)
	if err != nil {
		r.config.Logger.Warn("scales: a page is in no group", "key", key, "error", err)
	}
	return r.config.Rules.Groups(key, groups)
}

func tooLarge(limit int) string {
	return "over " + strconv.Itoa(limit) + " bytes (option MaxEntrySize)"
}

// call asks the application for a key, with a slot that the caller has taken. It gives up when ctx ends or the time is
// over, and its slot stays taken until the handler returns: handlers that ignore their context do not pile up.
func (r *Renderer) call(ctx context.Context, key string) (invoke.Result, error) {
	host, target := r.config.Rules.Target(key)
	if host == "" {
		host = r.config.Origin.Host
	}
	call := invoke.Call{
		Method: http.MethodGet, Target: target, Host: host, Scheme: r.config.Origin.Scheme, RemoteAddr: remoteAddr,
		Server: r.config.Server, Header: http.Header{"Accept": {"*/*"}},
	}
	timed, cancel := context.WithTimeout(r.config.Mark(ctx), r.config.Timeout)
	defer cancel()
	request, err := call.Request(timed)
	if err != nil {
		r.slots.give()
		return invoke.Result{}, err
	}
	answered := make(chan invoke.Result, 1)
	go func() {
		defer r.slots.give()
		answered <- invoke.Serve(r.config.App, request, int64(r.config.MaxEntry))
	}()
	select {
	case answer := <-answered:
		if timed.Err() == nil {
			return answer, nil // a handler that its context has cut short may answer with anything
		}
	case <-timed.Done():
	}
	switch {
	case r.stopped.Err() != nil:
		return invoke.Result{}, errClosed
	case ctx.Err() != nil:
		return invoke.Result{}, context.Cause(ctx)
	}
	return invoke.Result{}, fmt.Errorf("no answer within %v (option RenderTimeout)", r.config.Timeout)
}

// decode takes a content coding off a body: entries are stored without one.
func (r *Renderer) decode(header http.Header, body []byte) ([]byte, field.Verdict, string) {
	name := strings.ToLower(strings.TrimSpace(strings.Join(header.Values("Content-Encoding"), ",")))
	if name == "" || name == "identity" || len(body) == 0 {
		header.Del("Content-Encoding")
		return body, field.Store, ""
	}
	plain, err := coding.Decode(name, body, r.config.MaxEntry)
	switch {
	case errors.Is(err, coding.ErrUnknown):
		return nil, field.Refuse, "content coding " + strconv.Quote(name) + " although none was asked for"
	case errors.Is(err, coding.ErrTooLarge):
		return nil, field.Refuse, tooLarge(r.config.MaxEntry)
	case err != nil:
		return nil, field.Retry, "its content coding is broken: " + err.Error()
	}
	for _, name := range [...]string{"Content-Encoding", "Content-Digest", "Repr-Digest", "Digest", "Content-Md5"} {
		header.Del(name) // digests are of the bytes that were coded
	}
	return plain, field.Store, ""
}

package render

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
)

// An asking says how the application is asked for a key.
type asking struct {
	at       int             // where it waits for slots
	patience time.Duration   // how long for each; 0 is as long as its context lasts
	codings  *coding.Encoder // makes those of a body; nil makes none
}

// An answer is what the application says of one variant of a key.
type answer struct {
	verdict field.Verdict
	reason  string

	// Of an answer to be stored.
	entry  *message.Entry
	groups []string

	// selecting are the fields by which it says that it was selected, whatever the verdict.
	selecting []string
}

// ask renders a key: it returns the operation that commits what the application answered, and why if that is a failure
// or a refusal. When ctx ends first, that is the failure.
func (r *Renderer) ask(ctx context.Context, due partition.Due, how asking) (partition.Operation, Result) {
	op := partition.Operation{Key: due.Key, Position: due.Position, Cause: due.Cause}
	a := r.survey(ctx, due.Key, how)
	if a.verdict == field.Store {
		a.entry.Ticket, a.entry.Job, a.entry.Why = due.Ticket, due.Cause.Job, due.Cause.Why
		value, err := message.AppendEntry(nil, a.entry)
		if err == nil {
			op.Kind, op.Value, op.Groups = partition.OpStore, string(value), r.config.Rules.Groups(due.Key, a.groups)
			return op, Result{due.Key, Stored, ""}
		}
		a = failure("%v", err)
	}
	switch a.verdict {
	case field.Destroy:
		op.Kind, op.Value = partition.OpDestroy, tombstone(due, "")
		return op, Result{due.Key, Destroyed, ""}
	case field.Refuse:
		op.Kind, op.Value = partition.OpRefuse, tombstone(due, a.reason)
		return op, Result{due.Key, Refused, a.reason}
	default:
		op.Kind, op.Value, op.Delay = partition.OpFail, a.reason, r.config.Retry
		return op, Result{due.Key, Failed, a.reason}
	}
}

// failure returns what counts as an answer where the application gave nothing usable.
func failure(format string, args ...any) answer {
	return answer{verdict: field.Retry, reason: fmt.Sprintf(format, args...)}
}

// askVariant asks for one variant of a key, with a slot that the caller has taken. Where the handler does not return in time
// it keeps the slot until it does: then kept is true.
func (r *Renderer) askVariant(ctx context.Context, key string, number int) (a answer, kept bool) {
	got, kept, err := r.call(ctx, key, number)
	switch {
	case err != nil:
		return failure("%v", err), kept
	case got.Panic != nil:
		r.config.Logger.Error("scales: the application panicked in a render", "key", key, "panic", got.Panic, "stack", string(got.Stack))
		return failure("panic: %v", got.Panic), false
	case got.Aborted:
		return failure("the handler aborted"), false
	case got.Short:
		return failure("fewer bytes than its Content-Length declares"), false
	}
	a.selecting, _ = field.Selecting(got.Header)
	a.verdict, a.reason = field.Storable(got.Status, got.Header, r.declared...)
	if a.verdict == field.Store && got.TooLarge {
		a.verdict, a.reason = field.Refuse, tooLarge(r.config.MaxEntry)
	}
	if a.verdict == field.Store {
		got.Body, a.verdict, a.reason = r.decode(got.Header, got.Body)
	}
	if a.verdict == field.Store {
		field.Strip(got.Header)
		a.groups = r.groupsOf(key, got.Header)
		a.entry = &message.Entry{Status: got.Status, Header: got.Header, Body: got.Body}
	}
	return a, false
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
	return groups
}

func tooLarge(limit int) string {
	return "over " + strconv.Itoa(limit) + " bytes (option MaxEntrySize)"
}

// call asks the application for a variant of a key. It gives up when ctx ends; kept is true if the handler has not returned
// then. The slot of the caller stays taken until it does, so handlers that ignore their context do not pile up.
func (r *Renderer) call(ctx context.Context, key string, number int) (result invoke.Result, kept bool, err error) {
	host, target := r.config.Rules.Target(key)
	if host == "" {
		host = r.config.Origin.Host
	}
	call := invoke.Call{
		Method: http.MethodGet, Target: target, Host: host, Scheme: r.config.Origin.Scheme, RemoteAddr: remoteAddr,
		Server: r.config.Server, Header: http.Header{"Accept": {"*/*"}},
	}
	r.config.Vary.Set(call.Header, number)
	request, err := call.Request(ctx)
	if err != nil {
		return invoke.Result{}, false, err
	}
	if ctx.Err() != nil {
		return invoke.Result{}, false, context.Cause(ctx)
	}
	answered := make(chan invoke.Result, 1)
	var over atomic.Bool // for one of two: the handler has returned, or the caller waits no longer
	go func() {
		answered <- invoke.Serve(r.config.App, request, int64(r.config.MaxEntry))
		if over.Swap(true) {
			r.slots.give()
		}
	}()
	select {
	case answer := <-answered:
		if ctx.Err() == nil {
			return answer, false, nil // a handler that its context has cut short may answer with anything
		}
	case <-ctx.Done():
		kept = !over.Swap(true)
	}
	return invoke.Result{}, kept, context.Cause(ctx)
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

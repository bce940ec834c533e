package render

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
	"github.com/itscales/scales/internal/variant"
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
	a := r.askAllVariants(ctx, due.Key, how)
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

// askAllVariants asks for the first variant of a key, and then for those among which the answers say that fields select. So
// one that does not depend on any field is asked for once.
func (r *Renderer) askAllVariants(ctx context.Context, key string, how asking) answer {
	declared := r.config.Vary
	if len(declared) == 0 {
		return r.askVariant(ctx, key, 0, how)
	}
	selecting := make([]bool, len(declared))
	answers := make([]*answer, declared.Count())
	for {
		fields, numbers := declared.Within(selecting)
		var missing []int
		for _, n := range numbers {
			if answers[n] == nil {
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			all := make([]answer, len(numbers))
			for i, n := range numbers {
				all[i] = *answers[n]
			}
			return r.join(fields, all)
		}
		each(missing, func(n int) {
			a := r.askVariant(ctx, key, n, how)
			answers[n] = &a
		})
		for _, n := range missing {
			a := answers[n]
			if a.verdict == field.Retry || a.verdict == field.Refuse {
				if n > 0 {
					a.reason += " (" + declared.String(n) + ")"
				}
				return *a
			}
			for _, name := range a.selecting {
				if i := declared.Index(name); i >= 0 {
					selecting[i] = true
				}
			}
		}
	}
}

// join makes one answer of those for all variants, each to be stored or that there is no such resource.
func (r *Renderer) join(fields variant.Fields, answers []answer) answer {
	joined := answer{verdict: field.Destroy, entry: &message.Entry{Vary: fields, Variants: make([]*message.Entry, len(answers))}}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	size := 0
	for i, a := range answers {
		if a.verdict != field.Store {
			continue
		}
		if len(names) > 0 {
			field.Merge(a.entry.Header, http.Header{"Vary": names}) // each has to say it, for caches on the way
		}
		joined.verdict, joined.entry.Variants[i] = field.Store, a.entry
		for _, group := range a.groups {
			if !slices.Contains(joined.groups, group) {
				joined.groups = append(joined.groups, group)
			}
		}
		size += len(a.entry.Body)
	}
	switch {
	case joined.verdict == field.Destroy:
		return answers[0]
	case len(answers) == 1:
		return answers[0]
	case size > r.config.MaxEntry:
		return answer{verdict: field.Refuse, reason: tooLarge(r.config.MaxEntry) + " in all its variants"}
	}
	return joined
}

// askVariant asks for one variant of a key, when there is a slot.
func (r *Renderer) askVariant(ctx context.Context, key string, number int, how asking) answer {
	if err := r.takeSlot(ctx, how.at, how.patience); err != nil {
		return failure("%v", err)
	}
	got, err := r.call(ctx, key, number)
	switch {
	case err != nil:
		return failure("%v", err)
	case got.Panic != nil:
		r.config.Logger.Error("scales: the application panicked in a render", "key", key, "panic", got.Panic, "stack", string(got.Stack))
		return failure("panic: %v", got.Panic)
	case got.Aborted:
		return failure("the handler aborted")
	case got.Short:
		return failure("fewer bytes than its Content-Length declares")
	}
	var a answer
	a.selecting, _ = field.Selecting(got.Header)
	a.verdict, a.reason = field.Storable(got.Status, got.Header, r.declared...)
	if a.verdict == field.Store && got.TooLarge {
		a.verdict, a.reason = field.Refuse, tooLarge(r.config.MaxEntry)
	}
	if a.verdict == field.Store {
		got.Body, a.verdict, a.reason = r.decode(got.Header, got.Body)
	}
	if a.verdict != field.Store {
		return a
	}
	field.Strip(got.Header)
	a.groups = r.groupsOf(key, got.Header)
	a.entry = &message.Entry{Status: got.Status, Header: got.Header, Body: got.Body}
	representation.Complete(a.entry, how.codings)
	return a
}

// takeSlot waits for a slot, which call gives back.
func (r *Renderer) takeSlot(ctx context.Context, at int, patience time.Duration) error {
	turn := r.slots.take(at)
	var timeout <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-turn.granted:
		return nil
	case <-timeout:
		r.slots.leave(turn)
		return fmt.Errorf("no slot for a render within %v (options RenderConcurrency, RenderTimeout)", patience)
	case <-ctx.Done():
		r.slots.leave(turn)
		return context.Cause(ctx)
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
	return groups
}

func tooLarge(limit int) string {
	return "over " + strconv.Itoa(limit) + " bytes (option MaxEntrySize)"
}

// call asks the application for a variant of a key, with a slot that the caller has taken. It gives up when ctx ends or the time is
// over, and its slot stays taken until the handler returns: handlers that ignore their context do not pile up.
func (r *Renderer) call(ctx context.Context, key string, number int) (invoke.Result, error) {
	host, target := r.config.Rules.Target(key)
	if host == "" {
		host = r.config.Origin.Host
	}
	call := invoke.Call{
		Method: http.MethodGet, Target: target, Host: host, Scheme: r.config.Origin.Scheme, RemoteAddr: remoteAddr,
		Server: r.config.Server, Header: http.Header{"Accept": {"*/*"}},
	}
	r.config.Vary.Set(call.Header, number)
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

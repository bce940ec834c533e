// Package step decides what the cache owes after the application has answered a request: the rules of plain HTTP, and
// what the handler asked for through its writer.
package step

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// Rules are what plain HTTP says about a cache. They are safe for concurrent use.
type Rules struct {
	Keys   *canonical.Rules
	Origin *url.URL
	Logger *slog.Logger

	refused sync.Once
}

// An Exchange is a request and what the application answered.
type Exchange struct {
	Method, Scheme, Host string
	Target               *url.URL
	Result               invoke.Result
	Buffer               *Buffer
}

// Owed is what has to be done before the answer is released. It survives a crash in this form.
type Owed struct {
	// Work is done, and waited for.
	Work render.Work

	// Pending are keys that are made pending only, because the request failed: it may have changed something, but what
	// it wrote itself is dropped.
	Pending []string
}

// Empty reports whether nothing is owed.
func (o *Owed) Empty() bool {
	return len(o.Work.Needs) == 0 && len(o.Work.Writes) == 0 && len(o.Pending) == 0
}

// Keys returns all keys that are owed anything and can be rendered.
func (o *Owed) Keys() []string {
	keys := slices.Clone(o.Pending)
	for _, need := range o.Work.Needs {
		keys = append(keys, need.Key)
	}
	return append(keys, renderable(o.Work.Writes)...)
}

// renderable returns the keys of writes that a render can replace.
func renderable(writes []partition.Operation) (keys []string) {
	for _, op := range writes {
		if op.Kind != partition.OpOverwrite && op.Kind != partition.OpErase {
			keys = append(keys, op.Key)
		}
	}
	return keys
}

// Broken reports whether a handler failed, so that its own writes are dropped.
func Broken(r invoke.Result) bool {
	return r.Panic != nil || r.Aborted || r.Short || r.Status >= 500
}

// Safe reports whether a method is safe (RFC 9110 §9.2.1; QUERY as in its draft): it changes nothing by plain HTTP.
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "QUERY":
		return true
	}
	return false
}

// Idempotent reports whether a request may be run again without doubling it (RFC 9110 §9.2.2).
func Idempotent(method string) bool {
	return Safe(method) || method == http.MethodPut || method == http.MethodDelete
}

// Owe returns what is owed after an exchange. exists reports whether a key has an entry or a tombstone; it is asked only
// for a target with a query.
func (r *Rules) Owe(e Exchange, exists func(key string) bool) Owed {
	updates, writes := e.Buffer.Take()
	if Broken(e.Result) {
		return r.oweBroken(e, updates, writes, exists)
	}
	var keys []string
	if !Safe(e.Method) && e.Result.Status >= 200 && e.Result.Status < 400 {
		if key, ok := r.Target(e.Host, e.Target, exists); ok {
			keys = append(keys, key)
		}
		keys = append(keys, r.named(e)...)
	}
	return Owed{Work: combine(append(keys, updates...), writes)}
}

// named returns the keys that the fields of a response name.
func (r *Rules) named(e Exchange) (keys []string) {
	references := slices.Concat(
		e.Result.Header.Values("Location"), e.Result.Header.Values("Content-Location"),
		field.LinkTargets(e.Result.Header.Values("Link"), "invalidates"),
	)
	base := &url.URL{Scheme: e.Scheme, Host: e.Host, Path: e.Target.Path, RawPath: e.Target.RawPath, RawQuery: e.Target.RawQuery}
	for _, reference := range references {
		host, path, query, ok := field.SameOrigin(reference, base, e.Host, r.Origin.Host)
		if !ok {
			r.refused.Do(func() {
				r.Logger.Warn("scales: a Location, Content-Location or Link names another origin and is ignored; further ones are not logged",
					"reference", reference, "host", e.Host, "origin", r.Origin.String())
			})
			continue
		}
		if key, err := r.Keys.Key(host, path, query); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// oweBroken is Owe for a request that failed: nobody knows how far it came, so whatever it named is rendered some time.
func (r *Rules) oweBroken(e Exchange, updates []string, writes []partition.Operation, exists func(string) bool) Owed {
	var pending []string
	if !Safe(e.Method) {
		if key, ok := r.Target(e.Host, e.Target, exists); ok {
			pending = append(pending, key)
		}
	}
	pending = append(append(pending, updates...), renderable(writes)...)
	slices.Sort(pending)
	return Owed{Pending: slices.Compact(pending)}
}

// Target returns the key of an unsafe request's target, if it is to be rendered: it has an entry or a tombstone, or no
// query.
func (r *Rules) Target(host string, target *url.URL, exists func(key string) bool) (key string, ok bool) {
	key, err := r.Keys.Key(host, target.EscapedPath(), target.RawQuery)
	return key, err == nil && (target.RawQuery == "" || exists(key))
}

// combine joins keys to be rendered and writes. A key that is rendered anyway needs no push that would have to be
// confirmed.
func combine(keys []string, writes []partition.Operation) render.Work {
	var work render.Work
	seen := make(map[string]bool)
	for _, key := range keys {
		if !seen[key] {
			seen[key] = true
			work.Needs = append(work.Needs, render.Need{Key: key, Limited: true})
		}
	}
	for _, op := range writes {
		if inexact := op.Kind == partition.OpPush || op.Kind == partition.OpRemove; inexact && seen[op.Key] {
			continue
		}
		work.Writes = append(work.Writes, op)
	}
	return work
}

// Encode writes what is owed as JSON.
func (o *Owed) Encode() (string, error) {
	b, err := json.Marshal(storedOwed{o.Work.Needs, storeWrites(o.Work.Writes), o.Pending})
	return string(b), err
}

// Decode reads what Encode has written.
func Decode(s string) (Owed, error) {
	var stored storedOwed
	if err := json.Unmarshal([]byte(s), &stored); err != nil {
		return Owed{}, err
	}
	o := Owed{Work: render.Work{Needs: stored.Needs}, Pending: stored.Pending}
	for _, w := range stored.Writes {
		o.Work.Writes = append(o.Work.Writes, partition.Operation{
			Kind: w.Kind, Key: w.Key, Position: partition.Position{Incarnation: w.Incarnation, Ticket: w.Ticket}, Value: string(w.Value),
		})
	}
	return o, nil
}

type storedOwed struct {
	Needs   []render.Need `json:"needs,omitempty"`
	Writes  []storedWrite `json:"writes,omitempty"`
	Pending []string      `json:"pending,omitempty"`
}

// storedWrite holds the value as bytes, which JSON writes in base64: a body is not text.
type storedWrite struct {
	Kind        partition.Kind `json:"kind"`
	Key         string         `json:"key"`
	Incarnation string         `json:"incarnation,omitempty"`
	Ticket      string         `json:"ticket,omitempty"`
	Value       []byte         `json:"value,omitempty"`
}

func storeWrites(operations []partition.Operation) (writes []storedWrite) {
	for _, op := range operations {
		writes = append(writes, storedWrite{op.Kind, op.Key, op.Incarnation, op.Ticket, []byte(op.Value)})
	}
	return writes
}

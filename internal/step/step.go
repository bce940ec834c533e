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
	Job                  string // the id of the job, "" if there is none
	Method, Scheme, Host string
	Target               *url.URL
	Result               invoke.Result
	Buffer               *Buffer
}

// Owed is what has to be done before the answer is released. It survives a crash in this form.
type Owed struct {
	// Work is done, and waited for.
	Work render.Work

	// Pending is rendered some time only, because the request failed: it may have changed something, but what it wrote
	// itself is dropped.
	Pending Pending
}

// Pending is what is rendered in the background.
type Pending struct {
	Keys    []string `json:"keys,omitempty"`
	Groups  []string `json:"groups,omitempty"`  // their members
	Related []string `json:"related,omitempty"` // keys the members of whose groups are rendered, too
}

// Empty reports whether nothing is pending.
func (p *Pending) Empty() bool { return len(p.Keys)+len(p.Groups)+len(p.Related) == 0 }

// Empty reports whether nothing is owed.
func (o *Owed) Empty() bool {
	return len(o.Work.Needs) == 0 && len(o.Work.Groups) == 0 && len(o.Work.Writes) == 0 && o.Pending.Empty()
}

// Rest returns what is still to be rendered where the writes of the job are dropped.
func (o *Owed) Rest() Pending {
	rest := o.Pending
	rest.Keys, rest.Groups = slices.Clone(rest.Keys), slices.Concat(rest.Groups, o.Work.Groups)
	for _, need := range o.Work.Needs {
		rest.Keys = append(rest.Keys, need.Key)
	}
	rest.Keys = append(rest.Keys, renderable(o.Work.Writes)...)
	return rest
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
	updates, groups, writes := e.Buffer.Take()
	unsafe := !Safe(e.Method)
	if unsafe {
		groups = append(groups, r.invalidated(e)...)
	}
	groups = sorted(groups)
	if Broken(e.Result) {
		return Owed{Pending: r.broken(e, updates, groups, writes, exists)}
	}
	var needs []render.Need
	if unsafe && e.Result.Status >= 200 && e.Result.Status < 400 {
		if key, ok := r.Target(e.Host, e.Target, exists); ok {
			needs = append(needs, render.Need{Key: key, Why: "target"})
		}
		needs = append(needs, r.named(e)...)
	}
	for _, key := range updates {
		needs = append(needs, render.Need{Key: key, Why: "update"})
	}
	work := combine(needs, writes)
	work.Job, work.Groups = e.Job, groups
	return Owed{Work: work}
}

// invalidated returns the groups that a response says have changed, whatever its status (RFC 9875 §3). They are not
// followed: groups of their members do not count.
func (r *Rules) invalidated(e Exchange) []string {
	groups, err := field.Groups(e.Result.Header, field.CacheGroupInvalidation)
	if err != nil {
		r.Logger.Error("scales: groups that a response invalidates cannot be read; the cache may have drifted", "error", err)
	}
	return r.Keys.GroupsOf(e.Host, groups)
}

func sorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// named returns the keys that the fields of a response name.
func (r *Rules) named(e Exchange) (needs []render.Need) {
	base := &url.URL{Scheme: e.Scheme, Host: e.Host, Path: e.Target.Path, RawPath: e.Target.RawPath, RawQuery: e.Target.RawQuery}
	for _, by := range [...]struct {
		field      string
		references []string
	}{
		{"Location", e.Result.Header.Values("Location")},
		{"Content-Location", e.Result.Header.Values("Content-Location")},
		{"Link", field.LinkTargets(e.Result.Header.Values("Link"), "invalidates")},
	} {
		for _, reference := range by.references {
			host, path, query, ok := field.SameOrigin(reference, base, e.Host, r.Origin.Host)
			if !ok {
				r.refused.Do(func() {
					r.Logger.Warn("scales: a Location, Content-Location or Link names another origin and is ignored; further ones are not logged",
						"reference", reference, "host", e.Host, "origin", r.Origin.String())
				})
				continue
			}
			if key, err := r.Keys.Key(host, path, query); err == nil {
				needs = append(needs, render.Need{Key: key, Why: by.field})
			}
		}
	}
	return needs
}

// broken is what is rendered some time after a request that failed: nobody knows how far it came, so it is whatever the
// request named, and whatever goes together with its target.
func (r *Rules) broken(e Exchange, updates, groups []string, writes []partition.Operation, exists func(string) bool) Pending {
	var p Pending
	if !Safe(e.Method) {
		p = r.Around(e.Host, e.Target, exists)
	}
	p.Keys = sorted(append(append(p.Keys, updates...), renderable(writes)...))
	p.Groups = groups
	return p
}

// Around returns what is rendered where nobody knows what an unsafe request has changed: its target, and the members of the
// groups that the target is in.
func (r *Rules) Around(host string, target *url.URL, exists func(string) bool) (p Pending) {
	if key, ok := r.Target(host, target, exists); ok {
		p.Keys, p.Related = []string{key}, []string{key}
	}
	return p
}

// Target returns the key of an unsafe request's target, if it is to be rendered: it has an entry or a tombstone, or no
// query.
func (r *Rules) Target(host string, target *url.URL, exists func(key string) bool) (key string, ok bool) {
	key, err := r.Keys.Key(host, target.EscapedPath(), target.RawQuery)
	return key, err == nil && (target.RawQuery == "" || exists(key))
}

// combine joins keys to be rendered and writes. A key that is rendered anyway needs no push that would have to be
// confirmed.
func combine(needs []render.Need, writes []partition.Operation) render.Work {
	var work render.Work
	seen := make(map[string]bool)
	for _, need := range needs {
		if !seen[need.Key] {
			seen[need.Key] = true
			need.Limited = true
			work.Needs = append(work.Needs, need)
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
	stored := storedOwed{Needs: o.Work.Needs, Groups: o.Work.Groups, Writes: storeWrites(o.Work.Writes)}
	if !o.Pending.Empty() {
		stored.Pending = &o.Pending
	}
	b, err := json.Marshal(stored)
	return string(b), err
}

// Decode reads what Encode has written.
func Decode(s string) (Owed, error) {
	var stored storedOwed
	if err := json.Unmarshal([]byte(s), &stored); err != nil {
		return Owed{}, err
	}
	o := Owed{Work: render.Work{Needs: stored.Needs, Groups: stored.Groups}}
	if stored.Pending != nil {
		o.Pending = *stored.Pending
	}
	for _, w := range stored.Writes {
		o.Work.Writes = append(o.Work.Writes, partition.Operation{
			Kind: w.Kind, Key: w.Key, Position: partition.Position{Incarnation: w.Incarnation, Ticket: w.Ticket}, Value: string(w.Value), Groups: w.Groups,
			Cause: partition.Cause{Job: w.Job, Why: w.Why},
		})
	}
	return o, nil
}

type storedOwed struct {
	Needs   []render.Need `json:"needs,omitempty"`
	Groups  []string      `json:"groups,omitempty"`
	Writes  []storedWrite `json:"writes,omitempty"`
	Pending *Pending      `json:"pending,omitempty"`
}

// storedWrite holds the value as bytes, which JSON writes in base64: a body is not text.
type storedWrite struct {
	Kind        partition.Kind `json:"kind"`
	Key         string         `json:"key"`
	Incarnation string         `json:"incarnation,omitempty"`
	Ticket      string         `json:"ticket,omitempty"`
	Value       []byte         `json:"value,omitempty"`
	Groups      []string       `json:"groups,omitempty"`
	Job         string         `json:"job,omitempty"`
	Why         string         `json:"why,omitempty"`
}

func storeWrites(operations []partition.Operation) (writes []storedWrite) {
	for _, op := range operations {
		writes = append(writes, storedWrite{op.Kind, op.Key, op.Incarnation, op.Ticket, []byte(op.Value), op.Groups, op.Cause.Job, op.Cause.Why})
	}
	return writes
}

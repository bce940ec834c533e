package scales

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
)

// An Entry is the stored representation of a resource.
//
// The constructors cover the common cases; the fields may be changed before the entry is pushed. Header holds end-to-end
// fields only: Date, Content-Length and hop-by-hop fields are not stored, and Set-Cookie, "private" and "no-store" make a
// push ErrNotStorable. The groups that the entry is in are those of its Cache-Groups field. The body has no content coding.
type Entry struct {
	Status int
	Header http.Header
	Body   []byte

	// PushOnly marks a resource that the application cannot render: it is never rendered, and of several pushes the last
	// one that is committed wins.
	PushOnly bool

	// Ticket makes a push exact: it was taken after the change that the entry shows and before the entry was made. The
	// zero Ticket is not exact, and Scales confirms the push by a render. See CacheWriter.
	Ticket Ticket

	gone bool
	err  error // of a constructor; makes the push ErrNotStorable
}

// A Ticket is a place in the order of all writes to the cache. It comes from the Ticket method of a CacheWriter and is
// good for pushes within the TombstoneLife of the cache.
type Ticket struct {
	positions []partition.Position
}

// HTML returns an entry with status 200 and Content-Type text/html; charset=utf-8.
func HTML(body string) Entry { return Data("text/html; charset=utf-8", []byte(body)) }

// Text returns an entry with status 200 and Content-Type text/plain; charset=utf-8.
func Text(body string) Entry { return Data("text/plain; charset=utf-8", []byte(body)) }

// JSON returns an entry with status 200, Content-Type application/json and the value as its body, as encoding/json writes
// it.
func JSON(value any) (Entry, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return Entry{}, fmt.Errorf("scales: JSON entry: %w", err)
	}
	return Data("application/json", body), nil
}

// Data returns an entry with status 200 and that Content-Type.
func Data(contentType string, body []byte) Entry {
	return Entry{Status: http.StatusOK, Header: http.Header{"Content-Type": {contentType}}, Body: body}
}

// Redirect returns an entry that redirects to the location with the status, one of 301, 302, 303, 307 and 308.
func Redirect(status int, location string) Entry {
	return Entry{Status: status, Header: http.Header{"Location": {location}}}
}

// Gone returns what a push uses to destroy a resource exactly: Gone().At(ticket).
func Gone() Entry { return Entry{gone: true} }

// At returns the entry with a ticket.
func (e Entry) At(ticket Ticket) Entry {
	e.Ticket = ticket
	return e
}

// With returns the entry with a further header field.
func (e Entry) With(name, value string) Entry {
	e.Header = maps.Clone(e.Header)
	if e.Header == nil {
		e.Header = make(http.Header)
	}
	name = http.CanonicalHeaderKey(name)
	e.Header[name] = append(slices.Clip(e.Header[name]), value)
	return e
}

// In returns the entry with groups that it is in, in the place of others. One that is not valid makes its push
// ErrNotStorable.
func (e Entry) In(groups ...string) Entry {
	e.Header = maps.Clone(e.Header)
	if e.Header == nil {
		e.Header = make(http.Header)
	}
	e.Header.Del(field.CacheGroups)
	value, err := field.FormatGroups(groups...)
	e.err = errors.Join(e.err, err)
	if value != "" {
		e.Header.Set(field.CacheGroups, value)
	}
	return e
}

// destroy returns the change that a destroy of a key outside of jobs is.
func destroy(key, job string) partition.Operation {
	cause := partition.Cause{Job: job, Why: "destroy"}
	value, err := message.AppendEntry(nil, &message.Entry{Gone: true, Job: job, Why: cause.Why})
	if err != nil {
		value = nil // the tombstone says nothing
	}
	return partition.Operation{Kind: partition.OpErase, Key: key, Value: string(value), Cause: cause}
}

// operation returns the change that a push of the entry under a key is. floor says what a job has seen; outside of jobs it
// is nil.
func (c *Cache) operation(key string, e Entry, job string, floor func(*partition.Partition) partition.Position) (partition.Operation, error) {
	p := c.store.Of(key)
	op := partition.Operation{Key: key, Cause: partition.Cause{Job: job, Why: "push"}}
	exact := len(e.Ticket.positions) > 0
	switch {
	case exact && len(e.Ticket.positions) != len(c.store.All()):
		return op, fmt.Errorf("%w: %s: its ticket is of another cache", ErrNotStorable, key)
	case exact && e.PushOnly:
		return op, fmt.Errorf("%w: %s: a push-only entry takes no ticket: its last push wins", ErrNotStorable, key)
	case exact:
		op.Kind, op.Position = partition.OpPut, e.Ticket.positions[p.Number]
	case floor != nil && !e.PushOnly:
		op.Kind, op.Position = partition.OpPush, floor(p)
	default:
		op.Kind = partition.OpOverwrite
	}
	if e.gone {
		op.Kind = map[partition.Kind]partition.Kind{
			partition.OpPut: partition.OpDrop, partition.OpPush: partition.OpRemove, partition.OpOverwrite: partition.OpErase,
		}[op.Kind]
		op.Value = destroy(key, job).Value
		return op, nil
	}
	if len(e.Body) > c.config.maxEntry {
		return op, fmt.Errorf("%w: %s: %d bytes are over the limit of %d (option MaxEntrySize)", ErrNotStorable, key, len(e.Body), c.config.maxEntry)
	}
	header := e.Header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	if verdict, reason := field.Storable(e.Status, header); verdict != field.Store {
		if len(c.config.vary) > 0 && strings.HasPrefix(reason, "Vary: ") {
			reason += ": what is pushed has no variants; have it rendered"
		}
		return op, fmt.Errorf("%w: %s: status %d: %s", ErrNotStorable, key, e.Status, reason)
	}
	if coding := header.Get("Content-Encoding"); coding != "" {
		return op, fmt.Errorf("%w: %s: content coding %q: entries are stored without one", ErrNotStorable, key, coding)
	}
	field.Strip(header)
	groups, err := field.Groups(header, field.CacheGroups)
	if err = errors.Join(e.err, err); err != nil {
		return op, fmt.Errorf("%w: %s: %w", ErrNotStorable, key, err)
	}
	op.Groups = c.rules.Groups(key, groups)
	stored := message.Entry{
		Ticket: op.Ticket, Status: e.Status, Header: header, Body: e.Body, PushOnly: e.PushOnly, Job: job, Why: op.Cause.Why,
	}
	representation.Complete(&stored, c.codings)
	value, err := message.AppendEntry(nil, &stored)
	if err != nil {
		return op, fmt.Errorf("%w: %s: %w", ErrNotStorable, key, err)
	}
	op.Value = string(value)
	return op, nil
}

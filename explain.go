package scales

import (
	"context"
	"iter"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
)

// An Explanation is what the cache knows about a key: what is stored, why, and what is to come. It is read in one atomic
// step. Times are those of Redis's clock. It marshals to a JSON object.
type Explanation struct {
	Key       string `json:"key"`
	Partition int    `json:"partition"`

	// State is "entry"; "tombstone", which a destroyed entry leaves for TombstoneLife; "lost", if the cache had an entry
	// that Redis has no more or that cannot be decoded; or "none".
	State string `json:"state"`

	// Filled says that a miss in the partition is a true 404.
	Filled bool `json:"filled"`

	// Ticket orders the writes to the key, and Written is the time at which it was taken: of a render, before the
	// application was asked.
	Ticket  string    `json:"ticket,omitempty"`
	Written time.Time `json:"written,omitzero"`

	// Job is the id of the job by which the entry or tombstone was made, "" if there was none. Why is what made it:
	// "target", "Location", "Content-Location" or "Link" of a response, "update", "group " and the name of the group,
	// "push", "destroy", "fill", "verify", "lost", "failed request".
	Job string `json:"job,omitempty"`
	Why string `json:"why,omitempty"`

	Status   int      `json:"status,omitempty"`   // of several variants that of the first one that exists
	Bytes    int      `json:"bytes,omitempty"`    // of the body, of all variants
	Variants int      `json:"variants,omitempty"` // 0 if it has none
	PushOnly bool     `json:"push_only,omitempty"`
	Groups   []string `json:"groups,omitempty"` // with the option Hosts, "host/group"

	// Refusal is why what the application answered could not be stored; only of a tombstone.
	Refusal string `json:"refusal,omitempty"`

	Pending *PendingRender `json:"pending,omitempty"` // nil if the key needs no render
	Running *RunningRender `json:"running,omitempty"` // nil if nobody renders it
	Failure *FailedRender  `json:"failure,omitempty"` // nil if its last render has not failed
}

// A PendingRender is a render that somebody needs and that nobody has begun.
type PendingRender struct {
	Since time.Time `json:"since,omitzero"` // when it was asked for first
	Due   time.Time `json:"due"`            // when it is made at the earliest
	Job   string    `json:"job,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// A RunningRender is a render under way.
type RunningRender struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // when another worker may take it over, unless its lease is prolonged
	Job   string    `json:"job,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// A FailedRender is the last render of a key that gave nothing usable, or none.
type FailedRender struct {
	Count int       `json:"count"`       // failures in a row
	At    time.Time `json:"at,omitzero"` // when the last one was begun; zero if its process died
	Error string    `json:"error"`
}

// Explain returns what the cache knows about a key, whether there is an entry or not.
func (c *Cache) Explain(ctx context.Context, key string) (Explanation, error) {
	key, err := c.parse(key)
	if err != nil {
		return Explanation{}, err
	}
	timed, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	p := c.store.Of(key)
	s, err := p.Explain(timed, key)
	if err != nil {
		return Explanation{}, c.unavailable(err)
	}
	e := Explanation{Key: key, Partition: p.Number, State: "none", Filled: s.Filled, Groups: s.Groups}
	stored, err := message.ParseEntry(s.Value)
	switch {
	case s.Lost, s.Exists && err != nil:
		e.State = "lost"
	case s.Exists && stored.Gone:
		e.State = "tombstone"
	case s.Exists:
		e.State, e.Variants = "entry", len(stored.Variants)
		for i, one := range stored.Representations() {
			if i == 0 {
				e.Status = one.Status
			}
			e.Bytes += len(one.Body)
		}
	}
	if s.Exists && err == nil {
		e.Ticket, e.Written = stored.Ticket, ticketTime(stored.Ticket)
		e.Job, e.Why, e.Refusal, e.PushOnly = stored.Job, stored.Why, stored.Refusal, stored.PushOnly
	}
	e.work(&s)
	return e, nil
}

// work adds what is to come and what has failed.
func (e *Explanation) work(s *partition.Status) {
	if s.Pending {
		e.Pending = &PendingRender{Since: redisTime(s.Since), Due: redisTime(s.Due), Job: s.Cause.Job, Why: s.Cause.Why}
	}
	if s.Running {
		cause := s.Claim.Cause
		e.Running = &RunningRender{Since: ticketTime(s.Claim.Ticket), Until: redisTime(s.Until), Job: cause.Job, Why: cause.Why}
	}
	if s.Failures > 0 {
		e.Failure = &FailedRender{Count: s.Failures, At: redisTime(s.FailedAt), Error: s.Error}
	}
}

// redisTime returns a time of Redis's clock; 0 is none.
func redisTime(microseconds int64) time.Time {
	if microseconds == 0 {
		return time.Time{}
	}
	return time.UnixMicro(microseconds).UTC()
}

// ticketTime returns the time at which a ticket was taken. Where Redis's clock was put back, tickets are ahead of it.
func ticketTime(ticket string) time.Time { return redisTime(partition.Microseconds(ticket)) }

// A Backlog is the renders that are to be made. Counts and times are those of a moment, for each partition another.
type Backlog struct {
	Pending int           // keys that need a render and that nobody renders
	Due     int           // of these, the ones whose time has come; the others have failed and wait
	Age     time.Duration // for how long the one that was due first has been due
	Running int           // keys that are being rendered
	Failing int           // keys whose last render failed

	// Groups are those that have changed and have members which have not been made pending yet, because those before are
	// still being rendered. GroupsAge is for how long the oldest of these changes has waited for that; of a group that changes
	// all the time it may be too high, by no more than it takes to come through its members once.
	Groups    int
	GroupsAge time.Duration
}

// Backlog returns the renders that are to be made. It is cheap enough to be called every second.
func (c *Cache) Backlog(ctx context.Context) (Backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	var all Backlog
	for _, p := range c.store.All() {
		b, err := p.Backlog(ctx)
		if err != nil {
			return Backlog{}, c.unavailable(err)
		}
		all.Pending += int(b.Pending)
		all.Due += int(b.Due)
		all.Running += int(b.Running)
		all.Failing += int(b.Failing)
		all.Groups += int(b.Walks)
		all.Age = max(all.Age, time.Duration(b.Overdue)*time.Microsecond)
		all.GroupsAge = max(all.GroupsAge, time.Duration(b.WalkAge)*time.Microsecond)
	}
	return all, nil
}

// A FailingKey is a key whose last render failed. Its last good entry stays, and it is tried again.
type FailingKey struct {
	Key string
	FailedRender
}

// Failing iterates over the keys whose last render failed, in no order. A key may come twice if others come or go
// meanwhile. An error ends the iteration.
func (c *Cache) Failing(ctx context.Context) iter.Seq2[FailingKey, error] {
	const page = 500
	return func(yield func(FailingKey, error) bool) {
		for _, p := range c.store.All() {
			for cursor, begun := uint64(0), false; cursor != 0 || !begun; begun = true {
				failures, next, err := p.Failing(ctx, cursor, page)
				if err != nil {
					yield(FailingKey{}, c.unavailable(err))
					return
				}
				for _, f := range failures {
					if !yield(FailingKey{f.Key, FailedRender{f.Failures, redisTime(f.FailedAt), f.Error}}, nil) {
						return
					}
				}
				cursor = next
			}
		}
	}
}

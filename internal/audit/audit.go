// Package audit finds out whether cache and application agree on a key, beside everything that changes one of them.
//
// It tells a difference that nothing explains from one that is on its way: a job that has changed the application, a
// render that is pending or running, or a group that is walked will end it.
package audit

import (
	"context"
	"slices"
	"time"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A Kind is what an audit finds out about a key.
type Kind string

// What an audit finds out about a key. Missing, Stale and Orphaned are drift.
const (
	Current      Kind = ""             // cache and application agree, or agree that there is nothing
	Pushed       Kind = "pushed"       // the entry is push-only and cannot be compared
	Missing      Kind = "missing"      // the application answers with a page, the cache has none
	Stale        Kind = "stale"        // the cache has another page, or has it in other groups
	Orphaned     Kind = "orphaned"     // the cache has a page, the application answers that there is none to be stored
	Unrenderable Kind = "unrenderable" // the application gave nothing usable, so nobody can say
	Unsettled    Kind = "unsettled"    // the patience ended before the difference counted
	NotStorable  Kind = "refused"      // the application's answer must not be stored, and the cache has none
)

// Drift reports whether it is a difference that nothing explains.
func (k Kind) Drift() bool { return k == Missing || k == Stale || k == Orphaned }

// A Finding is what an audit has found out about a key.
type Finding struct {
	Kind    Kind
	Reason  string // why, to be shown to people
	Written int64  // when what the cache has was written, in µs of Redis's clock; 0 if it has nothing
	Answer  string // what the application answered, as an entry or a tombstone; "" if that was nothing usable
}

// Config shapes an Auditor. Status, Look and Jobs are required, and are called concurrently. Where one of them returns an
// error, the comparison ends with it.
type Config struct {
	// Status returns everything that the cache has about a key, read in one atomic step.
	Status func(ctx context.Context, key string) (partition.Status, error)

	// Look asks the application for a key and stores nothing, as Renderer.Look does.
	Look func(ctx context.Context, key string) (partition.Operation, render.Result)

	// Jobs returns the ids of the oldest and of the newest job that has not ended, "" if there is none. They have the form of
	// package streamid, and a later job has a higher one. A job begins before it changes the application. When it ends, what
	// it owes to the cache is done or pending.
	Jobs func(ctx context.Context) (oldest, newest string, err error)

	// Patience is how long a difference that jobs or renders explain is looked at again, from the first look on.
	Patience time.Duration

	// Settling is how long a difference lasts at least. It is for changes that no job makes.
	Settling time.Duration

	// Pause is the time between two looks at a difference. Jobs may be taken to have gone on for half as long as they did.
	Pause time.Duration
}

// An Auditor compares a cache with an application. It is safe for concurrent use.
type Auditor struct {
	config Config
	jobs   watch
}

// New returns an auditor.
func New(config Config) *Auditor {
	return &Auditor{config: config, jobs: watch{span: config.Jobs, keep: config.Pause / 2}}
}

// Compare finds out whether cache and application agree on a key. A difference counts if it was there, the same, in two
// looks, if no render was under way at any time of the second, and if all jobs that there were at the first had ended
// before:
//
//	a job changes the database
//	audit: the cache has version 1, the application answers version 2
//	the job ends; what it owes is rendered before
//	audit, after that: version 2 is there; were it not, no job is left that would bring it
//
// A page that was written since the comparison began shows what the application answered since then.
//
// The error is that of ctx, or of what was asked.
func (a *Auditor) Compare(ctx context.Context, key string) (Finding, error) {
	var (
		first, last *observation
		began       int64 // the last ticket then
		repeated    bool  // the application has answered the same twice in a row
	)
	for {
		ended := false // before this look: a job that ends during it may have changed what it sees
		var err error
		if last != nil {
			if ended, err = a.jobs.ended(ctx, last.jobs); err != nil {
				return Finding{}, err
			}
		}
		o, clock, err := a.observe(ctx, key)
		if err != nil {
			return Finding{}, err
		}
		if first == nil {
			first, began = o, clock
		}
		finding := o.judge()
		lasts := o.at.Sub(first.at) >= a.config.Settling
		switch {
		case finding.Kind == Current, finding.Kind == Pushed, finding.Kind == NotStorable:
			return finding, nil
		case finding.Written > began && finding.Kind != Unrenderable:
			finding.Kind, finding.Reason = Current, ""
			return finding, nil
		case lasts && finding.Kind == Unrenderable, lasts && ended && o.idle && last.same(o):
			return finding, nil
		}
		repeated = repeated || last != nil && last.answer.Value == o.answer.Value
		if time.Since(first.at) > a.config.Patience {
			finding.Kind = Unsettled
			if repeated {
				finding.Reason += "; a write that explains it has not ended"
			} else {
				finding.Reason += "; the application never answers the same twice"
			}
			return finding, nil
		}
		if o.jobs, err = a.jobs.newest(ctx); err != nil {
			return Finding{}, err
		}
		last = o
		select {
		case <-time.After(a.config.Pause):
		case <-ctx.Done():
			return Finding{}, context.Cause(ctx)
		}
	}
}

// An observation is a look at a key: what the cache had and what the application answered.
type observation struct {
	status partition.Status // after the application was asked
	idle   bool             // before, too
	answer partition.Operation
	result render.Result
	jobs   string // the newest job after that; "" if there was none
	at     time.Time
}

// observe looks at a key. It returns the last ticket from before.
func (a *Auditor) observe(ctx context.Context, key string) (*observation, int64, error) {
	before, err := a.config.Status(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	o := new(observation)
	o.answer, o.result = a.config.Look(ctx, key)
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if o.status, err = a.config.Status(ctx, key); err != nil {
		return nil, 0, err
	}
	o.idle = before.Idle() && o.status.Idle()
	o.at = time.Now()
	return o, before.Clock, nil
}

// same reports whether nothing has changed from one look to another.
func (o *observation) same(other *observation) bool {
	return o.status.Value == other.status.Value && o.status.Exists == other.status.Exists &&
		slices.Equal(o.status.Groups, other.status.Groups) && o.status.Listed == other.status.Listed &&
		o.answer.Kind == other.answer.Kind && o.answer.Value == other.answer.Value && slices.Equal(o.answer.Groups, other.answer.Groups)
}

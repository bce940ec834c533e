package scales

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/streamid"
)

const (
	// pushed is the kind of an entry that cannot be compared.
	pushed DriftKind = "pushed"

	// lookAgain is the time between two looks at a difference.
	lookAgain = 50 * time.Millisecond
)

// An observation is a look at a key: what the cache had and what the application answered.
type observation struct {
	status partition.Status // after the application was asked
	idle   bool             // before, too
	answer partition.Operation
	result render.Result
	jobs   string // the newest job in the queue after that; "" if there was none
	at     time.Time
}

// same reports whether nothing has changed from one look to another.
func (o *observation) same(other *observation) bool {
	return o.status.Value == other.status.Value && o.status.Exists == other.status.Exists &&
		slices.Equal(o.status.Groups, other.status.Groups) && o.status.Listed == other.status.Listed &&
		o.answer.Kind == other.answer.Kind && o.answer.Value == other.answer.Value && slices.Equal(o.answer.Groups, other.answer.Groups)
}

// compare finds out whether cache and application agree on a key. A difference counts if it was there, the same, in two
// looks, if no render was under way at any time of the second, and if all jobs that there were at the first had ended
// before:
//
//	a job changes the database
//	verify: the cache has version 1, the application answers version 2
//	the job ends; what it owes is rendered before
//	verify, after that: version 2 is there; were it not, no job is left that would bring it
//
// A page that was written since the comparison began shows what the application answered since then.
func (v *verification) compare(ctx context.Context, key string) (Finding, found, error) {
	var (
		first, last *observation
		began       int64 // the last ticket then
		repeated    bool  // the application has answered the same twice in a row
	)
	for {
		ended := false // before this look: a job that ends during it may have changed what it sees
		var err error
		if last != nil {
			if ended, err = v.queue.ended(ctx, last.jobs); err != nil {
				return Finding{}, found{}, err
			}
		}
		o, clock, err := v.observe(ctx, key)
		if err != nil {
			return Finding{}, found{}, err
		}
		if first == nil {
			first, began = o, clock
		}
		finding, known := o.judge(key)
		lasts := o.at.Sub(first.at) >= v.config.settling
		switch {
		case finding.Kind == "", finding.Kind == pushed, finding.Kind == NotStorable:
			return finding, known, nil
		case known.written > began && finding.Kind != Unrenderable:
			return Finding{Key: key}, known, nil
		case lasts && finding.Kind == Unrenderable, lasts && ended && o.idle && last.same(o):
			return finding, known, nil
		}
		repeated = repeated || last != nil && last.answer.Value == o.answer.Value
		if time.Since(first.at) > v.config.patience {
			finding.Kind = Unsettled
			if repeated {
				finding.Reason += "; a write that explains it has not ended"
			} else {
				finding.Reason += "; the application never answers the same twice"
			}
			return finding, known, nil
		}
		if o.jobs, err = v.queue.newest(ctx); err != nil {
			return Finding{}, found{}, err
		}
		last = o
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return Finding{}, found{}, context.Cause(ctx)
		}
	}
}

// observe looks at a key. It returns the last ticket from before.
func (v *verification) observe(ctx context.Context, key string) (*observation, int64, error) {
	before, err := v.status(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	o := new(observation)
	o.answer, o.result = v.worker.renderer.Look(ctx, key)
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if o.status, err = v.status(ctx, key); err != nil {
		return nil, 0, err
	}
	o.idle = before.Idle() && o.status.Idle()
	o.at = time.Now()
	return o, before.Clock, nil
}

// judge compares what the cache had with what the application answered.
func (o *observation) judge(key string) (Finding, found) {
	stored, err := message.ParseEntry(o.status.Value)
	entry := o.status.Exists && (err != nil || !stored.Gone)
	known := found{answer: o.answer.Value}
	if err == nil {
		known.written = partition.Microseconds(stored.Ticket)
	}
	finding := func(kind DriftKind, format string, args ...any) (Finding, found) {
		return Finding{Key: key, Kind: kind, Reason: fmt.Sprintf(format, args...)}, known
	}
	switch {
	case entry && err == nil && stored.PushOnly:
		return finding(pushed, "")
	case o.result.State == render.Failed:
		return finding(Unrenderable, "%s", o.result.Reason)
	case o.result.State == render.Refused && entry:
		return finding(Orphaned, "the application's answer must not be stored: %s", o.result.Reason)
	case o.result.State == render.Refused:
		return finding(NotStorable, "%s", o.result.Reason)
	case o.result.State == render.Destroyed && (entry || o.status.Lost):
		return finding(Orphaned, "the application has no such resource")
	case o.result.State == render.Destroyed:
		return Finding{Key: key}, known
	case o.status.Lost:
		return finding(Missing, "the entry was lost")
	case !entry:
		return finding(Missing, "there is no entry")
	case err != nil:
		return finding(Stale, "the entry cannot be decoded: %v", err)
	case !o.status.Indexed:
		return finding(Stale, "the entry is not in the index")
	}
	if difference := o.differs(stored); difference != "" {
		return finding(Stale, "%s", difference)
	}
	return Finding{Key: key}, known
}

// differs says how an entry differs from what the application answered; "" if it does not.
func (o *observation) differs(stored *message.Entry) string {
	asked, err := message.ParseEntry(o.answer.Value)
	switch {
	case err != nil:
		return err.Error() // a render could not store it either
	case asked.Status != stored.Status:
		return fmt.Sprintf("status %d, the application answers %d", stored.Status, asked.Status)
	case !bytes.Equal(asked.Body, stored.Body):
		return "the body differs"
	}
	for name := range asked.Header {
		if !reflect.DeepEqual(asked.Header[name], stored.Header[name]) {
			return fmt.Sprintf("%s: %q, the application answers %q", name,
				strings.Join(stored.Header[name], ", "), strings.Join(asked.Header[name], ", "))
		}
	}
	for name := range stored.Header {
		if _, ok := asked.Header[name]; !ok {
			return fmt.Sprintf("%s: %q, which the application does not send", name, strings.Join(stored.Header[name], ", "))
		}
	}
	switch {
	case !slices.Equal(slices.Sorted(slices.Values(o.answer.Groups)), slices.Sorted(slices.Values(o.status.Groups))):
		return fmt.Sprintf("it is in the groups %q, the application says %q", o.status.Groups, o.answer.Groups)
	case o.status.Listed != len(o.status.Groups):
		return fmt.Sprintf("%d of its groups %q have it among their members", o.status.Listed, o.status.Groups)
	}
	return ""
}

// A jobWatch tells which jobs are in the queue, without asking Redis for every key.
type jobWatch struct {
	cache  *Cache
	prefix string

	mu       sync.Mutex
	asked    time.Time // before Redis was asked
	oldest   string    // "" if there is none
	youngest string
}

// newest returns the id of the newest job that was there at the time of the call, or of a later one; "" if there was none.
func (w *jobWatch) newest(ctx context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask(ctx); err != nil {
		return "", err
	}
	return w.youngest, nil
}

// ended reports whether a job and all that came before it have ended.
func (w *jobWatch) ended(ctx context.Context, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.asked) > lookAgain/2 {
		if err := w.ask(ctx); err != nil {
			return false, err
		}
	}
	return id == "" || w.oldest == "" || streamid.Less(id, w.oldest), nil
}

// ask asks Redis. The caller holds mu.
func (w *jobWatch) ask(ctx context.Context) error {
	at := time.Now()
	oldest, newest, err := jobqueue.Span(ctx, w.cache.rdb, w.prefix)
	if err != nil {
		return w.cache.unavailable(err)
	}
	w.asked, w.oldest, w.youngest = at, oldest, newest
	return nil
}

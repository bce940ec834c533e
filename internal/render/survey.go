package render

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/representation"
	"github.com/itscales/scales/internal/variant"
)

// survey asks the application for a key: for its first variant, and then for those among which the answers say that fields
// select. So what does not depend on any field is asked for once.
//
// It has one slot, when there is one, and the time of one render, from then on. Others that are free are used as well, and not
// waited for.
func (r *Renderer) survey(ctx context.Context, key string, how asking) answer {
	if err := r.takeSlot(ctx, how.at, how.patience); err != nil {
		return failure("%v", err)
	}
	timed, cancel := context.WithTimeoutCause(r.config.Mark(ctx), r.config.Timeout,
		fmt.Errorf("no answer within %v (option RenderTimeout)", r.config.Timeout))
	defer cancel()
	asking, end := context.WithCancel(timed)
	defer end()
	s := survey{renderer: r, ctx: asking, end: end, key: key, answers: make([]*answer, r.config.Vary.Count())}
	fields, numbers, failed, kept := s.run()
	if !kept {
		r.slots.give()
	}
	if failed != nil {
		return *failed
	}
	all := make([]answer, len(numbers))
	for i, n := range numbers {
		all[i] = *s.answers[n]
	}
	joined := r.join(key, fields, all)
	if joined.verdict == field.Store {
		for _, one := range joined.entry.Representations() {
			representation.Complete(one, how.codings)
		}
	}
	return joined
}

// takeSlot waits for a slot. A patience of 0 is that of ctx.
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

// A survey is the questions for all variants of a key.
type survey struct {
	renderer *Renderer
	ctx      context.Context
	end      context.CancelFunc // of ctx
	key      string

	mu      sync.Mutex
	answers []*answer // by the number of the variant; nil where nothing was asked
	missing []int     // variants that are to be asked for
	size    int       // of all bodies
	failed  *answer   // the first one that is that of the whole key
}

// run asks until nothing is missing: fields are those that select, and numbers their variants. Where an answer is that of the
// whole key, because it is a failure or a refusal, it returns that instead. kept is true if its slot is the handler's to give.
func (s *survey) run() (fields variant.Fields, numbers []int, failed *answer, kept bool) {
	declared := s.renderer.config.Vary
	selecting := make([]bool, len(declared))
	for {
		fields, numbers = declared.Within(selecting)
		s.missing = slices.DeleteFunc(slices.Clone(numbers), func(n int) bool { return s.answers[n] != nil })
		if len(s.missing) == 0 {
			return fields, numbers, nil, false
		}
		if kept = s.round(); s.failed != nil {
			return nil, nil, s.failed, kept
		}
		for _, a := range s.answers {
			if a == nil {
				continue
			}
			for _, name := range a.selecting {
				if i := declared.Index(name); i >= 0 {
					selecting[i] = true
				}
			}
		}
	}
}

// round asks for what is missing, with the slot that the survey has and with some of those that nobody needs.
func (s *survey) round() (kept bool) {
	slots := s.renderer.slots
	var others sync.WaitGroup
	for range len(s.missing) - 1 {
		if !slots.spare() {
			break
		}
		others.Go(func() {
			for more := true; more; more = more && slots.spare() {
				var kept bool
				if more, kept = s.work(); kept {
					return
				}
				slots.give() // to who waits for one, if there is somebody
			}
		})
	}
	for more := true; more && !kept; {
		more, kept = s.work()
	}
	others.Wait()
	return kept
}

// work asks for one variant with a slot. It returns whether more are missing, and whether the slot is the handler's to give.
func (s *survey) work() (more, kept bool) {
	s.mu.Lock()
	if s.failed != nil || len(s.missing) == 0 {
		s.mu.Unlock()
		return false, false
	}
	n := s.missing[0]
	s.missing = s.missing[1:]
	s.mu.Unlock()
	a, kept := s.renderer.askVariant(s.ctx, s.key, n)
	s.note(n, a)
	return true, kept
}

func (s *survey) note(n int, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.renderer.config.MaxEntry
	if a.verdict == field.Store {
		if s.size += len(a.entry.Body); s.size > limit {
			a = answer{verdict: field.Refuse, reason: tooLarge(limit) + " in all its variants"}
		}
	} else if n > 0 && a.verdict != field.Destroy {
		a.reason += " (" + s.renderer.config.Vary.String(n) + ")"
	}
	s.answers[n] = &a
	if s.failed == nil && (a.verdict == field.Retry || a.verdict == field.Refuse) {
		s.failed = &a
		s.end()
	}
}

// join makes one answer of those for all variants, each to be stored or that there is no such resource.
func (r *Renderer) join(key string, fields variant.Fields, answers []answer) answer {
	joined := answer{verdict: field.Destroy, entry: &message.Entry{Vary: fields, Variants: make([]*message.Entry, len(answers))}}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	for i, a := range answers {
		if a.verdict != field.Store {
			continue
		}
		if len(names) > 0 {
			field.Merge(a.entry.Header, http.Header{"Vary": names}) // each has to say it, for caches on the way
		}
		joined.verdict, joined.entry.Variants[i] = field.Store, a.entry
		joined.groups = append(joined.groups, a.groups...)
	}
	if len(answers) == 1 || joined.verdict == field.Destroy {
		return answers[0]
	}
	slices.Sort(joined.groups)
	if joined.groups = slices.Compact(joined.groups); len(joined.groups) > field.MaxGroups {
		r.config.Logger.Warn("scales: a page is in no group", "key", key,
			"error", fmt.Sprintf("its variants are in %d groups, at most %d count", len(joined.groups), field.MaxGroups))
		joined.groups = nil
	}
	return joined
}

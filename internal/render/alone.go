package render

import (
	"context"
	"net/http"
	"slices"

	"github.com/itscales/scales/internal/partition"
)

// Guarded is an application whose worker does without single safeguards. It is how a test or a benchmark reaches the
// guards of a worker through the public face. Programs cannot: they cannot name the type.
type Guarded struct {
	http.Handler
	Guards Guards
}

// GuardsOf returns the guards that come with an application, which are none but for one that is Guarded.
func GuardsOf(app http.Handler) Guards {
	guarded, _ := app.(Guarded)
	return guarded.Guards
}

// performAlone is Perform without sharing: each need costs a render, whoever else needs the key at that moment. No claim
// is asked for or waited for; the tickets still order the commits.
func (r *Renderer) performAlone(ctx context.Context, work Work) ([]Result, error) {
	done := make(chan []Result, 1)
	r.work.Go(func() {
		needs := slices.Concat(work.Needs, r.performOwn(nil, work.Writes))
		indexes := make([]int, len(needs))
		for i := range indexes {
			indexes[i] = i
		}
		results := make([]Result, len(needs))
		each(indexes, func(i int) { results[i] = r.renderAlone(needs[i]) })
		done <- results[:len(work.Needs)]
	})
	select {
	case results := <-done:
		if r.stopped.Err() != nil {
			return nil, errClosed
		}
		return results, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// renderAlone renders a key: it takes a ticket, asks the application, commits, in this order.
func (r *Renderer) renderAlone(need Need) Result {
	p := r.config.Store.Of(need.Key)
	reason := ""
	for range attempts {
		position, err := p.Ticket(r.stopped)
		if err != nil {
			reason = err.Error()
			r.wait(firstBackoff)
			continue
		}
		op, result := r.askOne(partition.Due{Key: need.Key, Position: position}, inFront)
		op.Limited = need.Limited
		commit, err := r.commit(p, []partition.Operation{op})
		if err != nil {
			return Result{need.Key, Failed, err.Error()}
		}
		if !commit.Outcomes[0].Again() {
			return r.conclude(result, commit.Outcomes[0])
		}
		reason = "its ticket was refused"
	}
	return Result{need.Key, Failed, reason}
}

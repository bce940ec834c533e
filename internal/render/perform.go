package render

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/itscales/scales/internal/partition"
)

// A Need is a key to be rendered.
type Need struct {
	Key string `json:"key"`

	// Limited is true where a request brought the key up, rather than the application.
	Limited bool `json:"limited,omitempty"`

	// Why it is to be rendered, to be shown to people: "target", "group tracks".
	Why string `json:"why,omitempty"`

	behind bool // it waits for a slot behind the needs that requests name
}

// Work is what one job, or one program, wants done to the cache.
type Work struct {
	// Job is the id of the job, "" if there is none.
	Job string

	// Needs are rendered. No key twice.
	Needs []Need

	// Groups have changed: their members are rendered, up to the limit of the Renderer before Perform returns, and the
	// others in the background.
	Groups []string

	// Writes are committed together with the renders. The ones that turn out to be superseded are rendered instead.
	Writes []partition.Operation
}

// Rendered returns the work with renders in the place of its writes.
func (w Work) Rendered() Work {
	needs := make([]Need, len(w.Writes))
	for i, op := range w.Writes {
		needs[i] = Need{Key: op.Key, Why: op.Cause.Why}
	}
	return Work{Job: w.Job, Needs: join(w.Needs, needs), Groups: w.Groups}
}

// join returns the needs and further ones, no key twice.
func join(needs, further []Need) []Need {
	joined, there := slices.Clone(needs), make(map[string]bool, len(needs))
	for _, need := range needs {
		there[need.Key] = true
	}
	for _, need := range further {
		if !there[need.Key] {
			there[need.Key] = true
			joined = append(joined, need)
		}
	}
	return joined
}

const (
	// attempts bounds how often a render is made again because its ticket was refused.
	attempts = 5

	// recheck is how long a waiter trusts the change log to tell it of a render elsewhere.
	recheck = time.Second

	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
)

// Perform does the work and returns when all of it can be seen in the cache, with a result for each need and for each
// member of a group that was rendered. What it renders itself becomes visible together with the writes, in one step per
// partition; for keys that others are rendering it waits for the next render. Outages of Redis are waited for. When ctx
// ends first, the renders go on without the caller. When the renderer is closed, that is the error, and nobody knows what
// was done.
func (r *Renderer) Perform(ctx context.Context, work Work) ([]Result, error) {
	if !r.enter() {
		return nil, errClosed
	}
	defer r.work.Done()
	if len(work.Groups) > 0 {
		return r.performGroups(ctx, work)
	}
	needs := work.Needs
	if r.config.Guards.NoSharing {
		return r.performAlone(ctx, Work{Needs: needs, Writes: work.Writes})
	}
	var leads, waits []*flight
	for _, need := range needs {
		f, lead, follow := r.share.join(need, work.Job)
		waits = append(waits, f)
		switch {
		case lead:
			leads = append(leads, f)
		case follow != nil:
			r.work.Go(func() {
				select {
				case <-follow.done:
				case <-r.stopped.Done():
				}
				r.pursue(f, partition.Claim{}, r.asking())
			})
		}
	}
	if len(leads)+len(work.Writes) > 0 {
		own := make(chan []Need, 1)
		r.work.Go(func() { own <- r.performOwn(leads, work.Writes) })
		select {
		case again := <-own:
			if len(again) > 0 {
				if results, err := r.Perform(ctx, Work{Job: work.Job, Needs: again}); err != nil {
					return results, err
				}
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	results := make([]Result, len(waits))
	for i, f := range waits {
		select {
		case <-f.done:
			results[i] = f.result
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if r.stopped.Err() != nil {
		return nil, errClosed
	}
	return results, nil
}

// Reach returns how far the change logs have come in the partitions of work that Perform has done, with the results it has
// given: who has read them up to there sees all of it.
func (r *Renderer) Reach(work Work, results []Result) partition.Reach {
	if len(work.Groups) > 0 {
		return r.config.Store.Reach() // a group may have members anywhere
	}
	keys := make([]string, 0, len(results)+len(work.Writes))
	for _, result := range results {
		keys = append(keys, result.Key)
	}
	for _, op := range work.Writes {
		keys = append(keys, op.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	return r.config.Store.Reach(keys...)
}

// Stamp gives the writes that come to stay where they are the last, OpOverwrite and OpErase, their place in the order: a
// ticket each. It is called before the work is recorded anywhere, so that doing the work twice, late, or by another
// process does not undo what has followed it.
func (r *Renderer) Stamp(ctx context.Context, work *Work) error {
	return Stamp(ctx, r.config.Store, work.Writes)
}

// Stamp is Renderer.Stamp for whoever has no renderer.
func Stamp(ctx context.Context, store *partition.Store, writes []partition.Operation) error {
	for i := range writes {
		op := &writes[i]
		if op.Kind != partition.OpOverwrite && op.Kind != partition.OpErase || op.Ticket != "" {
			continue
		}
		position, err := store.Of(op.Key).Ticket(ctx)
		if err != nil {
			return err
		}
		op.Position = position
	}
	return nil
}

// batchOf is the part of the work that lies in one partition.
type batchOf struct {
	partition *partition.Partition
	leads     []*flight
	writes    []partition.Operation

	mine       []*flight // those of leads whose claim was granted
	operations []partition.Operation
	results    []Result
}

// performOwn claims the flights, renders what was granted and commits that together with the writes. Flights that others
// hold are pursued in the background. It returns the keys of writes that were superseded.
func (r *Renderer) performOwn(leads []*flight, writes []partition.Operation) []Need {
	r.share.seal(leads...)
	batches := r.split(leads, writes)
	each(batches, r.claimAndAsk)
	var (
		mu    sync.Mutex
		again []Need
	)
	each(batches, func(b *batchOf) {
		superseded := r.commitBatch(b)
		mu.Lock()
		defer mu.Unlock()
		again = append(again, superseded...)
	})
	return again
}

func (r *Renderer) split(leads []*flight, writes []partition.Operation) []*batchOf {
	var batches []*batchOf
	byPartition := make(map[*partition.Partition]*batchOf)
	of := func(key string) *batchOf {
		p := r.config.Store.Of(key)
		if byPartition[p] == nil {
			byPartition[p] = &batchOf{partition: p}
			batches = append(batches, byPartition[p])
		}
		return byPartition[p]
	}
	for _, f := range leads {
		b := of(f.key)
		b.leads = append(b.leads, f)
	}
	for _, op := range writes {
		b := of(op.Key)
		b.writes = append(b.writes, op)
	}
	return batches
}

// each calls do for all items at once.
func each[T any](items []T, do func(T)) {
	if len(items) == 1 {
		do(items[0])
		return
	}
	var group sync.WaitGroup
	for _, item := range items {
		group.Go(func() { do(item) })
	}
	group.Wait()
}

func (r *Renderer) claimAndAsk(b *batchOf) {
	if len(b.leads) == 0 {
		return
	}
	wishes := make([]partition.Wish, len(b.leads))
	for i, f := range b.leads {
		wishes[i] = partition.Wish{Key: f.key, Token: r.asking(), Cause: f.cause}
	}
	claims, errs := b.partition.ClaimAll(r.stopped, wishes)
	var granted []partition.Due
	for i, f := range b.leads {
		switch {
		case errs[i] == nil && claims[i].Granted == partition.Claimed:
			due := partition.Due{Key: f.key, Position: claims[i].Position, Cause: f.cause}
			b.mine = append(b.mine, f)
			granted = append(granted, due)
			r.hold(b.partition, due)
			r.asked(wishes[i].Token)
		case errs[i] == nil && claims[i].Granted == partition.Pushed:
			r.asked(wishes[i].Token)
			r.share.land(f, Result{Key: f.key, State: Pushed})
		default:
			// After an error the claim is the zero one, and the pursuit asks again with the same token: the first
			// time may have been granted.
			claim, token := claims[i], wishes[i].Token
			r.work.Go(func() { r.pursue(f, claim, token) })
		}
	}
	b.operations, b.results = r.askAll(granted, b.mine)
	for i, f := range b.mine {
		b.operations[i].Limited = f.limited
	}
}

// askAll renders keys whose claims are held for these flights, as many at once as there are slots.
func (r *Renderer) askAll(granted []partition.Due, flights []*flight) ([]partition.Operation, []Result) {
	operations, results := make([]partition.Operation, len(granted)), make([]Result, len(granted))
	indexes := make([]int, len(granted))
	for i := range indexes {
		indexes[i] = i
	}
	each(indexes, func(i int) { operations[i], results[i] = r.askOne(granted[i], flights[i].at) })
	return operations, results
}

// askOne renders a key whose claim is held. at is where it waits for a slot.
func (r *Renderer) askOne(due partition.Due, at int) (partition.Operation, Result) {
	r.pause(AfterClaim, due.Key)
	defer r.pause(AfterRender, due.Key)
	// Where handlers that ignore their context hold all slots for long, it fails, so that another process gets the key.
	return r.ask(r.stopped, due, asking{at: at, patience: r.config.Timeout, codings: r.config.Codings})
}

func (r *Renderer) pause(at Moment, key string) {
	if r.config.Pause != nil {
		r.config.Pause(r.stopped, at, key)
	}
}

// commitBatch commits renders and writes of one partition in one step.
func (r *Renderer) commitBatch(b *batchOf) (superseded []Need) {
	operations := append(b.operations, b.writes...)
	if len(operations) == 0 {
		return nil
	}
	commit, err := r.commitParts(b.partition, operations)
	for i, f := range b.mine {
		r.release(operations[i])
		switch {
		case err != nil:
			r.share.land(f, Result{f.key, Failed, err.Error()})
		case commit.Outcomes[i].Again():
			r.work.Go(func() { r.pursue(f, partition.Claim{}, r.asking()) })
		default:
			r.share.land(f, r.conclude(b.results[i], commit.Outcomes[i]))
		}
		r.pause(AfterCommit, f.key)
	}
	for i, op := range b.writes {
		if err != nil || overtaken(op, commit.Outcomes[len(b.mine)+i]) {
			superseded = append(superseded, Need{Key: op.Key, Why: op.Cause.Why})
		}
	}
	return superseded
}

// overtaken reports whether a write has to be replaced by a render: something newer is there than what was known when
// it was made. A write with an exact ticket that finds a higher one has simply been followed by another.
func overtaken(op partition.Operation, outcome partition.Outcome) bool {
	inexact := op.Kind == partition.OpPush || op.Kind == partition.OpRemove
	return outcome.Again() || inexact && outcome == partition.Superseded
}

// commitParts is commit for operations of any number and size. What is too much for one step becomes several.
func (r *Renderer) commitParts(p *partition.Partition, operations []partition.Operation) (all partition.Commit, err error) {
	for part := range partition.Parts(operations) {
		commit, err := r.commit(p, part)
		if err != nil {
			return all, err
		}
		all.Outcomes, all.Tail = append(all.Outcomes, commit.Outcomes...), commit.Tail
	}
	return all, nil
}

// commit commits operations, however long Redis is away. Doing it twice does no harm. The error is that the renderer was
// closed, or that the partition is laid out otherwise.
func (r *Renderer) commit(p *partition.Partition, operations []partition.Operation) (commit partition.Commit, err error) {
	err = r.insist(r.stopped, func() error {
		commit, err = p.Commit(r.stopped, operations)
		return err
	})
	return commit, err
}

// insist does something however long Redis is away, until ctx ends or the renderer is closed, or the partition is laid out
// otherwise.
func (r *Renderer) insist(ctx context.Context, do func() error) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := do()
		if r.stopped.Err() == nil {
			r.config.Writing.Note(ctx, err)
		}
		switch {
		case err == nil, errors.Is(err, partition.ErrLayout):
			return err
		case r.stopped.Err() != nil:
			return errClosed
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		r.wait(backoff)
	}
}

func (r *Renderer) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.stopped.Done():
	}
}

// conclude turns the outcome of a commit into the result that its key had.
func (r *Renderer) conclude(result Result, outcome partition.Outcome) Result {
	if outcome == partition.Full {
		result = Result{result.Key, Refused, "the cache holds as many entries as it may (option MaxEntries)"}
	}
	switch result.State {
	case Failed:
		r.config.Logger.Warn("scales: a render failed and will be tried again", "key", result.Key, "reason", result.Reason)
	case Refused:
		r.config.Logger.Warn("scales: a resource cannot be stored", "key", result.Key, "reason", result.Reason)
	}
	return result
}

package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A FillState is how far a fill has come.
type FillState struct {
	Keys    int // worked on
	Stored  int
	Resumed int // of Stored: rendered by an earlier fill that did not end, or by a write since that began
	Refused int // the application's answer must not be stored, or it has no such resource (any more)
	Failed  int // the application gave nothing usable
	Elapsed time.Duration
}

// A FillReport is what came of a fill.
type FillReport struct {
	FillState

	// Problems names every key that was refused or failed, and why.
	Problems []FillProblem
}

// A FillProblem is a key that has no entry after a fill, or an old one.
type FillProblem struct {
	Key     string
	Refused bool // rather than failed
	Reason  string
}

// Fill renders every key of the sequence, several at once, and then marks the cache as filled: from then on a miss is a
// true 404. It may run beside servers and workers, and beside other fills, and needs no Run of this worker. FollowLinks
// has it render what the resources lead to as well.
//
// The cache is marked only if no key has failed; otherwise the error is ErrFillIncomplete. A key that was refused is not a
// failure, and neither is an entry that the application cannot render because it was pushed. The fill ends early, with the
// report so far, when ctx ends or when the sequence yields an error. Where Redis has lost the cache meanwhile, that shows
// at the end, and the error is ErrNotFilled. What it has stored remains.
//
// A fill leaves a record in Redis when it begins, and removes it when it marks the cache. So one that was killed, or that
// ended with an error or with failed keys, is gone on with by the next: a key whose entry was asked for since the first
// began is counted as stored, and is not rendered again; it has been kept current since then. What is missing, has failed,
// was refused or was lost is rendered. FillAnew has everything rendered; after a deployment that changes pages it is
// needed. Fills that run at the same time share the record, and each marks the cache when its own keys are there.
func (w *Worker) Fill(ctx context.Context, keys iter.Seq2[string, error], opts ...FillOption) (FillReport, error) {
	config := fillConfig{walk: defaultWalkConfig(), parallel: 4 * w.config.render.concurrency}
	for _, o := range opts {
		o.applyFill(&config)
	}
	if err := config.validate(); err != nil {
		return FillReport{}, err
	}
	begun, err := w.cache.beginFill(ctx, config.anew)
	if err != nil {
		return FillReport{}, err
	}
	doubts, err := w.cache.doubts(ctx)
	if err != nil {
		return FillReport{}, err
	}
	f := &fill{worker: w, config: config, begun: begun, doubts: doubts, start: time.Now()}
	f.logResumed()
	through := walk{walkConfig: config.walk, parallel: config.parallel, do: f.one}
	err = through.run(ctx, w.cache.canonicalKeys(keys))
	w.cache.reach(ctx, w.cache.store.Reach())
	report := f.report
	report.Elapsed = time.Since(f.start)
	switch {
	case err != nil:
		return report, err
	case report.Failed > 0:
		return report, fmt.Errorf("%w: %d of %d keys failed, the first is %s", ErrFillIncomplete, report.Failed, report.Keys, f.firstFailed())
	}
	if err := w.cache.endFill(ctx, begun); err != nil {
		return report, err
	}
	return report, w.cache.endDoubts(ctx, doubts)
}

type fill struct {
	worker *Worker
	config fillConfig
	begun  []partition.Filling // in each partition
	doubts []string            // since when each partition is unsure, "" if it is not
	start  time.Time

	mu     sync.Mutex
	report FillReport
}

// logResumed tells that this fill goes on with another, lest somebody wonders who renders so little.
func (f *fill) logResumed() {
	for _, begun := range f.begun {
		if begun.Resumed {
			f.worker.cache.config.logger.Info("scales: the fill goes on with one that has not ended", "began", begun.Began().UTC())
			return
		}
	}
}

// one has a key rendered, unless that has been done since the fill began, and returns the keys that it leads to if they
// are asked for.
func (f *fill) one(ctx context.Context, at visit) (links []string, err error) {
	if _, err := f.worker.cache.parse(at.key); err != nil {
		f.note(at, render.Result{Key: at.key, State: render.Failed, Reason: err.Error()}, false)
		return nil, nil
	}
	if entry := f.resumed(ctx, at.key); entry != nil {
		f.note(at, render.Result{Key: at.key, State: render.Stored}, true)
		return f.follow(at.key, entry), nil
	}
	results, err := f.worker.renderer.Perform(ctx, render.Work{Needs: []render.Need{{Key: at.key, Why: "fill"}}})
	if err != nil {
		return nil, err
	}
	f.note(at, results[0], false)
	if !f.config.walk.follow || results[0].State != render.Stored && results[0].State != render.Pushed {
		return nil, nil
	}
	entry, err := f.stored(ctx, at.key)
	if err != nil || entry == nil {
		return nil, err
	}
	return f.follow(at.key, entry), nil
}

// resumed returns the entry of a key if it was asked for since the fill began, by an earlier run of it or for a write. Its
// ticket, or its floor if it was pushed, says so; the fence keeps it current from then on. In every doubt it is nil, and
// the key is rendered.
func (f *fill) resumed(ctx context.Context, key string) *message.Entry {
	p := f.worker.cache.store.Of(key)
	begun := f.begun[p.Number]
	if !begun.Resumed || f.doubts[p.Number] != "" { // what is there may be what Redis had before a write that it has lost
		return nil
	}
	found, err := p.ReadListed(ctx, key)
	if err != nil || !found.Listed || message.EntryFloor(found.Value) <= begun.Ticket {
		return nil
	}
	entry, err := message.ParseEntry(found.Value)
	if err != nil || entry.Gone {
		return nil
	}
	return entry
}

// stored returns the entry of a key that was rendered, nil if it is gone again. It waits for Redis where that is away, as
// renders do.
func (f *fill) stored(ctx context.Context, key string) (*message.Entry, error) {
	const pause = 100 * time.Millisecond
	for {
		found, err := f.worker.cache.store.Of(key).Read(ctx, key)
		switch {
		case err == nil:
			entry, err := message.ParseEntry(found.Value)
			if err != nil || entry.Gone {
				return nil, nil
			}
			return entry, nil
		case errors.Is(err, partition.ErrLayout):
			return nil, f.worker.cache.unavailable(err)
		case f.worker.cache.isClosed():
			return nil, ErrClosed
		}
		f.worker.cache.reading.Note(ctx, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func (f *fill) follow(key string, entry *message.Entry) []string {
	if !f.config.walk.follow {
		return nil
	}
	return f.worker.cache.links(key, entry)
}

func (f *fill) note(at visit, result render.Result, resumed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report.Keys++
	problem := func(refused bool, reason string) {
		f.report.Problems = append(f.report.Problems, FillProblem{result.Key, refused, at.linked(reason)})
	}
	switch result.State {
	case render.Stored, render.Pushed:
		f.report.Stored++
		if resumed {
			f.report.Resumed++
		}
	case render.Refused:
		f.report.Refused++
		problem(true, result.Reason)
	case render.Destroyed:
		f.report.Refused++
		problem(true, "the application has no such resource")
	default:
		f.report.Failed++
		problem(false, result.Reason)
	}
	if f.config.progress != nil {
		state := f.report.FillState
		state.Elapsed = time.Since(f.start)
		f.config.progress(state)
	}
}

func (f *fill) firstFailed() error {
	for _, p := range f.report.Problems {
		if !p.Refused {
			return fmt.Errorf("%s: %w", p.Key, errors.New(p.Reason))
		}
	}
	return nil
}

// MarkFilled declares that the cache holds every resource, so that a miss is a true 404. It is for applications that push
// everything; Worker.Fill does it by itself. A Fill that is unfinished is not gone on with after that.
func (c *Cache) MarkFilled(ctx context.Context) error {
	doubts, err := c.doubts(ctx)
	if err != nil {
		return err
	}
	begun := make([]partition.Filling, len(c.store.All()))
	for i, p := range c.store.All() {
		incarnation, err := p.Incarnation(ctx)
		if err != nil {
			return c.unavailable(err)
		}
		begun[i].Incarnation = incarnation
	}
	if err := c.endFill(ctx, begun); err != nil {
		return err
	}
	return c.endDoubts(ctx, doubts)
}

// beginFill records in each partition that a fill has begun, or goes on with one that has not ended, unless anew.
func (c *Cache) beginFill(ctx context.Context, anew bool) ([]partition.Filling, error) {
	begun := make([]partition.Filling, len(c.store.All()))
	for i, p := range c.store.All() {
		var err error
		if begun[i], err = p.BeginFill(ctx, anew); err != nil {
			return nil, c.unavailable(err)
		}
	}
	return begun, nil
}

// endFill marks each partition as filled if it is in the incarnation in which the fill began.
func (c *Cache) endFill(ctx context.Context, begun []partition.Filling) error {
	for i, p := range c.store.All() {
		marked, err := p.MarkFilled(ctx, begun[i].Position)
		if err != nil {
			return c.unavailable(err)
		}
		if !marked {
			return fmt.Errorf("%w: Redis lost partition %d during the fill", ErrNotFilled, p.Number)
		}
	}
	return nil
}

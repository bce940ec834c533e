package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/itscales/scales/internal/render"
)

// A FillState is how far a fill has come.
type FillState struct {
	Keys    int // worked on
	Stored  int
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

// Keys returns a sequence of these keys, for Fill.
func Keys(keys ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

// Fill renders every key of the sequence, several at once, and then marks the cache as filled: from then on a miss is a
// true 404. It may run beside servers and workers, and beside other fills, and needs no Run of this worker.
//
// The cache is marked only if no key has failed; otherwise the error is ErrFillIncomplete. A key that was refused is not a
// failure, and neither is an entry that the application cannot render because it was pushed. The fill ends early, with the
// report so far, when ctx ends or when the sequence yields an error. Where Redis has lost the cache meanwhile, that shows
// at the end, and the error is ErrNotFilled. What it has stored remains.
func (w *Worker) Fill(ctx context.Context, keys iter.Seq2[string, error], opts ...FillOption) (FillReport, error) {
	config := fillConfig{parallel: 4 * w.config.render.concurrency}
	for _, o := range opts {
		o.applyFill(&config)
	}
	if config.parallel < 1 {
		return FillReport{}, fmt.Errorf("scales: option FillParallel: %d is not positive", config.parallel)
	}
	begun, err := w.cache.beginFill(ctx)
	if err != nil {
		return FillReport{}, err
	}
	f := &fill{worker: w, config: config, start: time.Now()}
	err = f.run(ctx, keys)
	report := f.report
	report.Elapsed = time.Since(f.start)
	switch {
	case err != nil:
		return report, err
	case report.Failed > 0:
		return report, fmt.Errorf("%w: %d of %d keys failed, the first is %s", ErrFillIncomplete, report.Failed, report.Keys, f.firstFailed())
	}
	return report, w.cache.endFill(ctx, begun)
}

type fill struct {
	worker *Worker
	config fillConfig
	start  time.Time

	mu     sync.Mutex
	report FillReport
}

// run renders all keys.
func (f *fill) run(ctx context.Context, keys iter.Seq2[string, error]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	slots := make(chan struct{}, f.config.parallel)
	for key, err := range keys {
		if err != nil {
			cancel(fmt.Errorf("scales: fill: the sequence of keys: %w", err))
			break
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() {
			defer func() { <-slots }()
			if err := f.one(ctx, key); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// one renders a key.
func (f *fill) one(ctx context.Context, key string) error {
	canonicalKey, err := f.worker.cache.parse(key)
	if err != nil {
		f.note(render.Result{Key: key, State: render.Failed, Reason: err.Error()})
		return nil
	}
	results, err := f.worker.renderer.Perform(ctx, render.Work{Needs: []render.Need{{Key: canonicalKey, Why: "fill"}}})
	if err != nil {
		return err
	}
	f.note(results[0])
	return nil
}

func (f *fill) note(result render.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report.Keys++
	switch result.State {
	case render.Stored, render.Pushed:
		f.report.Stored++
	case render.Refused:
		f.report.Refused++
		f.report.Problems = append(f.report.Problems, FillProblem{result.Key, true, result.Reason})
	case render.Destroyed:
		f.report.Refused++
		f.report.Problems = append(f.report.Problems, FillProblem{result.Key, true, "the application has no such resource"})
	default:
		f.report.Failed++
		f.report.Problems = append(f.report.Problems, FillProblem{result.Key, false, result.Reason})
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

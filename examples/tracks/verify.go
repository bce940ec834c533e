package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/itscales/scales"
)

// audit is what verify ends with on standard output.
type audit struct {
	scales.VerifyState

	// Drift is how many keys differ that were not repaired.
	Drift int `json:"drift"`

	// DeadLetters is how many requests were given up that may have been carried out.
	DeadLetters int `json:"dead_letters"`

	// Findings are up to 100 keys of each kind.
	Findings map[scales.DriftKind][]scales.Finding `json:"findings"`

	Seconds float64 `json:"seconds"`
}

// runVerify compares the cache with the application.
func (p *program) runVerify(ctx context.Context) error {
	return p.withWorker(ctx, func(worker *scales.Worker, s *store) error {
		options := []scales.VerifyOption{scales.AllKeys(), scales.VerifyProgress(p.verifyLines())}
		if p.repair {
			options = append(options, scales.Repair())
		}
		report, err := worker.Verify(ctx, s.keys(ctx), options...)
		if err != nil {
			err = fmt.Errorf("comparing the cache with the application: %w", err)
		}
		return errors.Join(err, writeObject(p.stdout, auditOf(report)), verdict(report))
	})
}

// verdict is an error if the cache differs from the application, or if that does not answer.
func verdict(report scales.VerifyReport) error {
	switch {
	case report.Drift() > 0:
		return fmt.Errorf("the cache has drifted from the application: %d keys", report.Drift())
	case report.Unrenderable > 0:
		return fmt.Errorf("%d keys cannot be compared, because the application does not answer", report.Unrenderable)
	}
	return nil
}

func auditOf(report scales.VerifyReport) audit {
	a := audit{
		VerifyState: report.VerifyState, Drift: report.Drift(), DeadLetters: report.DeadLetters,
		Findings: make(map[scales.DriftKind][]scales.Finding), Seconds: rounded(report.Elapsed),
	}
	for _, f := range report.Findings {
		a.Findings[f.Kind] = append(a.Findings[f.Kind], f)
	}
	return a
}

// verifyLines returns a function that writes a line about the progress of a verify now and then.
func (p *program) verifyLines() func(scales.VerifyState) {
	next := linePause
	return func(state scales.VerifyState) {
		if state.Elapsed < next {
			return
		}
		next = state.Elapsed + linePause
		fmt.Fprintf(p.stderr, "verify: %d keys, %d current, %d missing, %d stale, %d orphaned, %.0f keys/s\n",
			state.Keys, state.Current, state.Missing, state.Stale, state.Orphaned, float64(state.Keys)/state.Elapsed.Seconds())
	}
}

// runExplain writes what the cache knows of a page.
func (p *program) runExplain(ctx context.Context) (err error) {
	c, err := p.openCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, c.close)) }()
	explanation, err := c.cache.Explain(ctx, p.key)
	if errors.Is(err, scales.ErrKey) {
		return &usageError{err}
	}
	if err != nil {
		return fmt.Errorf("explaining %s: %w", p.key, err)
	}
	return writeObject(p.stdout, explanation)
}

// writeObject writes a JSON object on a line.
func writeObject(w io.Writer, object any) error {
	if err := json.NewEncoder(w).Encode(object); err != nil {
		return fmt.Errorf("writing to standard output: %w", err)
	}
	return nil
}

// rounded returns a time in seconds, with three decimal places.
func rounded(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

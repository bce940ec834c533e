package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/itscales/scales"
)

// linePause and barPause are the times between two lines, or two drawings of the bar, about the progress of a fill.
const (
	linePause = time.Second
	barPause  = 100 * time.Millisecond
)

// summary is what fill ends with on standard output.
type summary struct {
	Keys    int     `json:"keys"`
	Stored  int     `json:"stored"`
	Resumed int     `json:"resumed"` // of stored
	Refused int     `json:"refused"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
}

// fillCache renders every resource of the application into the cache, tells of its progress and names each key that was
// not stored. Its error says that the cache is not filled. One that was stopped or killed is gone on with.
func (p *program) fillCache(ctx context.Context, worker *scales.Worker, s *store) (scales.FillReport, error) {
	total, err := s.countKeys(ctx)
	if err != nil {
		return scales.FillReport{}, err
	}
	show, end := p.progressLines(total), func() {}
	if file, ok := p.stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		show, end = progressBar(p.stderr, total)
	}
	keys, options := s.keys(ctx), []scales.FillOption{scales.FillProgress(show)}
	if p.keys == "links" {
		// Of a page that no link leads to, a miss is a 404.
		keys, options = scales.Keys(startKeys...), append(options, scales.FollowLinks())
	}
	if p.anew {
		options = append(options, scales.FillAnew())
	}
	report, err := worker.Fill(ctx, keys, options...)
	end()
	for _, problem := range report.Problems {
		if problem.Refused {
			p.logger.Warn("the cache refused a page", "key", problem.Key, "reason", problem.Reason)
		} else {
			p.logger.Error("a page could not be rendered", "key", problem.Key, "reason", problem.Reason)
		}
	}
	if err != nil {
		return report, fmt.Errorf("filling the cache: %w", err)
	}
	if report.Failed > 0 {
		return report, errors.New("filling the cache: some keys failed")
	}
	return report, nil
}

// progressLines returns a function that writes a line about a fill now and then, and one about its last key.
func (p *program) progressLines(total int) func(scales.FillState) {
	next := linePause
	return func(state scales.FillState) {
		if state.Elapsed < next && state.Keys != total {
			return
		}
		next = state.Elapsed + linePause
		before := ""
		if state.Resumed > 0 {
			before = fmt.Sprintf(" (%d of them before)", state.Resumed)
		}
		seconds := state.Elapsed.Seconds()
		fmt.Fprintf(p.stderr, "fill: %d of %d keys, %d stored%s, %d refused, %d failed, %.1f s, %.0f entries/s\n",
			state.Keys, total, state.Stored, before, state.Refused, state.Failed, seconds, float64(state.Stored-state.Resumed)/seconds)
	}
}

// progressBar returns a function that draws a bar about a fill, and one that ends the bar where it is.
func progressBar(w io.Writer, total int) (show func(scales.FillState), end func()) {
	bar := progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("fill"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("keys"),
		progressbar.OptionThrottle(barPause),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(w) }),
	)
	// A terminal that cannot be written to must not stop a fill: the errors of the bar are ignored.
	show = func(state scales.FillState) {
		// Tracks that are added meanwhile may make more keys than there were at the beginning.
		_ = bar.Set(min(state.Keys, total))
	}
	end = func() {
		if !bar.IsFinished() {
			_ = bar.Exit()
		}
	}
	return show, end
}

// writeSummary writes what a fill did to standard output.
func (p *program) writeSummary(report scales.FillReport) error {
	return writeObject(p.stdout, summary{
		Keys: report.Keys, Stored: report.Stored, Resumed: report.Resumed, Refused: report.Refused, Failed: report.Failed,
		Seconds: rounded(report.Elapsed),
	})
}

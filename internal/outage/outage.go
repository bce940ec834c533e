// Package outage logs that something is away once when it goes and once when it is back, however often that is noticed.
package outage

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// A Log is safe for concurrent use. Noting a success while nothing is away costs one atomic load.
type Log struct {
	logger *slog.Logger
	what   string
	away   atomic.Bool
}

// New returns a log for what is named.
func New(logger *slog.Logger, what string) *Log { return &Log{logger: logger, what: what} }

// Note takes note of the outcome of a call that was made for as long as ctx lasts. If ctx has ended, a failure says nothing.
func (l *Log) Note(ctx context.Context, err error) {
	switch {
	case err == nil && l.away.Load() && l.away.CompareAndSwap(true, false):
		l.logger.Info("scales: " + l.what + " is back")
	case err != nil && ctx.Err() == nil && l.away.CompareAndSwap(false, true):
		l.logger.Warn("scales: "+l.what+" is away", "error", err)
	}
}

// Away reports whether the latest call that was noted failed.
func (l *Log) Away() bool { return l.away.Load() }

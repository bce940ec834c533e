// Package outage logs that something fails, and that it does not any more, once each, however often that is noticed.
package outage

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// A Log is safe for concurrent use. Noting a success while nothing fails costs one atomic load.
type Log struct {
	logger     *slog.Logger
	away, back string
	fails      atomic.Bool
}

// New returns a log that says away when calls begin to fail, and back when they succeed again.
func New(logger *slog.Logger, away, back string) *Log {
	return &Log{logger: logger, away: away, back: back}
}

// Reading returns a log of calls to Redis that only read.
func Reading(logger *slog.Logger) *Log { return New(logger, "Redis is away", "Redis is back") }

// Writing returns a log of calls that write. Redis may answer others, and refuse these: it is out of memory, or a replica.
func Writing(logger *slog.Logger) *Log {
	return New(logger, "Redis takes no writes", "Redis takes writes again")
}

// Note takes note of the outcome of a call that was made for as long as ctx lasts. If ctx has ended, a failure says nothing.
func (l *Log) Note(ctx context.Context, err error) {
	switch {
	case err == nil && l.fails.Load() && l.fails.CompareAndSwap(true, false):
		l.logger.Info("scales: " + l.back)
	case err != nil && ctx.Err() == nil && l.fails.CompareAndSwap(false, true):
		l.logger.Warn("scales: "+l.away, "error", err)
	}
}

// Fails reports whether the latest call that was noted failed.
func (l *Log) Fails() bool { return l.fails.Load() }

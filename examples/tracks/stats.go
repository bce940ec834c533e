package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/itscales/scales"
)

// queueStats is what stats writes to standard output.
type queueStats struct {
	scales.QueueStats
	OldestSeconds float64 `json:"oldest_seconds"`
}

// runStats writes what the queue is like.
func (p *program) runStats(ctx context.Context) (err error) {
	c, err := p.openCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, c.close)) }()
	stats, err := c.cache.Queue().Stats(ctx)
	if err != nil {
		return fmt.Errorf("asking the queue: %w", err)
	}
	return writeObject(p.stdout, queueStats{stats, rounded(stats.Oldest)})
}

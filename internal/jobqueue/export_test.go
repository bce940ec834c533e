package jobqueue

import (
	"context"
	"time"
)

// BeatAt is BeatAndTakeOver at another time of the process's monotonic clock. It reports whether a lease had expired.
func (c *Consumer) BeatAt(ctx context.Context, now time.Time) (bool, error) {
	_, err := c.beatAndTakeOver(ctx, now)
	return c.Doubt(), err
}

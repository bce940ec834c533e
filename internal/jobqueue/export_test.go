package jobqueue

import (
	"context"
	"time"
)

// BeatAt is Beat at another time of the process's monotonic clock.
func (c *Consumer) BeatAt(ctx context.Context, now time.Time) (bool, error) { return c.beatAt(ctx, now) }

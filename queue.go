package scales

import (
	"context"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// A Queue is the way of the jobs from servers to workers. It is safe for concurrent use.
type Queue struct{ cache *Cache }

// QueueStats are what the queue is like: what it holds, who works at it, what has happened ever since Redis has the namespace,
// and how fast.
type QueueStats struct {
	Jobs    int           `json:"jobs"`    // in the queue
	Parked  int           `json:"parked"`  // of these, the ones that wait for another job of their Order
	Running int           `json:"running"` // of these, the ones that workers have, which have begun them or are about to
	Decided int           `json:"decided"` // of these, the ones whose handler has returned and whose renders are under way
	Oldest  time.Duration `json:"-"`       // how long ago the oldest job was enqueued, or had its turn; 0 if there is none
	Pending int           `json:"pending"` // keys that wait for a render

	Workers int `json:"workers"` // that take jobs, and whose latest heartbeat is less than three of their intervals ago
	Slots   int `json:"slots"`   // handlers that these workers run at once
	Servers int `json:"servers"` // that were asked anything since they began, and were heard of in the last six seconds

	DeadLetters int   `json:"dead_letters"`
	Drift       int   `json:"drift"`        // dead letters ever that may have been carried out, so that the cache may have drifted
	Tracked     int   `json:"tracked"`      // requests whose replies are kept, or will be
	TrackedSize int64 `json:"tracked_size"` // bytes of these replies, and of the requests that have none yet

	Enqueued  int64 `json:"enqueued"`  // jobs ever, replays too
	Finished  int64 `json:"finished"`  // jobs ever that were carried out, or became dead letters
	Retries   int64 `json:"retries"`   // jobs ever that were taken over from a worker that had died
	Withdrawn int64 `json:"withdrawn"` // jobs ever that no worker had begun when nobody waited any more
	Expired   int64 `json:"expired"`   // jobs ever that a worker got too late to begin them
	Died      int64 `json:"died"`      // jobs ever that became dead letters

	// Jobs per second, over about the latest ten seconds.
	EnqueueRate float64 `json:"enqueue_rate"`
	FinishRate  float64 `json:"finish_rate"`
}

// prefix of the keys in Redis: the queue lives in the slot of the first partition.
func (c *Cache) queuePrefix() string { return partition.Prefix(c.config.namespace, 0) }

// queueConfig is what servers and workers tell their end of the queue.
func (c *Cache) queueConfig() jobqueue.Config {
	return jobqueue.Config{
		Client: c.rdb, Prefix: c.queuePrefix(), Meta: c.queuePrefix() + "meta", Timeout: c.config.timeout,
		Logger: c.config.logger, Reading: c.reading, Writing: c.writing, Guards: c.config.queueGuards,
	}
}

// Stats reads what the queue is like. It is cheap enough to be called every second: two round trips, whatever the queue holds. The
// error is ErrUnavailable.
func (q *Queue) Stats(ctx context.Context) (QueueStats, error) {
	stats, err := jobqueue.ReadStats(ctx, q.cache.rdb, q.cache.queuePrefix())
	if err != nil {
		return QueueStats{}, q.cache.unavailable(err)
	}
	pending, err := q.cache.store.Pending(ctx)
	if err != nil {
		return QueueStats{}, q.cache.unavailable(err)
	}
	return QueueStats{
		Jobs: int(stats.Jobs), Parked: int(stats.Parked), Running: int(stats.Running), Decided: int(stats.Held), Oldest: stats.Oldest, Pending: int(pending),
		Workers: int(stats.Alive), Slots: int(stats.Slots), Servers: int(stats.Servers),
		DeadLetters: int(stats.Dead), Drift: int(stats.Drift), Tracked: int(stats.Tracked), TrackedSize: stats.Kept,
		Enqueued: stats.Enqueued, Finished: stats.Finished, Retries: stats.TakenOver, Withdrawn: stats.Withdrawn,
		Expired: stats.Expired, Died: stats.Died, EnqueueRate: stats.EnqueueRate, FinishRate: stats.FinishRate,
	}, nil
}

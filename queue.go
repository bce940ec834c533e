package scales

import (
	"context"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// A Queue is the way of the jobs from servers to workers. It is safe for concurrent use.
type Queue struct{ cache *Cache }

// QueueStats are the lengths of what the queue holds.
type QueueStats struct {
	Jobs        int // waiting or running
	Decided     int // of these, the ones whose handler has returned and whose renders are under way
	DeadLetters int
	Drift       int // dead letters ever that may have been carried out, so that the cache may have drifted
	Workers     int // known ones; one that has died counts until another has taken over its jobs
	Pending     int // keys that wait for a render
}

// prefix of the keys in Redis: the queue lives in the slot of the first partition.
func (c *Cache) queuePrefix() string { return partition.Prefix(c.config.namespace, 0) }

// queueConfig is what servers and workers tell their end of the queue.
func (c *Cache) queueConfig() jobqueue.Config {
	return jobqueue.Config{
		Client: c.rdb, Prefix: c.queuePrefix(), Meta: c.queuePrefix() + "meta", Timeout: c.config.timeout,
		Logger: c.config.logger, Guards: c.config.queueGuards,
	}
}

// Stats reads the lengths of what the queue holds. It is cheap enough to be called every second.
func (q *Queue) Stats(ctx context.Context) (QueueStats, error) {
	counts, err := jobqueue.Count(ctx, q.cache.rdb, q.cache.queuePrefix())
	if err != nil {
		return QueueStats{}, q.cache.unavailable(err)
	}
	stats := QueueStats{
		Jobs: int(counts.Jobs), Decided: int(counts.Held), DeadLetters: int(counts.Dead), Drift: int(counts.Drift), Workers: int(counts.Workers),
	}
	for _, p := range q.cache.store.All() {
		n, err := p.Pending(ctx)
		if err != nil {
			return QueueStats{}, q.cache.unavailable(err)
		}
		stats.Pending += int(n)
	}
	return stats, nil
}

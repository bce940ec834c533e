package scales

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
)

func checkClient(rdb redis.UniversalClient, logger *slog.Logger) error {
	heedsDeadlines := true
	defer func() {
		if !heedsDeadlines {
			logger.Warn("scales: the Redis client has ContextTimeoutEnabled off: calls to a Redis that hangs linger")
		}
	}()
	switch client := rdb.(type) {
	case *redis.Client:
		heedsDeadlines = client.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		heedsDeadlines = client.Options().ContextTimeoutEnabled
		if o := client.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errors.New("scales: NewCache: the cluster client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly)")
		}
	case *redis.Ring:
		return errors.New("scales: NewCache: a redis.Ring loses keys when a shard is away; use Redis Cluster")
	}
	return nil
}

// Ready reports whether the cache can be relied upon: that Redis answers, has version 7.0 or later, evicts nothing, and
// that the cache was laid out with the same number of partitions and is filled. The error names everything that is
// wrong; of a cache that is not filled it says, with ErrNotFilled, since when a fill is under way or has been left
// unfinished. What Redis does not let the client read is logged as unknown.
func (c *Cache) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.timeout)
	defer cancel()
	if err := c.rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var problems []error
	version, policy := c.info(ctx, "server", "redis_version"), c.info(ctx, "memory", "maxmemory_policy")
	switch {
	case version == "":
		c.config.logger.Warn("scales: the version of Redis is unknown; it must be 7.0 or later")
	case majorOf(version) < 7:
		problems = append(problems, fmt.Errorf("scales: Redis has version %s; 7.0 or later is needed", version))
	}
	switch policy {
	case "":
		c.config.logger.Warn("scales: the eviction policy of Redis is unknown; maxmemory-policy must be noeviction")
	case "noeviction":
	default:
		problems = append(problems, fmt.Errorf("scales: Redis evicts entries: set maxmemory-policy to noeviction, it is %s", policy))
	}
	for _, p := range c.store.All() {
		filled, unsure, err := p.Filled(ctx)
		switch {
		case err != nil:
			problems = append(problems, c.unavailable(err))
		case unsure:
			problems = append(problems, fmt.Errorf("%w: Redis has lost writes to partition %d of %d; verify or fill it", ErrUnsure, p.Number, c.config.partitions))
		case !filled:
			problems = append(problems, c.notFilled(ctx, p))
		}
	}
	return errors.Join(problems...)
}

// notFilled returns the error that a partition is not filled, and what is known of a fill that has begun.
func (c *Cache) notFilled(ctx context.Context, p *partition.Partition) error {
	err := fmt.Errorf("%w: partition %d of %d", ErrNotFilled, p.Number, c.config.partitions)
	if begun, found, _ := p.Filling(ctx); found {
		err = fmt.Errorf("%w: a fill began at %s and has not ended", err, begun.Began().UTC().Format(time.RFC3339))
	}
	return err
}

// info returns a field of Redis's INFO, "" where it cannot be read.
func (c *Cache) info(ctx context.Context, section, name string) string {
	text, err := c.rdb.Info(ctx, section).Result()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func majorOf(version string) (major int) {
	_, _ = fmt.Sscanf(version, "%d", &major)
	return major
}

// awaitLayout waits until Redis can be asked whether the cache is laid out as this one is, or ctx ends.
func (c *Cache) awaitLayout(ctx context.Context) error {
	for ctx.Err() == nil {
		if c.isClosed() {
			return ErrClosed
		}
		err := c.checkLayout(ctx)
		if err == nil || errors.Is(err, ErrLayout) {
			return err
		}
		c.reading.Note(ctx, err)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func (c *Cache) checkLayout(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	for _, p := range c.store.All() {
		if _, _, err := p.Filled(ctx); err != nil {
			return c.unavailable(err)
		}
	}
	return nil
}

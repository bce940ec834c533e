package scales

import (
	"context"
	"fmt"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
)

// readPlain is read for who does not need to know what it shows.
func (c *Cache) readPlain(ctx context.Context, key string) (*message.Entry, error) {
	stored, _, err := c.readBy(ctx, key, c.store.Of(key).ReadPlain)
	return stored, err
}

// read returns the entry of a key; the error is as of Get. at is the id up to which what was read shows the change log, a miss
// included.
func (c *Cache) read(ctx context.Context, key string) (stored *message.Entry, at string, err error) {
	return c.readBy(ctx, key, c.store.Of(key).Read)
}

func (c *Cache) readBy(
	ctx context.Context, key string, read func(context.Context, string) (partition.Found, error),
) (stored *message.Entry, at string, err error) {
	timed, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	found, err := read(timed, key)
	c.reading.Note(ctx, err)
	if err != nil {
		return nil, "", c.unavailable(err)
	}
	stored, err = c.entryOf(key, found)
	return stored, found.At, err
}

// entryOf returns the entry that was found, or the error that says what was found instead.
func (c *Cache) entryOf(key string, found partition.Found) (*message.Entry, error) {
	if found.Exists {
		stored, err := message.ParseEntry(found.Value)
		if err == nil && !stored.Gone {
			return stored, nil
		}
		if err == nil {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, key)
		}
		c.config.logger.Error("scales: an entry cannot be decoded and counts as lost", "key", key, "error", err)
		c.heal(key)
		return nil, fmt.Errorf("%w: %s: %w", ErrLost, key, err)
	}
	switch {
	case found.Lost:
		c.heal(key)
		return nil, fmt.Errorf("%w: %s", ErrLost, key)
	case found.Unsure:
		return nil, fmt.Errorf("%w: %s", ErrUnsure, key)
	case !found.Filled:
		return nil, fmt.Errorf("%w: %s", ErrNotFilled, key)
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, key)
}

// heal makes a key whose entry was lost pending, for a worker to render it; not more than one in a while, for reads are
// many. Push-only entries come back with their next push.
func (c *Cache) heal(key string) {
	const interval = 10 * time.Millisecond
	last, now := c.healed.Load(), time.Now().UnixNano()
	if now-last < int64(interval) || !c.healed.CompareAndSwap(last, now) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.healing.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.config.timeout)
		defer cancel()
		if err := c.commit(ctx, []partition.Operation{update(key, "", "lost")}); err != nil {
			c.config.logger.Warn("scales: a lost entry could not be made pending", "key", key, "error", err)
		}
	})
}

// exists reports whether a canonical key has an entry or a tombstone. When in doubt it does: a render tells.
func (c *Cache) exists(key string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), c.config.timeout)
	defer cancel()
	found, err := c.store.Of(key).ReadPlain(ctx, key)
	return err != nil || found.Exists || found.Lost
}

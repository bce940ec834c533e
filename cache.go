package scales

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// A Cache holds every resource of an application in Redis. Servers read it, workers keep it current.
//
// Its methods are for programs outside of requests: a cron job, a consumer of database changes, a test. A handler of the
// application uses Writer instead. A Cache is safe for concurrent use.
type Cache struct {
	rdb    redis.UniversalClient
	config cacheConfig
	origin *url.URL
	rules  *canonical.Rules
	store  *partition.Store

	codings *coding.Encoder

	// httpServer is what handlers find under http.ServerContextKey; without it httputil.ReverseProxy hides that an
	// upstream broke. It serves nothing.
	httpServer *http.Server

	reading, writing *outage.Log
	healing          sync.WaitGroup
	healed           atomic.Int64 // when a lost entry was made pending last, in ns

	mu     sync.Mutex
	closed bool
	closes []func()
	kicks  map[*render.Renderer]struct{} // renderers of this process that look for pending keys
	copies map[*reader]struct{}          // readers of this process that do not ask the primary for everything
}

// NewCache returns a cache in the Redis that rdb talks to. It does no I/O, and rdb is never closed by Scales.
//
// The client must talk to a primary: one that reads from replicas is refused, because a replica may be behind what a
// client was promised. Set ContextTimeoutEnabled on it, so that calls to a Redis that hangs do not linger. It needs
// connections for blocking calls besides those for the others: one for each server and worker in the process, and one for
// each partition while renders of other processes are waited for. What follows the change log, for a LocalCopy or Replicas, has a
// client of its own with the same options; only with Sentinel it takes a connection of this one.
func NewCache(rdb redis.UniversalClient, opts ...CacheOption) (*Cache, error) {
	if rdb == nil {
		return nil, errors.New("scales: NewCache: nil client")
	}
	config := defaultCacheConfig()
	for _, o := range opts {
		o.applyCache(&config)
	}
	origin, rules, err := config.validate()
	if err == nil {
		err = checkClient(rdb, config.logger)
	}
	if err != nil {
		return nil, err
	}
	codings, err := coding.New(config.codings)
	if err != nil {
		return nil, fmt.Errorf("scales: options Codings, CodingMinSize, CodingTypes: %w", err)
	}
	c := &Cache{rdb: rdb, config: config, origin: origin, rules: rules, kicks: make(map[*render.Renderer]struct{}), copies: make(map[*reader]struct{})}
	c.codings = codings
	c.reading, c.writing = outage.Reading(config.logger), outage.Writing(config.logger)
	c.httpServer = &http.Server{ErrorLog: slog.NewLogLogger(config.logger.Handler(), slog.LevelWarn)}
	c.store = partition.New(partition.Config{
		Client: rdb, Namespace: config.namespace, Partitions: config.partitions, TombstoneLife: config.tombstoneLife,
		ClaimLease: config.claimLease, LogLength: config.logLength, MaxEntries: config.maxEntries,
		Timeout: config.timeout, Guards: config.guards,
	})
	return c, nil
}

// unavailable wraps an error of Redis.
func (c *Cache) unavailable(err error) error {
	if errors.Is(err, partition.ErrLayout) {
		return fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Get returns the entry of a key, as a server would serve it; of several variants the first, or ErrNotFound if only others exist. The error is or wraps ErrNotFound where there is none,
// ErrNotFilled where a miss proves nothing because the cache is not filled, ErrUnsure where Redis has lost writes, ErrLost where the
// entry was lost, and ErrUnavailable where Redis cannot be asked.
func (c *Cache) Get(ctx context.Context, key string) (Entry, error) {
	key, err := c.parse(key)
	if err != nil {
		return Entry{}, err
	}
	stored, err := c.readPlain(ctx, key)
	if err != nil {
		return Entry{}, err
	}
	if len(stored.Vary) > 0 {
		if stored = stored.Variants[0]; stored == nil {
			return Entry{}, fmt.Errorf("%w: %s: it has other variants", ErrNotFound, key)
		}
	}
	return Entry{Status: stored.Status, Header: stored.Header, Body: stored.Body, PushOnly: stored.PushOnly}, nil
}

func (c *Cache) parse(key string) (string, error) {
	canonicalKey, err := c.rules.Parse(key)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	return canonicalKey, nil
}

func (c *Cache) parseAll(keys []string) ([]string, error) {
	parsed := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if parsed[i], err = c.parse(key); err != nil {
			return nil, err
		}
	}
	return parsed, nil
}

// Len returns the number of entries. It is exact for each partition, at a moment of its own.
func (c *Cache) Len(ctx context.Context) (int, error) {
	total := 0
	for _, p := range c.store.All() {
		n, err := p.Len(ctx)
		if err != nil {
			return 0, c.unavailable(err)
		}
		total += int(n)
	}
	return total, nil
}

// Keys iterates over the keys of all entries, in byte order within each partition. Keys that come or go meanwhile may or
// may not be seen; every other is seen once. An error ends the iteration.
func (c *Cache) Keys(ctx context.Context) iter.Seq2[string, error] {
	const page = 500
	return func(yield func(string, error) bool) {
		for _, p := range c.store.All() {
			for after := ""; ; {
				keys, err := p.Keys(ctx, after, page)
				if err != nil {
					yield("", c.unavailable(err))
					return
				}
				for _, key := range keys {
					if !yield(key, nil) {
						return
					}
					after = key
				}
				if len(keys) < page {
					break
				}
			}
		}
	}
}

func (c *Cache) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Queue returns the queue of jobs.
func (c *Cache) Queue() *Queue { return &Queue{cache: c} }

// Close stops what the cache runs in the background, and waits for it until ctx ends. Close it after the servers and
// workers that use it. The Redis client stays open.
func (c *Cache) Close(ctx context.Context) error {
	c.mu.Lock()
	closes := c.closes
	c.closes, c.closed = nil, true
	readers := slices.Collect(maps.Keys(c.copies))
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		each(readers, func(rd *reader) { rd.close(context.Background()) })
		for _, stop := range slices.Backward(closes) { // what began last ends first
			stop()
		}
		c.healing.Wait()
		c.store.Close()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onClose registers what Close has to stop. Of a cache that is closed it is stopped at once.
func (c *Cache) onClose(stop func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.closes = append(c.closes, stop)
	}
	c.mu.Unlock()
	if closed {
		stop()
	}
}

// tending registers a renderer that looks for pending keys, until the returned function is called.
func (c *Cache) tending(r *render.Renderer) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kicks[r] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.kicks, r)
	}
}

// kickRenderers makes the renderers of this process look for pending keys at once.
func (c *Cache) kickRenderers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.kicks {
		r.Kick()
	}
}

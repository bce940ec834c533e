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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/step"
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

	outage  *outage.Log
	healing sync.WaitGroup
	healed  atomic.Int64 // when a lost entry was made pending last, in ns

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
	c.outage = outage.New(config.logger, "Redis")
	c.httpServer = &http.Server{ErrorLog: slog.NewLogLogger(config.logger.Handler(), slog.LevelWarn)}
	c.store = partition.New(partition.Config{
		Client: rdb, Namespace: config.namespace, Partitions: config.partitions, TombstoneLife: config.tombstoneLife,
		ClaimLease: config.claimLease, LogLength: config.logLength, MaxEntries: config.maxEntries,
		Timeout: config.timeout, Guards: config.guards,
	})
	return c, nil
}

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

// Push stores an entry. Unless it is push-only or has a ticket, a worker then confirms it by a render; until then it may
// hide something newer, because nobody knows when it was made.
func (c *Cache) Push(ctx context.Context, key string, e Entry) error {
	key, err := c.parse(key)
	if err != nil {
		return err
	}
	op, err := c.operation(key, e, "", nil)
	if err != nil {
		return err
	}
	return c.commit(ctx, []partition.Operation{op})
}

// Destroy removes resources. A worker then confirms it by a render, except for push-only entries; until then it may hide
// something newer.
func (c *Cache) Destroy(ctx context.Context, keys ...string) error {
	return c.change(ctx, keys, func(key string) partition.Operation { return destroy(key, "") })
}

// Update has resources rendered by a worker. It returns when that is recorded in Redis, not when it is done.
func (c *Cache) Update(ctx context.Context, keys ...string) error {
	return c.change(ctx, keys, func(key string) partition.Operation { return update(key, "", "update") })
}

// update returns the change that makes a key pending.
func update(key, job, why string) partition.Operation {
	return partition.Operation{Kind: partition.OpPend, Key: key, Cause: partition.Cause{Job: job, Why: why}}
}

func (c *Cache) change(ctx context.Context, keys []string, operation func(key string) partition.Operation) error {
	keys, err := c.parseAll(keys)
	if err != nil {
		return err
	}
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = operation(key)
	}
	return c.commit(ctx, operations)
}

// commit performs operations, those of each partition in one atomic step unless they are very many.
func (c *Cache) commit(ctx context.Context, operations []partition.Operation) error {
	if err := render.Stamp(ctx, c.store, operations); err != nil {
		return c.unavailable(err)
	}
	byPartition := make(map[*partition.Partition][]partition.Operation)
	for _, op := range operations {
		p := c.store.Of(op.Key)
		byPartition[p] = append(byPartition[p], op)
	}
	var (
		problems []error
		written  []string // keys that have changed
	)
	for _, op := range operations {
		if op.Kind != partition.OpPend {
			written = append(written, op.Key)
		}
	}
	for p, group := range byPartition {
		for part := range partition.Parts(group) {
			commit, err := p.Commit(ctx, part)
			if err != nil {
				problems = append(problems, c.unavailable(err))
				break
			}
			for i, outcome := range commit.Outcomes {
				switch {
				case outcome == partition.Full:
					problems = append(problems, fmt.Errorf("%w: %s", ErrBacklog, part[i].Key))
				case outcome.Again():
					problems = append(problems, fmt.Errorf("%w: %s", ErrTicket, part[i].Key))
				}
			}
		}
	}
	c.kickRenderers()
	if len(written) > 0 {
		c.reach(ctx, c.store.Reach(written...))
	}
	return errors.Join(problems...)
}

// reach returns when the local copies of this process show what the change logs have up to there.
func (c *Cache) reach(ctx context.Context, reach partition.Reach) {
	c.mu.Lock()
	readers := slices.Collect(maps.Keys(c.copies))
	c.mu.Unlock()
	each(readers, func(rd *reader) { rd.reach(ctx, reach) })
}

// each calls do for all readers at once.
func each(readers []*reader, do func(*reader)) {
	if len(readers) == 1 {
		do(readers[0])
		return
	}
	var group sync.WaitGroup
	for _, rd := range readers {
		group.Go(func() { do(rd) })
	}
	group.Wait()
}

// pend has something rendered in the background that a job has named. What finds no room is logged: only an outage is an
// error.
func (c *Cache) pend(ctx context.Context, job string, what step.Pending) error {
	groups := slices.Clone(what.Groups)
	for _, key := range what.Related {
		related, err := c.store.Of(key).Groups(ctx, key)
		if err != nil {
			return c.unavailable(err)
		}
		groups = append(groups, related...)
	}
	if err := c.markGroups(ctx, job, groups); err != nil {
		return err
	}
	operations := make([]partition.Operation, len(what.Keys))
	for i, key := range what.Keys {
		operations[i] = update(key, job, "failed request")
		operations[i].Limited = true
	}
	err := c.commit(ctx, operations)
	if errors.Is(err, ErrUnavailable) || err == nil {
		return err
	}
	c.config.logger.Error("scales: keys could not be made pending; the cache may have drifted", "error", err)
	return nil
}

// Ticket takes a ticket for exact pushes.
func (c *Cache) Ticket(ctx context.Context) (Ticket, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	t := Ticket{positions: make([]partition.Position, len(c.store.All()))}
	problems := make([]error, len(t.positions))
	var group sync.WaitGroup
	for i, p := range c.store.All() {
		group.Go(func() { t.positions[i], problems[i] = p.Ticket(ctx) })
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return Ticket{}, c.unavailable(err)
	}
	return t, nil
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
		c.outage.Note(err)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func (c *Cache) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
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

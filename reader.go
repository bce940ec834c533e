package scales

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
	"github.com/itscales/scales/internal/streamid"
)

// A reader answers the reads of one server, or of one CacheFirst middleware: from its copy of the cache, or from Redis.
type reader struct {
	cache *Cache
	copy  *localcopy.Copy[*representation.Representation]
	// follows says that the change logs are followed: there is a copy to be kept current, or there are replicas, which have to be
	// known to be so.
	follows bool

	replicas []*replica
	turn     atomic.Uint32 // counts the reads that replicas were asked for

	start     sync.Once
	mu        sync.Mutex
	stopped   bool
	stop      context.CancelFunc
	following sync.WaitGroup
}

// reachPatience is how long a reply waits for the copy to be as current as its writer has to see it. That takes a fraction of
// a millisecond, unless Redis goes away in the meantime.
const reachPatience = 250 * time.Millisecond

// A replica is one that reads may go to.
type replica struct {
	*partition.Replica
	away *outage.Log
	next atomic.Int64 // when it is asked again after a failure, in ns; 0 while it answers
}

// replicaPause is how long a replica is left alone that has failed.
const replicaPause = time.Second

func (c *Cache) newReader(config readConfig) *reader {
	rd := &reader{cache: c, follows: config.localCopy > 0 || len(config.replicas) > 0, stop: func() {}}
	for i, client := range config.replicas {
		rd.replicas = append(rd.replicas, &replica{
			Replica: c.store.Replica(client), away: outage.New(c.config.logger, "Redis replica "+strconv.Itoa(i+1)),
		})
	}
	rd.copy = localcopy.New[*representation.Representation](len(c.store.All()), config.localCopy, config.guards)
	if rd.follows {
		c.mu.Lock()
		c.copies[rd] = struct{}{} // before anything is kept, so that no change of this process escapes it
		c.mu.Unlock()
	}
	return rd
}

// answer answers a read of a canonical key with its entry. The error is as of Cache.Get; nothing was answered then.
func (rd *reader) answer(w http.ResponseWriter, r *http.Request, key string) error {
	if !rd.follows {
		stored, err := rd.cache.readPlain(r.Context(), key)
		if err != nil {
			return err
		}
		return serve(w, r, key, representation.Of(stored), representation.Hit)
	}
	rd.start.Do(rd.follow)
	part := rd.copy.Part(canonical.Partition(key, rd.cache.config.partitions))
	found, state, ok := part.Get(key)
	note := representation.Hit
	switch {
	case ok && state == localcopy.Unreachable:
		note = representation.StoreUnreachable
	case ok:
	case state == localcopy.Unreachable: // who follows the logs finds out when it is back
		return fmt.Errorf("%w: it has not answered for a while", ErrUnavailable)
	default:
		var err error
		if found, err = rd.fetch(r.Context(), part, key); err != nil {
			return err
		}
	}
	return serve(w, r, key, found, note)
}

// serve answers a read with what the request selects of an entry.
func serve(w http.ResponseWriter, r *http.Request, key string, found *representation.Representation, note representation.Note) error {
	selected := found.Select(r.Header)
	if selected == nil {
		return fmt.Errorf("%w: %s: not for such a request", ErrNotFound, key)
	}
	selected.Serve(w, r, note)
	return nil
}

// fetch gets an entry from Redis, and keeps it in the copy.
func (rd *reader) fetch(ctx context.Context, part *localcopy.Part[*representation.Representation], key string) (*representation.Representation, error) {
	return part.Fetch(ctx, key, func(since string) (fetched localcopy.Fetched[*representation.Representation], err error) {
		// Others may wait for it when this client has left.
		stored, at, err := rd.load(context.WithoutCancel(ctx), part, key, since)
		fetched.At = at
		if err == nil {
			fetched.Value = representation.Of(stored)
			fetched.Size, fetched.Keep = fetched.Value.Size(), true
		}
		return fetched, err
	})
}

// load reads an entry: from a replica if there is one that has the change log up to since, else from the primary. Before the
// log is followed nobody knows which replica is behind. at is up to where what was read shows the log, a miss included; "" if
// nothing was read.
func (rd *reader) load(ctx context.Context, part *localcopy.Part[*representation.Representation], key, since string) (stored *message.Entry, at string, err error) {
	if part.State() == localcopy.Void {
		return rd.cache.read(ctx, key)
	}
	if found, ok := rd.askReplica(ctx, key, since); ok {
		stored, err = rd.cache.entryOf(key, found)
		return stored, found.At, err
	}
	return rd.cache.read(ctx, key)
}

// askReplica asks one of the replicas, each in its turn. It is not ok if that cannot be asked, or is behind, or knows no
// answer but that the cache is not as it should be: it may be a replica that has not got everything yet.
func (rd *reader) askReplica(ctx context.Context, key, since string) (found partition.Found, ok bool) {
	if len(rd.replicas) == 0 {
		return found, false
	}
	r := rd.replicas[int(rd.turn.Add(1)%uint32(len(rd.replicas)))]
	if !r.mayBeAsked() {
		return found, false
	}
	ctx, cancel := context.WithTimeout(ctx, rd.cache.config.timeout)
	defer cancel()
	found, err := r.Read(ctx, key)
	r.note(err)
	return found, err == nil && !streamid.Less(found.At, since) && (found.Exists || found.Filled)
}

// mayBeAsked reports whether a read may go to the replica. Of one that has failed only a single read finds out whether it
// is back; the others do not wait for that.
func (r *replica) mayBeAsked() bool {
	next, now := r.next.Load(), time.Now().UnixNano()
	return next == 0 || now >= next && r.next.CompareAndSwap(next, now+int64(replicaPause))
}

// note takes note of what came of asking the replica.
func (r *replica) note(err error) {
	r.away.Note(err)
	switch {
	case err != nil:
		r.next.Store(time.Now().Add(replicaPause).UnixNano())
	case r.next.Load() != 0:
		r.next.Store(0)
	}
}

// reach returns when reads show what the change logs have up to there.
func (rd *reader) reach(ctx context.Context, reach partition.Reach) {
	if !rd.follows {
		return // every read asks the primary
	}
	rd.start.Do(rd.follow)
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	for number, id := range reach {
		if number >= 0 && number < rd.cache.config.partitions {
			rd.copy.Part(number).Reach(ctx, id)
		}
	}
}

// follow keeps the copy current, until close.
func (rd *reader) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	rd.mu.Lock()
	if rd.stopped {
		rd.mu.Unlock()
		cancel()
		return
	}
	rd.stop = cancel
	followers := make([]partition.Follower, len(rd.cache.store.All()))
	for i := range followers {
		followers[i] = rd.copy.Part(i)
	}
	rd.following.Go(func() { rd.cache.store.Follow(ctx, followers) })
	rd.mu.Unlock()
	rd.cache.onClose(func() { rd.close(context.Background()) })
}

func (rd *reader) isStopped() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.stopped
}

// halt ends what keeps the copy current, and does not wait for it. Reads ask Redis from then on.
func (rd *reader) halt() {
	rd.mu.Lock()
	rd.stopped = true
	stop := rd.stop
	rd.mu.Unlock()
	stop()
	rd.copy.Close()
}

// close ends what keeps the copy current, and waits for it until ctx ends. Reads ask Redis from then on.
func (rd *reader) close(ctx context.Context) {
	rd.halt()
	rd.cache.mu.Lock()
	delete(rd.cache.copies, rd)
	rd.cache.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		rd.following.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// warm reads entries into the copy until it has all of them or is nearly full. Keys that come meanwhile may be missing.
func (rd *reader) warm(ctx context.Context) error {
	if rd.copy.Limit() == 0 {
		return nil
	}
	rd.start.Do(rd.follow)
	for i, p := range rd.cache.store.All() {
		select {
		case <-rd.copy.Part(i).Begun():
			if rd.isStopped() {
				return ErrClosed
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := rd.warmPart(ctx, p, rd.copy.Part(i)); err != nil {
			return err
		}
	}
	return nil
}

// What Warm reads at once, and up to where, in sixteenths of the limit: beyond that, one entry would push out another.
const (
	warmPage     = 1000
	warmParallel = 64
	warmUpTo     = 15
)

func (rd *reader) warmPart(ctx context.Context, p *partition.Partition, part *localcopy.Part[*representation.Representation]) error {
	for after := ""; ; {
		keys, err := p.Keys(ctx, after, warmPage)
		if err != nil {
			return rd.cache.unavailable(err)
		}
		if len(keys) == 0 {
			return nil
		}
		after = keys[len(keys)-1]
		var (
			group    sync.WaitGroup
			problems = make([]error, warmParallel)
		)
		for i := range warmParallel {
			group.Go(func() {
				for at := i; at < len(keys) && problems[i] == nil && rd.copy.Used() < rd.copy.Limit()/16*warmUpTo; at += warmParallel {
					if _, err := rd.fetch(ctx, part, keys[at]); errors.Is(err, ErrUnavailable) {
						problems[i] = err
					} else if ctx.Err() != nil {
						problems[i] = context.Cause(ctx)
					}
				}
			})
		}
		group.Wait()
		if err := errors.Join(problems...); err != nil {
			return err
		}
		if rd.copy.Used() >= rd.copy.Limit()/16*warmUpTo {
			return nil
		}
	}
}

// readPlain is read for who does not need to know what it shows.
func (c *Cache) readPlain(ctx context.Context, key string) (*message.Entry, error) {
	timed, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	found, err := c.store.Of(key).ReadPlain(timed, key)
	if ctx.Err() == nil { // a client that has left is no outage
		c.outage.Note(err)
	}
	if err != nil {
		return nil, c.unavailable(err)
	}
	return c.entryOf(key, found)
}

// read is readPlain; at is the id up to which what was read shows the change log, a miss included.
func (c *Cache) read(ctx context.Context, key string) (stored *message.Entry, at string, err error) {
	timed, cancel := context.WithTimeout(ctx, c.config.timeout)
	defer cancel()
	found, err := c.store.Of(key).Read(timed, key)
	if ctx.Err() == nil { // a client that has left is no outage
		c.outage.Note(err)
	}
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

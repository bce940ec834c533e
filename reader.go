package scales

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
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

func (c *Cache) newReader(config readConfig) *reader {
	rd := &reader{cache: c, follows: config.localCopy > 0 || len(config.replicas) > 0, stop: func() {}}
	for i, client := range config.replicas {
		rd.replicas = append(rd.replicas, &replica{
			Replica: c.store.Replica(client), away: awayOf(c.config.logger, i+1),
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
		return serve(w, r, key, representation.OfSelected(stored, r.Header), representation.Hit)
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
	if !found.Answer(w, r, note) {
		return fmt.Errorf("%w: %s: it has other variants", ErrNotFound, key)
	}
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
	if rd.cache.isClosed() {
		rd.halt()
	}
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

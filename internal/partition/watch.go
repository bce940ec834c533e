package partition

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/streamid"
)

// watch reads the change log while somebody in this process waits for keys that others render. It costs a connection
// only while it is needed.
type watch struct {
	partition *Partition

	mu      sync.Mutex
	waiting map[string]map[*waiter]struct{}
	at      string // the id up to which the log was read; "" while nobody reads
}

const (
	watchBlock = 500 * time.Millisecond
	watchRead  = 500
)

type waiter struct{ ended chan struct{} }

// Watch returns a channel that is closed when the change log has a record of the key after the position from (a Tail): a
// render, push or destroy has come to its end, and whoever waits for the key looks again. missed reports whether it may
// have passed already, so that the caller has to look for itself first. The caller calls stop when it waits no longer.
func (p *Partition) Watch(key, from string) (ended <-chan struct{}, missed bool, stop func()) {
	w := &p.watch
	who := &waiter{ended: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(map[string]map[*waiter]struct{})
	}
	if w.waiting[key] == nil {
		w.waiting[key] = make(map[*waiter]struct{})
	}
	w.waiting[key][who] = struct{}{}
	if w.at == "" && p.store.stopped.Err() == nil {
		w.at = from
		p.store.watchers.Add(1)
		go w.read(p.store.stopped)
	}
	missed = streamid.Less(from, w.at)
	return who.ended, missed, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.remove(key, who)
	}
}

// remove forgets a waiter. The caller holds mu.
func (w *watch) remove(key string, who *waiter) {
	delete(w.waiting[key], who)
	if len(w.waiting[key]) == 0 {
		delete(w.waiting, key)
	}
}

// read tails the log until nobody waits.
func (w *watch) read(ctx context.Context) {
	defer w.partition.store.watchers.Done()
	for {
		w.mu.Lock()
		if len(w.waiting) == 0 || ctx.Err() != nil {
			w.at = ""
			w.mu.Unlock()
			return
		}
		at := w.at
		w.mu.Unlock()

		// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
		bounded, cancel := context.WithTimeout(ctx, watchBlock+w.partition.store.config.Timeout)
		streams, err := w.partition.store.config.Client.XRead(bounded, &redis.XReadArgs{
			Streams: []string{w.partition.names.log, at}, Count: watchRead, Block: watchBlock,
		}).Result()
		cancel()
		if err != nil && !errors.Is(err, redis.Nil) {
			// An outage. Who waits looks again by itself; the log is read on when Redis is back.
			select {
			case <-ctx.Done():
			case <-time.After(watchBlock / 5):
			}
			continue
		}
		for _, stream := range streams {
			w.deliver(stream.Messages)
		}
	}
}

func (w *watch) deliver(messages []redis.XMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, message := range messages {
		w.at = message.ID
		key := text(message.Values["key"])
		for who := range w.waiting[key] {
			close(who.ended)
			w.remove(key, who)
		}
	}
}

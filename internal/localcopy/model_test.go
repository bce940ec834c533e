package localcopy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/streamid"
)

// A record is one of the change log, and with those before it the state of the cache at that time. Tickets and ids grow
// with time, also where Redis has lost what it had.
type record struct {
	id, key, ticket string
	gone            bool
	before          *record
}

// state returns the last record of a key up to this one, nil if there is none.
func (r *record) state(key string) *record {
	for ; r != nil; r = r.before {
		if r.key == key {
			return r
		}
	}
	return nil
}

// follows reports whether r is earlier, or is a later record of the same log.
func (r *record) follows(earlier *record) bool {
	for ; r != nil; r = r.before {
		if r == earlier {
			return true
		}
	}
	return false
}

// shows reports whether what r says of a key is at least as new as what earlier says.
func (r *record) shows(earlier *record) bool {
	switch {
	case earlier == nil:
		return true
	case r == nil:
		return false
	}
	return r.ticket >= earlier.ticket
}

func (r *record) String() string {
	switch {
	case r == nil:
		return "nothing"
	case r.gone:
		return fmt.Sprintf("%s gone at %s", r.key, r.id)
	}
	return fmt.Sprintf("%s of %s", r.key, r.id)
}

// A world is a partition in Redis, and what is to be known of it. All that changes it takes mu first.
type world struct {
	client    redis.UniversalClient
	store     *partition.Store
	partition *partition.Partition
	names     []string // of all that the partition may have in Redis
	keys      []string

	mu       sync.Mutex
	tail     *record
	all      map[string]*record // of all logs there have been, by their ids
	tickets  map[string]*record // the same by their tickets
	replicas []*record          // up to where replicas have come
	dumps    []dump             // of earlier states of the log
}

// A dump is the partition as it was.
type dump struct {
	tail   *record
	values map[string]string
}

func newWorld(client redis.UniversalClient, config partition.Config, keys []string) *world {
	config.Client = client
	w := &world{client: client, store: partition.New(config), keys: keys, all: make(map[string]*record), tickets: make(map[string]*record)}
	w.partition = w.store.All()[0]
	prefix := partition.Prefix(config.Namespace, 0)
	for _, name := range []string{"meta", "index", "pending", "running", "claims", "failing", "wanted", "groups", "memberships", "marks", "walks"} {
		w.names = append(w.names, prefix+name)
	}
	for _, key := range keys {
		w.names = append(w.names, prefix+"e:"+key)
	}
	w.names = append(w.names, prefix+"log")
	w.empty()
	return w
}

func (w *world) log() string { return w.names[len(w.names)-1] }

// empty makes the log one that has no records. The caller holds mu, or is the only one who knows the world.
func (w *world) empty() {
	w.tail = &record{id: "0-0"}
	w.all["0-0"] = w.tail
	w.dumps = nil
}

// write stores or destroys keys and returns the last record.
func (w *world) write(ctx context.Context, random *rand.Rand, keys ...string) (*record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	operations := make([]partition.Operation, len(keys))
	for i, key := range keys {
		operations[i] = partition.Operation{Kind: partition.OpOverwrite, Key: key}
		entry := message.Entry{Status: 200, Body: []byte("x"), PushOnly: true}
		if random.IntN(4) == 0 {
			operations[i].Kind, entry = partition.OpErase, message.Entry{Gone: true}
		}
		value, err := message.AppendEntry(nil, &entry)
		if err != nil {
			return nil, err
		}
		operations[i].Value = string(value)
	}
	if _, err := w.partition.Commit(ctx, operations); err != nil {
		return nil, err
	}
	err := w.learn(ctx)
	return w.tail, err
}

// learn reads what is new in the log. The caller holds mu.
func (w *world) learn(ctx context.Context) error {
	messages, err := w.client.XRange(ctx, w.log(), "("+w.tail.id, "+").Result()
	for _, m := range messages {
		text := func(name string) string { s, _ := m.Values[name].(string); return s }
		r := &record{id: m.ID, ticket: text("ticket"), before: w.tail}
		if op := text("op"); op == "store" || op == "destroy" {
			r.key, r.gone = text("key"), op == "destroy"
			w.tickets[r.ticket] = r
		}
		w.tail, w.all[r.id] = r, r
	}
	return err
}

// trim cuts off the beginning of the log.
func (w *world) trim(ctx context.Context, length int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.client.XTrimMaxLen(ctx, w.log(), length).Err()
}

// flush loses everything.
func (w *world) flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.client.Del(ctx, w.names...).Err(); err != nil {
		return err
	}
	last := w.tail
	w.empty()
	return w.tick(ctx, last)
}

// tick waits until Redis's clock is past a record: Redis takes longer than that to come back from a crash.
func (w *world) tick(ctx context.Context, last *record) error {
	for {
		now, err := w.client.Time(ctx).Result()
		if err != nil || now.UnixMilli() > streamid.Time(last.id)/1000 {
			return err
		}
	}
}

// save takes note of a state to which Redis may come back.
func (w *world) save(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := dump{tail: w.tail, values: make(map[string]string)}
	for _, name := range w.names {
		value, err := w.client.Dump(ctx, name).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return err
		}
		d.values[name] = value
	}
	w.dumps = append(w.dumps, d)
	return nil
}

// rollBack has Redis come back with the last state that was saved, or the first one, as after a crash. Replicas that are
// further may go on to be so.
func (w *world) rollBack(ctx context.Context, toLast bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dumps) == 0 {
		return nil
	}
	at := 0
	if toLast {
		at = len(w.dumps) - 1
	}
	d, last := w.dumps[at], w.tail
	w.dumps = w.dumps[:at+1]
	_, err := w.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Del(ctx, w.names...)
		for name, value := range d.values {
			pipe.Restore(ctx, name, 0, value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.tail = d.tail
	return w.tick(ctx, last)
}

// replicate takes note of a state that a replica has for a while.
func (w *world) replicate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas = append(w.replicas, w.tail)
}

// replica returns the state of a replica, nil if there is none.
func (w *world) replica(random *rand.Rand) *record {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.replicas) == 0 {
		return nil
	}
	newest := w.replicas[max(0, len(w.replicas)-3):]
	return newest[random.IntN(len(newest))]
}

// read returns what the primary has under a key, nil for nothing, and the last record at that time.
func (w *world) read(ctx context.Context, key string) (r *record, at string, err error) {
	found, err := w.partition.Read(ctx, key)
	if err != nil || !found.Exists {
		return nil, found.At, err
	}
	entry, err := message.ParseEntry(found.Value)
	if err != nil {
		return nil, "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r = w.tickets[entry.Ticket]; r == nil || r.key != key || r.gone != entry.Gone {
		return nil, "", fmt.Errorf("%s has the ticket %s, which is that of %v", key, entry.Ticket, r)
	}
	return r, found.At, nil
}

// end removes what is left in Redis.
func (w *world) end() {
	w.store.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = w.client.Del(ctx, w.names...).Err() // what stays is in a namespace of its own
}

const patience = time.Minute

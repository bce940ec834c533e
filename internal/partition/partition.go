// Package partition keeps the entries of one cache partition in Redis, under the fence of tickets.
//
// All keys of a partition share a hash tag, so that one script changes entries, claims, clock and log in one atomic
// step. The scripts are in scripts.go and commit.go; this file is their caller: it groups calls into round trips and
// translates errors.
package partition

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/batch"
	"github.com/itscales/scales/internal/canonical"
)

// ErrLayout marks a partition that was laid out by another version, or with another number of partitions.
var ErrLayout = errors.New("the cache in Redis is laid out otherwise")

// Config shapes a Store. Every field is required but Guards.
type Config struct {
	Client        redis.UniversalClient
	Namespace     string
	Partitions    int
	TombstoneLife time.Duration
	ClaimLease    time.Duration
	LogLength     int
	MaxEntries    int // entries, and pending keys, of each partition
	Timeout       time.Duration
	Guards        Guards
}

// A Store is the partitions of one cache. It is safe for concurrent use.
type Store struct {
	config     Config
	scripts    scripts
	partitions []*Partition
	watchers   sync.WaitGroup
	stop       context.CancelFunc
	stopped    context.Context
}

// New returns a store; it does no I/O.
func New(config Config) *Store {
	s := &Store{config: config, scripts: compile(config.Guards)}
	s.stopped, s.stop = context.WithCancel(context.Background())
	for number := range config.Partitions {
		s.partitions = append(s.partitions, newPartition(s, number))
	}
	return s
}

// Close ends the goroutines of the store and waits for them.
func (s *Store) Close() {
	s.stop()
	s.watchers.Wait()
}

// Of returns the partition of a key.
func (s *Store) Of(key string) *Partition {
	return s.partitions[canonical.Partition(key, len(s.partitions))]
}

// Namespace returns the namespace of the cache.
func (s *Store) Namespace() string { return s.config.Namespace }

// All returns the partitions in order.
func (s *Store) All() []*Partition { return s.partitions }

// A Partition is one part of the cache.
type Partition struct {
	Number int

	store    *Store
	prefix   string
	names    names
	reads    *batch.Batcher[string, Found]
	plain    *batch.Batcher[string, Found]
	misses   *batch.Batcher[string, Found]
	claims   *batch.Batcher[Wish, Claim]
	commits  *batch.Batcher[[]Operation, Commit]
	marks    *batch.Batcher[change, Marked]
	explains *batch.Batcher[string, Status]
	watch    watch

	memory memory

	floor atomic.Pointer[Position] // the highest ticket known to have existed
}

type names struct {
	meta, index, pending, running, claims, failing, log, wanted, groups, memberships, marks, walks string
}

// Prefix returns what the names of all keys of a partition begin with. The braces are its Redis Cluster hash tag.
func Prefix(namespace string, number int) string {
	return "{" + namespace + ":" + strconv.Itoa(number) + "}:"
}

func newPartition(s *Store, number int) *Partition {
	prefix := Prefix(s.config.Namespace, number)
	p := &Partition{
		Number: number,
		store:  s,
		prefix: prefix,
		names: names{
			meta: prefix + "meta", index: prefix + "index", pending: prefix + "pending", running: prefix + "running",
			claims: prefix + "claims", failing: prefix + "failing", log: prefix + "log", wanted: prefix + "wanted",
			groups: prefix + "groups", memberships: prefix + "memberships", marks: prefix + "marks", walks: prefix + "walks",
		},
	}
	p.watch.partition = p
	patience := s.config.Timeout
	p.reads = batch.New(batch.Config[string, Found]{Send: p.sendReads, Flights: 2, Patience: patience})
	p.plain = batch.New(batch.Config[string, Found]{Send: p.sendPlain, Flights: 2, Patience: patience})
	p.misses = batch.New(batch.Config[string, Found]{Send: p.sendMisses, Patience: patience})
	p.claims = batch.New(batch.Config[Wish, Claim]{Send: p.sendClaims, Flights: 2, Patience: patience})
	p.explains = batch.New(batch.Config[string, Status]{Send: p.sendExplains, Flights: 2, Patience: patience})
	p.marks = batch.New(batch.Config[change, Marked]{Send: p.sendMarks, Patience: patience, MaxCalls: 16})
	p.commits = batch.New(batch.Config[[]Operation, Commit]{
		Send: p.sendCommits, Flights: 2, Patience: patience,
		Weight: func(ops []Operation) (n int) {
			for _, op := range ops {
				n += len(op.Value) + membershipWeight*len(op.Groups)
			}
			return n
		},
	})
	return p
}

// entry returns the name of the Redis key that holds the entry of a key.
func (p *Partition) entry(key string) string { return p.prefix + "e:" + key }

// Position is a place in the order of writes to a partition.
type Position struct {
	Incarnation string
	Ticket      string
}

// Floor returns a position that existed before the call: whatever has a lower ticket had been decided by then.
// It is zero while nothing is known.
func (p *Partition) Floor() Position {
	if floor := p.floor.Load(); floor != nil {
		return *floor
	}
	return Position{}
}

// learn takes note of a ticket that exists. Of another incarnation it can only say that it is another one, not which of
// them is the later: the answers of two round trips may arrive in any order. A floor of the wrong one is refused.
func (p *Partition) learn(incarnation, ticket string) {
	for {
		floor := p.floor.Load()
		if floor != nil && floor.Incarnation == incarnation && floor.Ticket >= ticket {
			return
		}
		if p.floor.CompareAndSwap(floor, &Position{incarnation, ticket}) {
			return
		}
	}
}

// run calls a script. Its error is translated; one that Redis raised about the layout wraps ErrLayout.
func (p *Partition) run(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]any, error) {
	all := make([]any, 0, 3+len(args))
	all = append(all, Version, p.store.config.Partitions, newIncarnation())
	all = append(all, args...)
	reply, err := script.Run(ctx, p.store.config.Client, append([]string{p.names.meta}, keys...), all...).Result()
	if err != nil {
		return nil, translate(err)
	}
	if list, ok := reply.([]any); ok {
		return list, nil
	}
	return []any{reply}, nil
}

func translate(err error) error {
	text := err.Error()
	if _, found, ok := strings.Cut(text, "SCALESPARTITIONS "); ok {
		return fmt.Errorf("%w: it has %s partitions", ErrLayout, found)
	}
	if _, found, ok := strings.Cut(text, "SCALESVERSION "); ok {
		return fmt.Errorf("%w: it has version %s, this library writes version %d", ErrLayout, found, Version)
	}
	return err
}

func newIncarnation() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// background is the context of round trips that are shared by several callers.
func (p *Partition) background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), p.store.config.Timeout)
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// Found is what a read found.
type Found struct {
	Value  string
	Exists bool // Value is what is stored, an entry or a tombstone
	Lost   bool // nothing is stored although the index has the key
	Listed bool // the index has the key; known for what does not exist, and from ReadListed
	Filled bool // the partition was filled; known for what does not exist only, like Unsure
	Unsure bool // it was filled, and Redis has lost writes since

	// At is the id of the last record of the change log in the moment of the read, "0-0" if there was none: whatever the log
	// has up to there is shown.
	At string
}

// Read returns what is stored under a key. A miss and what it means are read in one atomic step.
func (p *Partition) Read(ctx context.Context, key string) (Found, error) {
	found, err := p.reads.Do(ctx, key)
	if err != nil || found.Exists {
		return found, err
	}
	return p.misses.Do(ctx, key)
}

// ReadPlain is Read without At for what exists: one command for Redis.
func (p *Partition) ReadPlain(ctx context.Context, key string) (Found, error) {
	found, err := p.plain.Do(ctx, key)
	if err != nil || found.Exists {
		return found, err
	}
	return p.misses.Do(ctx, key)
}

// ReadListed is Read in one step, whatever is found, together with whether the index has the key.
func (p *Partition) ReadListed(ctx context.Context, key string) (Found, error) {
	return p.misses.Do(ctx, key)
}

// eachOnce returns the names of the entries of keys, each once, and where each key has its own.
func (p *Partition) eachOnce(keys []string) (names []string, at map[string]int) {
	at = make(map[string]int, len(keys))
	for _, key := range keys {
		if _, ok := at[key]; !ok {
			at[key] = len(names)
			names = append(names, p.entry(key))
		}
	}
	return names, at
}

// sendPlain reads each key once, however many ask for it.
func (p *Partition) sendPlain(keys []string) ([]Found, error) {
	ctx, cancel := p.background()
	defer cancel()
	names, at := p.eachOnce(keys)
	values, err := p.store.config.Client.MGet(ctx, names...).Result()
	if err != nil {
		return nil, err
	}
	return foundIn(values, keys, at), nil
}

func foundIn(values []any, keys []string, at map[string]int) []Found {
	found := make([]Found, len(keys))
	for i, key := range keys {
		found[i].Value, found[i].Exists = values[at[key]].(string)
	}
	return found
}

// sendReads is sendPlain, and says which record was the last one of the log: in one step, for the copy of a server has to know
// that of what it reads.
func (p *Partition) sendReads(keys []string) ([]Found, error) {
	ctx, cancel := p.background()
	defer cancel()
	names, at := p.eachOnce(keys)
	var (
		values *redis.SliceCmd
		last   *redis.XMessageSliceCmd
	)
	_, err := p.store.config.Client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		values, last = pipe.MGet(ctx, names...), pipe.XRevRangeN(ctx, p.names.log, "+", "-", 1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	found, end := foundIn(values.Val(), keys, at), endOf(last.Val())
	for i := range found {
		found[i].At = end
	}
	return found, nil
}

func (p *Partition) sendMisses(keys []string) ([]Found, error) {
	ctx, cancel := p.background()
	defer cancel()
	names := []string{p.names.index, p.names.log}
	args := make([]any, len(keys))
	for i, key := range keys {
		names = append(names, p.entry(key))
		args[i] = key
	}
	reply, err := p.run(ctx, p.store.scripts.read, names, args...)
	if err != nil {
		return nil, err
	}
	return parseFound(reply, len(keys))
}

// parseFound reads what the read script says of so many keys.
func parseFound(reply []any, keys int) ([]Found, error) {
	if len(reply) != 2+2*keys {
		return nil, fmt.Errorf("read script: %d values for %d keys", len(reply), keys)
	}
	found := make([]Found, keys)
	for i := range found {
		f := &found[i]
		f.Filled, f.Unsure = text(reply[0]) == "1", text(reply[0]) == "unsure"
		f.At = text(reply[1])
		f.Value, f.Exists = reply[2+2*i].(string)
		f.Listed = reply[3+2*i] == int64(1)
		f.Lost = f.Listed && !f.Exists
	}
	return found, nil
}

// Ticket takes a ticket.
func (p *Partition) Ticket(ctx context.Context) (Position, error) {
	reply, err := p.run(ctx, p.store.scripts.tick, nil)
	if err != nil {
		return Position{}, err
	}
	return Position{text(reply[0]), text(reply[1])}, nil
}

// Len returns the number of entries.
func (p *Partition) Len(ctx context.Context) (int64, error) {
	return p.store.config.Client.ZCard(ctx, p.names.index).Result()
}

// Pending returns how many keys wait for a render in all partitions.
func (s *Store) Pending(ctx context.Context) (total int64, err error) {
	pipe := s.config.Client.Pipeline()
	all := s.All()
	counts := make([]*redis.IntCmd, len(all))
	for i, p := range all {
		counts[i] = pipe.ZCard(ctx, p.names.pending)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, err
	}
	for _, count := range counts {
		total += count.Val()
	}
	return total, nil
}

// Keys returns up to n keys that have an entry and follow after in byte order.
func (p *Partition) Keys(ctx context.Context, after string, n int64) ([]string, error) {
	from := "-"
	if after != "" {
		from = "(" + after
	}
	return p.store.config.Client.ZRangeByLex(ctx, p.names.index, &redis.ZRangeBy{Min: from, Max: "+", Count: n}).Result()
}

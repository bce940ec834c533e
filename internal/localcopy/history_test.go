package localcopy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/streamid"
)

// guards are what a history does without.
type guards struct {
	copy      localcopy.Guards
	partition partition.Guards
}

// A history is a random course of events around a copy of one partition: readers and writers, and a Redis that trims its
// log, loses it, or comes back with an earlier one. The seed repeats what is drawn, not how goroutines are scheduled.
type history struct {
	seed  uint64
	world *world
	copy  *localcopy.Copy[shown]
	part  *localcopy.Part[shown]
	ctx   context.Context

	cut atomic.Bool // nothing comes from the log
	lag atomic.Bool // it comes late

	mu     sync.Mutex
	follow following
	notes  []string
	result verdict
}

// shown is what a fetch has brought.
type shown struct {
	record *record
	at     string
}

// missing is what it brings of a key that does not exist.
type missing struct{ shown }

func (missing) Error() string { return "there is nothing" }

// following is what the copy was told, and what it owes to its readers. Each is set when it holds for sure, so that
// whoever looks at it before a call may rely on it.
type following struct {
	epoch    int     // of the log that is followed; odd while that changes
	told     *record // the copy was told of everything up to there, nil if it follows no log
	telling  *record // it may have been told up to there
	owed     string  // what was promised or seen
	promised string  // what was promised
	before   string  // what was owed, or told, before the log was lost
}

// required returns the id that a fetch which begins now has to show.
func (f *following) required() string {
	required := later(f.owed, f.before)
	if f.told != nil {
		required = later(required, f.told.id)
	}
	return required
}

func later(a, b string) string {
	if a == "" || b != "" && streamid.Less(a, b) {
		return b
	}
	return a
}

// A verdict is what came of a history.
type verdict struct {
	seed  uint64
	stale []string // hits and fetches that showed something older than they may
	lost  []string // hits of what the log that was read does not say, and will not say
	ahead []string // hits of what it may say later
	drift []string // differences between copy and Redis when all was quiet
	err   error    // what kept the history from its end
	notes []string

	counts counts
}

func (v *verdict) holds() bool {
	return len(v.stale)+len(v.lost)+len(v.ahead)+len(v.drift) == 0 && v.err == nil
}

// counts say how much histories have tried.
type counts struct{ hits, fetches, begins, flushes, rollbacks, trims int }

func (c *counts) add(more counts) {
	c.hits += more.hits
	c.fetches += more.fetches
	c.begins += more.begins
	c.flushes += more.flushes
	c.rollbacks += more.rollbacks
	c.trims += more.trims
}

func (c counts) String() string {
	return fmt.Sprintf("%d hits, %d fetches, a log was begun %d times; %d flushes, %d rollbacks, %d trims",
		c.hits, c.fetches, c.begins, c.flushes, c.rollbacks, c.trims)
}

// play plays the history of a seed. dumps says that Redis can be taken back to an earlier state.
func play(client redis.UniversalClient, namespace string, seed uint64, dumps bool, g guards) verdict {
	random := rand.New(rand.NewPCG(seed, 0))
	keys := []string{"/a", "/b", "/c", "/d", "/e", "/f"}[:2+random.IntN(5)]
	config := partition.Config{
		Namespace: fmt.Sprintf("%s-%d", namespace, seed), Partitions: 1, TombstoneLife: time.Minute, ClaimLease: time.Minute,
		LogLength: 1000, MaxEntries: 1000, Timeout: 20 * time.Second, Guards: g.partition,
	}
	limit := int64(2000 + random.IntN(2000))
	if random.IntN(2) == 0 {
		limit = large
	}
	h := &history{seed: seed, world: newWorld(client, config, keys), copy: localcopy.New[shown](1, limit, g.copy)}
	defer h.world.end()
	h.part = h.copy.Part(0)
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()

	config.Client = &line{client, h, rand.New(rand.NewPCG(seed, 1))}
	followed := partition.New(config)
	defer followed.Close()
	following, unfollow := context.WithCancel(h.ctx)
	var follower, clients sync.WaitGroup
	follower.Go(func() { followed.Follow(following, []partition.Follower{h}) })
	for number := range 3 {
		clients.Go(func() { h.client(rand.New(rand.NewPCG(seed, uint64(number)+2))) })
	}
	h.events(random, dumps)
	clients.Wait()
	h.judge(random)
	unfollow()
	follower.Wait()
	h.copy.Close()
	if used := h.copy.Used(); used != 0 {
		h.drifted("%d bytes are used by a closed copy", used)
	}
	h.result.seed, h.result.notes = seed, h.notes
	return h.result
}

// pause does nothing, or yields, or waits for up to a while.
func pause(random *rand.Rand, longest time.Duration) {
	switch random.IntN(4) {
	case 0:
	case 1:
		runtime.Gosched()
	default:
		<-time.After(time.Duration(random.Int64N(int64(longest))))
	}
}

// events has Redis, its replicas and the line to it change.
func (h *history) events(random *rand.Rand, dumps bool) {
	for range 60 {
		pause(random, 3*time.Millisecond)
		var err error
		switch roll := random.IntN(100); {
		case roll < 40:
			_, err = h.write(random)
		case roll < 55:
			h.world.replicate()
		case roll < 62:
			h.note("the log is trimmed")
			err = h.world.trim(h.ctx, int64(1+random.IntN(2)))
			h.count(counts{trims: 1})
		case roll < 65:
			h.note("everything is lost")
			h.breaks(random)
			err = h.world.flush(h.ctx)
			h.count(counts{flushes: 1})
		case roll < 75 && dumps:
			err = h.world.save(h.ctx)
		case roll < 80 && dumps:
			h.note("the log goes back")
			h.breaks(random)
			err = h.world.rollBack(h.ctx, random.IntN(2) == 0)
			h.count(counts{rollbacks: 1})
		case roll < 83 && dumps:
			err = h.crash(random)
			h.count(counts{rollbacks: 1})
		case roll < 90:
			h.cut.Store(!h.cut.Load() && random.IntN(3) > 0)
		default:
			h.lag.Store(!h.lag.Load())
		}
		h.failed(err)
	}
	h.cut.Store(false)
	h.lag.Store(false)
}

// crash loses what was written since a moment ago, before the copy was told of it.
func (h *history) crash(random *rand.Rand) error {
	h.cut.Store(true)
	if err := h.world.save(h.ctx); err != nil {
		return err
	}
	if _, err := h.write(random); err != nil {
		return err
	}
	pause(random, 10*time.Millisecond)
	h.note("what was written just now is lost")
	if err := h.world.rollBack(h.ctx, true); err != nil {
		return err
	}
	_, err := h.write(random)
	h.cut.Store(false)
	return err
}

// breaks cuts the line, as a crash does, unless the client connects again before anybody notices.
func (h *history) breaks(random *rand.Rand) {
	if random.IntN(3) == 0 {
		h.cut.Store(true)
	}
}

// write changes one or two keys.
func (h *history) write(random *rand.Rand) (*record, error) {
	keys := []string{h.key(random)}
	if other := h.key(random); other != keys[0] {
		keys = append(keys, other)
	}
	last, err := h.world.write(h.ctx, random, keys...)
	h.note("%v changed, up to %v", keys, last)
	return last, err
}

func (h *history) key(random *rand.Rand) string { return h.world.keys[random.IntN(len(h.world.keys))] }

// client reads, and sometimes writes something and reads what it relies on.
func (h *history) client(random *rand.Rand) {
	for range 80 {
		pause(random, 2*time.Millisecond)
		if random.IntN(8) == 0 {
			last, err := h.write(random)
			h.failed(err)
			if last != nil {
				h.reach(random, last.id)
			}
		}
		h.look(random, h.key(random))
	}
}

// reach has the copy promise that it shows the log up to an id.
func (h *history) reach(random *rand.Rand, id string) {
	epoch := h.now().epoch
	ctx, cancel := context.WithTimeout(h.ctx, time.Duration(random.Int64N(int64(4*time.Millisecond))))
	defer cancel()
	h.part.Reach(ctx, id)
	h.note("%s is promised", id)
	h.owes(epoch, id, id)
}

// owes takes note of what is owed to everybody from now on, unless the log was lost meanwhile.
func (h *history) owes(epoch int, owed, promised string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := &h.follow; f.epoch == epoch {
		f.owed, f.promised = later(f.owed, owed), later(f.promised, promised)
	}
}

func (h *history) now() following {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.follow
}

// look reads a key as a server does, and checks what it gets.
func (h *history) look(random *rand.Rand, key string) {
	before := h.now()
	got, _, ok := h.part.Get(key)
	if ok {
		h.count(counts{hits: 1})
		h.checkHit(key, got, before, h.now())
		return
	}
	required := before.required()
	alive := h.isAlive(required)
	got, err := h.part.Fetch(h.ctx, key, func(since string) (localcopy.Fetched[shown], error) { return h.get(random, key, since) })
	var none missing
	if errors.As(err, &none) {
		got, err = none.shown, nil
	}
	if h.failed(err) {
		return
	}
	h.count(counts{fetches: 1})
	if alive && h.isAlive(required) {
		if least := h.said(required, key); !got.record.shows(least) {
			h.stale("a fetch of %s shows %v, it has to show %v, as up to %s", key, got.record, least, required)
		}
	}
	h.owes(before.epoch, got.at, "")
}

// get is what brings a value from Redis.
func (h *history) get(random *rand.Rand, key, since string) (localcopy.Fetched[shown], error) {
	pause(random, 2*time.Millisecond)
	var got shown
	if r := h.world.replica(random); r != nil && random.IntN(2) == 0 && !streamid.Less(r.id, since) {
		got = shown{r.state(key), r.id}
	} else {
		var err error
		if got.record, got.at, err = h.world.read(h.ctx, key); err != nil {
			return localcopy.Fetched[shown]{}, err
		}
	}
	h.note("%s: a fetch since %q brings %v, up to %s", key, since, got.record, got.at)
	pause(random, 4*time.Millisecond)
	if got.record == nil || got.record.gone {
		return localcopy.Fetched[shown]{At: got.at}, missing{got}
	}
	return localcopy.Fetched[shown]{Value: got, Size: 50 + random.IntN(400), Keep: true, At: got.at}, nil
}

// isAlive reports whether a record is one of the log that Redis has now.
func (h *history) isAlive(id string) bool {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	r := h.world.all[id]
	return r != nil && h.world.tail.follows(r)
}

// said returns what the log up to a record has said of a key.
func (h *history) said(id, key string) *record {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return h.world.all[id].state(key)
}

// checkHit checks what was found in the copy between two moments.
func (h *history) checkHit(key string, got shown, before, after following) {
	if before.epoch != after.epoch || before.told == nil {
		return // another log is followed
	}
	if said := before.told.state(key); !got.record.shows(said) || got.record == said && said.gone {
		h.stale("a hit of %s is %v, the log has said %v", key, got.record, said)
	}
	if h.isAlive(before.promised) {
		promised := h.said(before.promised, key)
		if !got.record.shows(promised) {
			h.stale("a hit of %s is %v, promised was %v", key, got.record, promised)
		}
	}
	for at := after.telling; at != nil; at = at.before {
		if at.state(key) == got.record {
			return
		}
		if at == before.told {
			break
		}
	}
	list, said := &h.result.ahead, fmt.Sprintf("a hit of %s is %v, which the log from %v to %v does not say", key, got.record, before.told, after.telling)
	if streamid.Less(got.record.id, after.telling.id) {
		list = &h.result.lost
	}
	h.note("%s", said)
	h.mu.Lock()
	defer h.mu.Unlock()
	*list = append(*list, said)
}

// judge waits until all is quiet, and compares the copy with Redis.
func (h *history) judge(random *rand.Rand) {
	if random.IntN(2) == 0 {
		_, err := h.write(random)
		h.failed(err)
	}
	quiet := func() bool {
		h.world.mu.Lock()
		tail := h.world.tail
		h.world.mu.Unlock()
		f := h.now()
		return f.told != nil && f.told.id == tail.id
	}
	for begin := time.Now(); !quiet(); pause(random, 2*time.Millisecond) {
		if time.Since(begin) > patience/2 {
			h.failed(errors.New("the end of the log is not reached"))
			return
		}
	}
	for range 2 {
		for _, key := range h.world.keys {
			if got, _, ok := h.part.Get(key); ok {
				if has, _, err := h.world.read(h.ctx, key); !h.failed(err) && got.record != has {
					h.drifted("in the end the copy has %v, Redis %v", got.record, has)
				}
			}
			h.look(random, key)
		}
	}
	if used := h.copy.Used(); used > h.copy.Limit() {
		h.drifted("%d bytes are used in the end, of %d", used, h.copy.Limit())
	}
}

// What the copy is told, and when.

func (h *history) Begin(id string) {
	h.world.mu.Lock()
	at := h.world.all[id]
	h.world.mu.Unlock()
	h.note("begin at %s", id)
	h.mu.Lock()
	h.follow.before, h.follow.telling = "", at
	h.follow.epoch += 2
	h.mu.Unlock()
	h.part.Begin(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow.told = at
	h.result.counts.begins++
}

func (h *history) Changed(keys, ids []string) {
	h.world.mu.Lock()
	at := h.world.all[ids[len(ids)-1]]
	h.world.mu.Unlock()
	h.note("changed %v, up to %v", keys, ids)
	h.mu.Lock()
	h.follow.telling = at
	h.mu.Unlock()
	h.part.Changed(keys, ids)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow.told = at
}

func (h *history) Answered(end bool) { h.part.Answered(end) }

func (h *history) Lost() {
	h.note("lost")
	h.mu.Lock()
	h.follow.epoch++
	h.mu.Unlock()
	h.part.Lost()
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.follow
	f.before, f.owed, f.promised, f.told, f.telling = f.required(), "", "", nil, nil
	f.epoch++
}

// A line is what connects the copy with the log. It breaks, is slow, and sends again.
type line struct {
	redis.UniversalClient
	history *history
	random  *rand.Rand
}

var errBroken = errors.New("the connection is broken")

func (l *line) XRead(ctx context.Context, a *redis.XReadArgs) *redis.XStreamSliceCmd {
	args := *a
	args.Block = time.Duration(1+l.random.IntN(20)) * time.Millisecond
	return send(ctx, l, func() *redis.XStreamSliceCmd { return l.UniversalClient.XRead(ctx, &args) }, redis.NewXStreamSliceCmd)
}

func (l *line) XRevRangeN(ctx context.Context, stream, start, stop string, count int64) *redis.XMessageSliceCmd {
	return send(ctx, l, func() *redis.XMessageSliceCmd {
		return l.UniversalClient.XRevRangeN(ctx, stream, start, stop, count)
	}, redis.NewXMessageSliceCmd)
}

func send[C interface{ SetErr(error) }](ctx context.Context, l *line, command func() C, failed func(context.Context, ...any) C) C {
	broken := failed(ctx)
	broken.SetErr(errBroken)
	if l.history.cut.Load() {
		return broken
	}
	reply := command()
	if l.random.IntN(20) == 0 {
		reply = command()
	}
	if l.history.lag.Load() {
		pause(l.random, 20*time.Millisecond)
	}
	if l.history.cut.Load() || l.random.IntN(60) == 0 {
		return broken
	}
	return reply
}

func (h *history) count(happened counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.result.counts.add(happened)
}

func (h *history) note(format string, args ...any) {
	line := time.Now().Format("15:04:05.000000 ") + fmt.Sprintf(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, line)
}

func (h *history) stale(format string, args ...any) {
	h.note("STALE: "+format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.result.stale = append(h.result.stale, fmt.Sprintf(format, args...))
}

func (h *history) drifted(format string, args ...any) {
	h.note("DRIFT: "+format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.result.drift = append(h.result.drift, fmt.Sprintf(format, args...))
}

// failed takes note of what keeps the history from its end.
func (h *history) failed(err error) bool {
	if err == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.notes, err.Error()) {
		h.notes = append(h.notes, err.Error())
		h.result.err = errors.Join(h.result.err, err)
	}
	return true
}

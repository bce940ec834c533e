package render_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
)

const (
	// patience bounds a history. One takes about a second; longer means that something hangs.
	patience = 3 * time.Minute

	// reliefAfter is how long the processes of a history have to come to rest. Their leases and tombstones of a few
	// milliseconds may all be too short on a machine that is busy: each render is then superseded by the next one, or
	// comes too late, for ever. A process with long times takes their place.
	reliefAfter = 10 * time.Second
)

// A history is a random course of events in a cache of its own: jobs that change the application and tell the cache, on
// worker processes that pause and crash at every step. The seed repeats what is drawn, not how goroutines and Redis are
// scheduled: played again, a history may end otherwise.
type history struct {
	seed     uint64
	client   redis.UniversalClient
	dice     *dice
	keys     []string
	groups   []string
	app      *application
	observer *partition.Store // reads without pauses

	storeConfig   partition.Config // of the processes; without the client
	renderTimeout time.Duration
	longest       time.Duration // of a pause
	vague         bool          // a push may be replaced by a render that fails, without anybody being told
	careless      bool          // what is pushed may be older than the change: readers may see it until a render has confirmed it
	meeting       bool          // the last that happens is that keys join groups which change

	relief  atomic.Bool   // processes that start have long leases and tombstones
	calm    atomic.Bool   // no more pauses and crashes
	calmed  chan struct{} // closed then
	crashes atomic.Int64  // how many are left
	claimed atomic.Int64  // renders between their claim and their commit
	dead    sync.WaitGroup

	mu        sync.Mutex
	counts    counts
	processes []*process
	started   int
	named     map[string]bool // the keys that a job has named
	settled   map[string]int  // of each key the version from which on somebody relies on it
	enqueued  int             // jobs
	queue     []int           // those that have not ended, in order
	promised  map[string]bool // the keys that the cache has, unless something explains why not
	drifted   map[string]bool // the keys that differ when all is quiet
	notes     []string
	verdict   verdict
}

// A verdict is what came of a history.
type verdict struct {
	seed  uint64
	drift []string // differences between cache and application when all was quiet
	stale []string // reads that showed what they must not show at that moment, such as after a reply no trace of the job
	wrong []string // what a verify has reported that was not so, or has not reported
	err   error    // what kept the history from its end
	notes []string // what happened, if it is of interest

	counts counts
}

// counts say how much histories have tried.
type counts struct {
	renders     int // that were begun
	variants    int // other than the first that were asked for
	memberReads int // of members of a group that had to show a change of it
	crashes     int
	markCrashes int // of them while a group was being marked, or just then
	walkCrashes int // and in the middle of a step of a walk

	compared  int // keys with the application by a verify
	looks     int // at keys, for that
	unsettled int // of compared: something explained the difference for too long
	reports   int // of differences, beside the history
	repairs   int
}

func (c *counts) add(more counts) {
	c.renders += more.renders
	c.variants += more.variants
	c.memberReads += more.memberReads
	c.crashes += more.crashes
	c.markCrashes += more.markCrashes
	c.walkCrashes += more.walkCrashes
	c.compared += more.compared
	c.looks += more.looks
	c.unsettled += more.unsettled
	c.reports += more.reports
	c.repairs += more.repairs
}

func (c counts) String() string {
	return fmt.Sprintf("%d renders, %d further variants, %d reads of members of groups that had changed, "+
		"%d crashes, %d of them in the change of a group and %d in a walk; "+
		"verifies of %d keys with %d looks, %d unsettled, %d true reports of pages that nobody had named, %d repairs",
		c.renders, c.variants, c.memberReads, c.crashes, c.markCrashes, c.walkCrashes, c.compared, c.looks, c.unsettled, c.reports, c.repairs)
}

func (v *verdict) holds() bool { return len(v.drift)+len(v.stale)+len(v.wrong) == 0 && v.err == nil }

// play plays the history of a seed and returns what came of it, and a function that waits for its processes to end.
func play(client redis.UniversalClient, namespace string, seed uint64, guards partition.Guards) (v verdict, end func()) {
	d := newDice(seed, 0)
	h := &history{
		seed: seed, client: client, dice: d, app: newApplication(),
		named: make(map[string]bool), settled: make(map[string]int), promised: make(map[string]bool), drifted: make(map[string]bool),
		calmed: make(chan struct{}), renderTimeout: 5 * time.Second,
	}
	h.keys = []string{"/a", "/h", "/v", "/b"}[:1+d.n(4)] // of three partitions the first three keys are in one each
	slices.Sort(h.keys)
	h.groups = groupNames[:d.n(len(groupNames)+1)]
	if h.meeting = guards.NoMarks || d.oneIn(4); h.meeting && len(h.groups) == 0 {
		h.groups = groupNames[:1]
	}
	h.storeConfig = partition.Config{
		Namespace: fmt.Sprintf("%s-%d", namespace, seed), Partitions: 1, TombstoneLife: time.Minute,
		ClaimLease: time.Duration(5+d.n(15)) * time.Millisecond, LogLength: 1000, MaxEntries: 1000,
		Timeout: 5 * time.Second, Guards: guards,
	}
	if d.oneIn(4) {
		h.storeConfig.Partitions = 3
	}
	h.longest = 4 * h.storeConfig.ClaimLease
	if d.oneIn(6) { // tombstones that end before late commits come
		h.storeConfig.TombstoneLife, h.longest, h.vague = 20*time.Millisecond, 80*time.Millisecond, true
	}
	if d.oneIn(10) { // renders that take too long
		h.renderTimeout, h.vague = 20*time.Millisecond, true
	}
	h.careless = d.oneIn(8)
	h.crashes.Store(int64(d.n(5)))
	config := h.storeConfig
	config.Client = client
	h.observer = partition.New(config)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h.run(ctx)
	return h.verdict, h.end
}

func (h *history) run(ctx context.Context) {
	for range 2 + h.dice.n(3) {
		h.start()
	}
	for _, key := range h.keys {
		if !h.dice.oneIn(3) {
			h.app.change(key, live, h.someGroups(h.dice))
		}
	}
	if !h.dice.oneIn(3) {
		h.perform(ctx, h.dice, nil, &job{needs: h.keys, name: "fill"})
	}
	var scripts sync.WaitGroup
	processes := slices.Clone(h.processes)
	for i, p := range processes {
		scripts.Go(func() { h.script(ctx, newDice(h.seed, uint64(i)+1), p) })
	}
	var readers sync.WaitGroup
	readers.Go(func() { h.watch(ctx) })
	if h.storeConfig.Guards == (partition.Guards{}) { // else there is drift, which no repair may hide
		readers.Go(func() { h.verify(ctx, processes[0]) })
	}
	scripts.Wait()
	if h.meeting {
		h.meet(ctx)
	}
	h.calm.Store(true)
	close(h.calmed)
	readers.Wait()
	h.heal(ctx)
	if h.judge(ctx) {
		h.judgeVerify(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.processes {
		if p.isKilled() {
			h.counts.crashes++
		}
	}
	h.verdict.seed, h.verdict.counts = h.seed, h.counts
	if !h.verdict.holds() {
		h.verdict.notes = slices.Concat(h.notes, h.changeLog(ctx)) // who is still running goes on with notes
	}
}

// end kills all processes, waits for them, and removes what the history left in Redis.
func (h *history) end() {
	for _, p := range h.processes {
		p.kill()
	}
	h.dead.Wait()
	h.observer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for number := range h.storeConfig.Partitions {
		prefix := partition.Prefix(h.storeConfig.Namespace, number)
		names := []string{}
		for _, name := range []string{
			"meta", "index", "pending", "running", "claims", "failing", "log", "wanted", "groups", "memberships", "marks",
			"walks",
		} {
			names = append(names, prefix+name)
		}
		for _, key := range h.keys {
			names = append(names, prefix+"e:"+key)
		}
		_ = h.client.Del(ctx, names...).Err() // what stays is in a namespace of its own
	}
}

// count counts what happens.
func (h *history) count(happened counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.add(happened)
}

// start starts a process.
func (h *history) start() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started++
	p := newProcess(h, h.started)
	h.processes = append(h.processes, p)
	return p
}

// relieve replaces all processes by one with long times. What has failed often is due at once.
func (h *history) relieve(ctx context.Context) {
	h.note("all processes are replaced by one with long times")
	h.mu.Lock()
	for _, p := range h.processes {
		p.kill()
	}
	h.mu.Unlock()
	for number := range h.storeConfig.Partitions {
		pending := partition.Prefix(h.storeConfig.Namespace, number) + "pending"
		for _, key := range h.keys {
			_ = h.client.ZAddXX(ctx, pending, redis.Z{Score: 1, Member: key}).Err() // else it is due later
		}
	}
	h.relief.Store(true)
	h.start()
}

// alive returns the preferred process if it lives, else another one, which may be new.
func (h *history) alive(d *dice, preferred *process) *process {
	if preferred != nil && !preferred.isKilled() {
		return preferred
	}
	h.mu.Lock()
	living := slices.DeleteFunc(slices.Clone(h.processes), (*process).isKilled)
	h.mu.Unlock()
	if len(living) == 0 || d.oneIn(3) {
		return h.start()
	}
	return living[d.n(len(living))]
}

func (h *history) note(format string, args ...any) {
	line := time.Now().Format("15:04:05.000000 ") + fmt.Sprintf(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, line)
}

// fail notes what keeps the history from its end.
func (h *history) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict.err = errors.Join(h.verdict.err, fmt.Errorf(format, args...))
}

// changeLog returns the change log of each partition.
func (h *history) changeLog(ctx context.Context) (lines []string) {
	for number := range h.storeConfig.Partitions {
		entries, err := h.client.XRange(ctx, partition.Prefix(h.storeConfig.Namespace, number)+"log", "-", "+").Result()
		if err != nil {
			return append(lines, err.Error())
		}
		for _, entry := range entries {
			lines = append(lines, fmt.Sprintf("log %d: %s %v", number, entry.ID, entry.Values))
		}
	}
	return lines
}

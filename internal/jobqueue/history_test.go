package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/outage"
)

const (
	lease   = time.Minute // by the clock of the history, which has nothing to do with ours
	longAgo = int64(1e15) // µs; deadlines are before it or in an hour

	maxCopies = 20 // of calls that may be executed once more
	maxDue    = 5  // as many are forgotten by one look
)

// A violation is that the queue did what it must not do.
type violation string

func (v violation) Error() string { return string(v) }

func violated(format string, args ...any) error { return violation(fmt.Sprintf(format, args...)) }

// A verdict is what came of a history.
type verdict struct {
	seed     uint64
	violated string // "" where all was as it must be
	err      error  // what else kept the history from its end
	notes    []string
	counts   counts
}

func (v *verdict) holds() bool { return v.violated == "" && v.err == nil }

// counts say how much histories have tried.
type counts struct {
	steps, jobs, joins, executions, repetitions, takeovers, decidedTaken, refusals, withdrawals, letters, replays, doubled, copies int
}

func (c *counts) add(more counts) {
	c.steps += more.steps
	c.jobs += more.jobs
	c.joins += more.joins
	c.executions += more.executions
	c.repetitions += more.repetitions
	c.takeovers += more.takeovers
	c.decidedTaken += more.decidedTaken
	c.refusals += more.refusals
	c.withdrawals += more.withdrawals
	c.letters += more.letters
	c.replays += more.replays
	c.doubled += more.doubled
	c.copies += more.copies
}

func (c counts) String() string {
	return fmt.Sprintf("%d steps; %d jobs, joined by %d, run %d times and %d of these again; %d taken over, %d of them decided; "+
		"%d steps of others refused; %d withdrawn, %d dead letters, %d replayed; %d calls disturbed, %d executed once more later",
		c.steps, c.jobs, c.joins, c.executions, c.repetitions, c.takeovers, c.decidedTaken, c.refusals, c.withdrawals, c.letters, c.replays,
		c.doubled, c.copies)
}

// A sentCopy is a call that may be executed (once more): what was sent, and what that does to the model.
type sentCopy struct {
	name  string
	sent  []any
	apply func(reply any)
	ready func(drained bool) bool // whether it can be executed: at the end only what has no effect any more
}

func always(bool) bool { return true }

// A history is a random course of events in a queue of its own: one step after the other, so that the seed repeats it.
// Processes are what they are in the rest of the library, but that their goroutines are steps.
type history struct {
	seed   uint64
	random *rand.Rand
	client *redis.Client
	link   *link
	config jobqueue.Config
	model  *model

	servers  []*server
	workers  []*worker
	started  int // jobs, servers and workers
	accepted []acceptance
	copies   []sentCopy
	now      time.Time // of the monotonic clocks of workers
	far      int64     // the next deadline that is far away, in µs
	rough    int       // one call in so many is disturbed; 0 for none

	names  map[string]string // of jobs, servers and workers, by id
	notes  []string
	counts counts
}

// play plays the history of a seed.
func play(client *redis.Client, l *link, namespace string, seed uint64, guards jobqueue.Guards) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	prefix := fmt.Sprintf("{%s-%d:0}:", namespace, seed)
	guards.NoRecall = true // what is told later is a step of its own, or is not told
	h := &history{
		seed: seed, random: rand.New(rand.NewPCG(seed, 0)), client: client, link: l, names: map[string]string{jobqueue.Nobody: "nobody"},
		now: time.Unix(0, 0), far: time.Now().Add(time.Hour).UnixMicro(),
	}
	h.config = jobqueue.Config{
		Client: client, Prefix: prefix, Meta: prefix + "meta", Timeout: 5 * time.Second, MaxQueue: 3 + h.n(8), MaxDead: 1000,
		MaxKept: jobqueue.Limit{Jobs: 3 + h.n(8), Bytes: 200 + int64(h.n(400))}, Retention: time.Minute,
		Logger: slog.New(slog.DiscardHandler), Reading: outage.Reading(slog.New(slog.DiscardHandler)), Writing: outage.Writing(slog.New(slog.DiscardHandler)), Guards: guards,
	}
	h.model = newModel(h.config.MaxQueue, h.config.MaxKept)
	h.rough = []int{0, 3, 6, 12}[h.n(4)]
	err := jobqueue.LoadScripts(ctx, client, guards) // else a call that is delayed would not be one of theirs
	if err == nil {
		err = h.run(ctx)
	}
	v := verdict{seed: seed, notes: h.notes, counts: h.counts}
	var broken violation
	if errors.As(err, &broken) {
		v.violated = broken.Error()
	} else {
		v.err = err
	}
	if err := h.clear(); err != nil && v.err == nil {
		v.err = err
	}
	return v
}

func (h *history) run(ctx context.Context) error {
	for range 1 + h.n(3) {
		h.startServer()
	}
	for range 2 + h.n(3) {
		if _, err := h.startWorker(ctx); err != nil {
			return err
		}
	}
	for range 40 + h.n(80) {
		if err := h.step(ctx); err != nil {
			return err
		}
	}
	return h.drain(ctx)
}

// step takes a random step that can be taken. All of them leave Redis as the model says.
func (h *history) step(ctx context.Context) error {
	steps := []struct {
		weight int
		take   func(context.Context) (bool, error)
	}{
		{10, h.enqueue}, {6, h.withdraw}, {8, h.readReplies}, {2, h.ask}, {1, h.replaceServer}, {2, h.age}, {6, h.replay},
		{16, h.fetch}, {6, h.pass}, {3, h.stall}, {2, h.replaceWorker}, {10, h.list}, {10, h.load}, {30, h.begin}, {30, h.settle},
		{4, h.executeCopy},
	}
	all := 0
	for _, s := range steps {
		all += s.weight
	}
	for {
		at := h.n(all)
		for _, s := range steps {
			if at -= s.weight; at < 0 {
				taken, err := s.take(ctx)
				if err != nil {
					return err
				}
				if taken {
					h.counts.steps++
					return h.compare(ctx)
				}
				break
			}
		}
	}
}

// n returns a number below n, which is at least 1.
func (h *history) n(n int) int { return h.random.IntN(n) }

func (h *history) oneIn(n int) bool { return h.n(n) == 0 }

// pick returns one of several, or the zero value of none.
func pick[T any](h *history, from []T) (one T) {
	if len(from) == 0 {
		return one
	}
	return from[h.n(len(from))]
}

// some returns up to n of several, each once.
func some[T any](h *history, from []T, n int) []T {
	from = slices.Clone(from)
	h.random.Shuffle(len(from), func(i, k int) { from[i], from[k] = from[k], from[i] })
	return from[:min(len(from), 1+h.n(n))]
}

// name gives the next name of a kind.
func (h *history) name(kind string) string {
	h.started++
	return fmt.Sprintf("%s%d", kind, h.started)
}

// fate draws what becomes of the next call.
func (h *history) fate() fate {
	if h.rough == 0 || !h.oneIn(h.rough) {
		return arrives
	}
	h.counts.doubled++
	return []fate{twice, unanswered, delayed}[h.n(3)]
}

func (h *history) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

// keep keeps calls that were sent, to be executed (once more).
func (h *history) keep(name string, sent [][]any, ready func(drained bool) bool, apply func(sent []any, reply any)) {
	for _, call := range sent {
		h.copies = append(h.copies, sentCopy{name, call, func(reply any) { apply(call, reply) }, ready})
	}
	h.copies = h.copies[max(0, len(h.copies)-maxCopies):]
}

// executeCopy has a call executed (once more) that was in a buffer until now.
func (h *history) executeCopy(ctx context.Context) (bool, error) {
	c := pick(h, h.copies)
	if c.sent == nil || !c.ready(false) {
		return false, nil
	}
	return true, h.arrive(ctx, c)
}

func (h *history) arrive(ctx context.Context, c sentCopy) error {
	h.note("a copy of this arrives: %s", c.name)
	h.counts.copies++
	reply, err := h.client.Do(ctx, c.sent...).Result()
	if err != nil {
		return err
	}
	c.apply(reply)
	return nil
}

// clear removes what the history has left in Redis, but for what expires soon.
func (h *history) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var keys []string
	for _, name := range strings.Fields("jobs held owed dead replayed statistics workers left withdrawn tracked scopes kept lives waiters") {
		keys = append(keys, h.config.Prefix+"q:"+name)
	}
	for _, s := range h.servers {
		keys = append(keys, h.config.Prefix+"q:replies:"+s.producer.Server())
	}
	return h.client.Del(ctx, keys...).Err()
}

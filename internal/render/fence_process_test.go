package render_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/variant"
)

// dice draw from the seed of a history. They are safe for concurrent use.
type dice struct {
	mu     sync.Mutex
	random *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{random: rand.New(rand.NewPCG(seed, stream))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n)
}

// oneIn is true once in n times.
func (d *dice) oneIn(n int) bool { return d.n(n) == 0 }

func (d *dice) shuffle(keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
}

func (d *dice) duration(low, high time.Duration) time.Duration {
	return low + time.Duration(d.n(int(high-low)))
}

// A process is a worker process that renders, with pauses at every step, until it is killed.
type process struct {
	history  *history
	number   int
	dice     *dice
	store    *partition.Store
	renderer *render.Renderer

	groupLimit int // of the renderer

	frozen atomic.Int64  // until when nothing leaves the process, in nanoseconds of Unix time
	cut    atomic.Bool   // nothing leaves or reaches the process any more
	killed chan struct{} // closed when the process is killed
	kill   func()        // kills the process; it does not wait
	ended  sync.WaitGroup
}

func newProcess(h *history, number int) *process {
	p := &process{history: h, number: number, dice: newDice(h.seed, uint64(number)+1000), killed: make(chan struct{})}
	p.groupLimit = []int{0, 1, 2, 100, 100, 100}[p.dice.n(6)]
	config, timeout := h.storeConfig, h.renderTimeout
	if h.relief.Load() {
		config.ClaimLease, config.TombstoneLife, timeout = time.Second, time.Minute, 10*time.Second
	}
	config.Client = &line{UniversalClient: h.client, process: p}
	p.store = partition.New(config)
	p.renderer = render.New(render.Config{
		Store: p.store, App: http.HandlerFunc(p.serve), Rules: &canonical.Rules{}, Origin: &url.URL{Scheme: "http", Host: "localhost"},
		Server: &http.Server{}, Mark: func(ctx context.Context) context.Context { return ctx },
		Vary: variant.Fields{{Name: "X-Variant", Values: []string{"", "other"}}}, Limit: 4, GroupLimit: p.groupLimit, Timeout: timeout, MaxEntry: 1 << 10, Lease: config.ClaimLease, Retry: config.ClaimLease / 2,
		Logger: slog.New(slog.DiscardHandler), Writing: outage.Writing(slog.New(slog.DiscardHandler)), Pause: p.at,
	})
	tending, untend := context.WithCancel(context.Background())
	p.ended.Go(func() { p.renderer.Tend(tending, tending) })
	p.kill = sync.OnceFunc(func() {
		close(p.killed)
		untend()
		p.ended.Go(p.renderer.Close)
		h.dead.Go(func() {
			p.ended.Wait()
			p.store.Close()
		})
	})
	return p
}

func (p *process) isKilled() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

// serve is the application as the process sees it.
func (p *process) serve(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Path
	was := p.history.app.look(key)
	p.pause(r.Context())
	if r.Context().Err() != nil {
		return // as handlers do when nobody listens any more
	}
	p.history.note("process %d: the application answers %s of version %d, state %d", p.number, key, was.version, was.state)
	if was.varies() {
		w.Header().Set("Vary", "X-Variant")
		if r.Header.Get("X-Variant") != "" {
			p.history.count(counts{variants: 1})
		}
	}
	p.history.app.answer(w, key, was)
}

// at is called by the renderer at every step.
func (p *process) at(ctx context.Context, moment render.Moment, key string) {
	switch moment {
	case render.AfterClaim:
		p.history.claimed.Add(1)
		p.history.count(counts{renders: 1})
	case render.AfterCommit:
		p.history.claimed.Add(-1)
	}
	p.history.note("process %d: %s of %s", p.number, moment, key)
	p.pause(ctx)
}

// pause does nothing, or yields, or waits for a part of a lease, or for longer than a lease. Sometimes it freezes the
// process instead, so that its leases are not prolonged, and sometimes it kills it.
func (p *process) pause(ctx context.Context) {
	if p.history.calm.Load() {
		return
	}
	lease := p.history.storeConfig.ClaimLease
	switch roll := p.dice.n(1000); {
	case roll < 700:
	case roll < 850:
		runtime.Gosched()
	case roll < 930:
		p.wait(ctx, p.dice.duration(0, lease/2))
	case roll < 960:
		p.wait(ctx, p.dice.duration(lease, p.history.longest))
	case roll < 990:
		p.history.note("process %d: freezes", p.number)
		p.frozen.Store(time.Now().Add(p.dice.duration(lease, p.history.longest)).UnixNano())
	default:
		p.crash()
	}
}

// crash kills the process, at once or in such a way that what it is about to send still leaves.
func (p *process) crash() {
	if p.isKilled() || p.history.crashes.Add(-1) < 0 {
		return
	}
	atOnce := !p.dice.oneIn(4)
	p.history.note("process %d: crashes, at once: %t", p.number, atOnce)
	if atOnce {
		p.cut.Store(true)
	}
	p.kill()
}

func (p *process) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-p.killed:
	case <-p.history.calmed:
	}
}

// line is what connects a process with Redis. All that changes something there is a script.
type line struct {
	redis.UniversalClient
	process *process
}

func (l *line) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return l.process.send(ctx, keys, func() *redis.Cmd { return l.UniversalClient.EvalSha(ctx, sha, keys, args...) })
}

func (l *line) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return l.process.send(ctx, keys, func() *redis.Cmd { return l.UniversalClient.Eval(ctx, script, keys, args...) })
}

var errBroken = errors.New("the connection is broken")

// send sends a command, with pauses before and after, as long as the process lives. Sometimes the connection breaks: then
// the command is sent a second time, as go-redis does, or fails with an error, whether it arrived or not.
func (p *process) send(ctx context.Context, keys []string, command func() *redis.Cmd) *redis.Cmd {
	if !p.isKilled() {
		defer func() {
			if p.isKilled() {
				p.history.count(crashesIn(keys))
			}
		}()
	}
	times, answered := 1, true
	if !p.history.calm.Load() {
		switch p.dice.n(100) {
		case 0, 1:
			times = 2
		case 2:
			answered = false
		case 3:
			times, answered = 0, false
		}
	}
	reply := redis.NewCmd(ctx)
	for range times {
		p.pause(ctx)
		if frozen := time.Until(time.Unix(0, p.frozen.Load())); frozen > 0 {
			p.wait(ctx, frozen)
		}
		if !p.cut.Load() {
			reply = command()
		}
	}
	p.pause(ctx)
	if !answered || p.cut.Load() {
		reply = redis.NewCmd(ctx)
		reply.SetErr(errBroken)
	}
	return reply
}

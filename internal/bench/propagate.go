package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
)

const (
	watchedKey      = "/watched"
	otherKeys       = 1000 // that the load reads
	loadConnections = 16
	versionWidth    = 20 // digits with which the body begins

	// propagatePause is how long nothing is done, on average, before each write and each PING.
	propagatePause = 4 * time.Millisecond

	// propagateTimeout is after how long a write that is not served is an error.
	propagateTimeout = 10 * time.Second
)

// benchPropagate measures how long it takes from the commit of a write until a second server serves it from its local copy,
// and beside that the round trip of a PING.
func benchPropagate(ctx context.Context, s settings) error {
	b, stop, err := startPropagate(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	version, err := versionOf(ctx, b.url)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "propagate: one write after the other, and a PING before each; two servers with local copies, and %d reads/s of %d other keys from the one that is watched\n"+
		"rounds of %v; %d processors, %s, %s\n\n", s.reads, otherKeys, s.window, runtime.NumCPU(), version, runtime.Version())
	var p50s, p99s []float64
	for range s.rounds {
		served, pings, rate, err := b.round(ctx)
		if err != nil {
			return err
		}
		p50s, p99s = append(p50s, served.ratio(pings, 50)), append(p99s, served.ratio(pings, 99))
		fmt.Fprintf(s.out, "  served after the commit  %v\n    of that the last read  %v\n  PING                     %v\n  ratios p50 %.2f, p99 %.2f; %d writes, %.0f other reads/s\n",
			served, b.lasts, pings, p50s[len(p50s)-1], p99s[len(p99s)-1], len(served), rate)
	}
	if err := b.expect(ctx, b.first.addr); err != nil {
		return fmt.Errorf("the server that was not watched: %w", err)
	}
	fmt.Fprintf(s.out, "\nfigure propagate_p50_vs_rtt %.2f\n", median(p50s))
	fmt.Fprintf(s.out, "figure propagate_p99_vs_rtt %.2f (goal at most 5)\n", median(p99s))
	return nil
}

// durations are measured values in ascending order.
type durations []time.Duration

func (d durations) at(percent int) time.Duration { return d[len(d)*percent/100] }

func (d durations) ratio(other durations, percent int) float64 {
	return float64(d.at(percent)) / float64(other.at(percent))
}

func (d durations) String() string {
	return fmt.Sprintf("p50 %6.3f ms   p99 %6.3f ms   max %6.3f ms", milliseconds(d.at(50)), milliseconds(d.at(99)), milliseconds(d[len(d)-1]))
}

type propagateBench struct {
	settings
	url       string
	namespace string
	rdb       *redis.Client
	partition *partition.Partition
	closers   []func()

	first, second *readerProcess
	loader        *loaderProcess

	version int // that was written last
	watch   *sample
	poller  net.Conn
	lasts   durations // of this round: how long the read took that brought a new version
}

// startPropagate returns when both servers are warm and the load has begun.
func startPropagate(ctx context.Context, s settings) (b *propagateBench, stop func(), err error) {
	b = &propagateBench{settings: s, namespace: "bench-" + jobqueue.NewID()}
	stop = func() {
		for _, f := range slices.Backward(b.closers) {
			f()
		}
	}
	if err := b.start(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return b, stop, nil
}

func (b *propagateBench) start(ctx context.Context) (err error) {
	url, stopRedis, err := b.server()
	if err != nil {
		return err
	}
	b.url = url
	b.closers = append(b.closers, stopRedis)
	if b.rdb, err = clientOf(b.url); err != nil {
		return err
	}
	store := newStore(b.rdb, b.namespace)
	b.partition = store.All()[0]
	b.closers = append(b.closers, func() {
		store.Close()
		_ = removeAll(context.WithoutCancel(ctx), b.rdb, partition.Prefix(b.namespace, 0))
		_ = b.rdb.Close()
	})
	paths, err := b.fill(ctx)
	if err != nil {
		return err
	}
	order := readOrder{Kind: oursCopied, Redis: b.url, Namespace: b.namespace, Procs: runtime.NumCPU()}
	for _, server := range []**readerProcess{&b.first, &b.second} {
		if *server, err = startReader(ctx, order); err != nil {
			return err
		}
		b.closers = append(b.closers, func() { _ = (*server).close() })
	}
	b.loader, err = startLoader(ctx, loadOrder{Addr: b.second.addr, Paths: paths, Rate: b.reads, Connections: loadConnections})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() { _ = b.loader.close() })
	if b.watch, err = sampleOf(ctx, b.second.addr, watchedKey, nil); err != nil {
		return err
	}
	if b.poller, err = new(net.Dialer).DialContext(ctx, "tcp", b.second.addr); err == nil {
		b.closers = append(b.closers, func() { _ = b.poller.Close() })
	}
	return err
}

// fill makes a cache with the key that is watched and others.
func (b *propagateBench) fill(ctx context.Context) (paths []string, err error) {
	cache, err := scales.NewCache(b.rdb, scales.Namespace(b.namespace), scales.Codings())
	if err != nil {
		return nil, err
	}
	defer cache.Close(ctx)
	for i := range otherKeys {
		paths = append(paths, entryKey(i))
		entry := scales.HTML(bodyOf(i))
		entry.PushOnly = true
		if err := cache.Push(ctx, entryKey(i), entry); err != nil {
			return nil, err
		}
	}
	if _, err := b.commit(ctx); err != nil {
		return nil, err
	}
	return paths, cache.MarkFilled(ctx)
}

// bodyOf returns a page of 1 KiB that begins with its version.
func bodyOf(version int) string {
	text := fmt.Sprintf("%0*d\n", versionWidth, version)
	return text + strings.Repeat(".", entryBody-len(text))
}

// commit writes the next version, as a push in a job does, and returns the moment of Redis's clock at which that was
// committed: the ticket that it has got then.
func (b *propagateBench) commit(ctx context.Context) (at time.Time, err error) {
	entry := message.Entry{
		Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, Body: []byte(bodyOf(b.version + 1)), Why: "push",
	}
	representation.Complete(&entry, nil)
	value, err := message.AppendEntry(nil, &entry)
	if err != nil {
		return at, err
	}
	seen, err := b.partition.Ticket(ctx)
	if err != nil {
		return at, err
	}
	commit, err := b.partition.Commit(ctx, []partition.Operation{{
		Kind: partition.OpPush, Key: watchedKey, Position: seen, Value: string(value), Cause: partition.Cause{Why: "push"},
	}})
	if err != nil {
		return at, err
	}
	if commit.Outcomes[0] != partition.Stored {
		return at, fmt.Errorf("a write was %s", commit.Outcomes[0])
	}
	b.version++
	name := partition.Prefix(b.namespace, 0) + "e:" + watchedKey
	ticket, err := b.rdb.GetRange(ctx, name, int64(message.TicketOffset), int64(message.TicketOffset+message.TicketWidth-1)).Result()
	if err != nil {
		return at, err
	}
	microseconds, err := strconv.ParseInt(ticket, 10, 64)
	return time.UnixMicro(microseconds), err
}

// round makes PINGs and writes in turn. It returns how long each PING took, how long after its commit each write was served,
// and how many other reads were answered in a second.
func (b *propagateBench) round(ctx context.Context) (served, pings durations, rate float64, err error) {
	before, err := b.loader.reads()
	if err != nil {
		return nil, nil, 0, err
	}
	b.lasts = nil
	began := time.Now()
	for time.Since(began) < b.window {
		time.Sleep(rand.N(2 * propagatePause))
		sent := time.Now()
		if err := b.rdb.Ping(ctx).Err(); err != nil {
			return nil, nil, 0, err
		}
		pings = append(pings, time.Since(sent))
		time.Sleep(rand.N(2 * propagatePause))
		took, err := b.write(ctx)
		if err != nil {
			return nil, nil, 0, err
		}
		served = append(served, took)
	}
	after, err := b.loader.reads()
	took := time.Since(began)
	if err = errors.Join(err, b.loader.died()); err != nil {
		return nil, nil, 0, err
	}
	slices.Sort(served)
	slices.Sort(pings)
	slices.Sort(b.lasts)
	return served, pings, float64(after-before) / took.Seconds(), nil
}

// write has a version written while the second server is asked for it again and again, and returns how long after the commit
// the response with that version had come.
func (b *propagateBench) write(ctx context.Context) (time.Duration, error) {
	type committed struct {
		at  time.Time
		err error
	}
	want := b.version + 1
	written := make(chan committed, 1)
	go func() {
		at, err := b.commit(ctx)
		written <- committed{at, err}
	}()
	deadline := time.Now().Add(propagateTimeout)
	_ = b.poller.SetDeadline(deadline)
	for {
		asked := time.Now()
		if err := b.watch.exchange(b.poller); err != nil {
			c := <-written
			return 0, errors.Join(err, c.err)
		}
		now := time.Now()
		if b.shown() == want {
			b.lasts = append(b.lasts, now.Sub(asked))
			c := <-written
			// Redis's clock is that of this machine, and is not monotonic: neither is what it is compared with.
			took := time.Duration(now.UnixNano() - c.at.UnixNano())
			if c.err == nil && took < 0 {
				c.err = fmt.Errorf("a write was served %v before its commit: the clocks are not the same", -took)
			}
			return took, c.err
		}
		if now.After(deadline) {
			c := <-written
			return 0, errors.Join(fmt.Errorf("version %d is not served after %v", want, propagateTimeout), c.err)
		}
	}
}

// shown returns the version in the last response.
func (b *propagateBench) shown() int {
	body := b.watch.response[b.watch.length-entryBody:]
	version, err := strconv.Atoi(string(body[:versionWidth]))
	if err != nil {
		return 0
	}
	return version
}

// expect waits until a server serves the version that was written last.
func (b *propagateBench) expect(ctx context.Context, addr string) error {
	for range 100 {
		s, err := sampleOf(ctx, addr, watchedKey, nil)
		if err != nil {
			return err
		}
		if string(s.body) == bodyOf(b.version) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("version %d is not served", b.version)
}

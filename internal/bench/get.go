package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// readConnections is how many clients read at once, each with a connection of its own.
const readConnections = 64

// A page is what is read.
type page struct {
	name string // in the figures
	key  string
	size int // of the body
}

var readPages = []page{{"1k", "/1k", 1 << 10}, {"16k", "/16k", 16 << 10}}

// benchGet compares reads from the local copy with a bare handler that writes the same, and counts what such a read
// allocates.
func benchGet(ctx context.Context, s settings) error {
	b, stop, err := startReads(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	for _, p := range readPages {
		err := b.compare(ctx, comparison{
			page: p, ours: oursCopied, theirs: bare,
			figure: "get_local_vs_nethttp_" + p.name, goal: "at most 1.05", ratio: cpuRatio,
		})
		if err != nil {
			return err
		}
	}
	return b.countAllocations(ctx)
}

// benchGet304 compares answers to a client that has the entry with those of a bare handler.
func benchGet304(ctx context.Context, s settings) error {
	b, stop, err := startReads(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	return b.compare(ctx, comparison{
		page: readPages[0], conditional: true, ours: oursCopied, theirs: bare304,
		figure: "get304_vs_nethttp", goal: "at most 1.05", ratio: cpuRatio,
	})
}

// benchGetRedis compares reads without a local copy with a handler that does a GET for each.
func benchGetRedis(ctx context.Context, s settings) error {
	b, stop, err := startReads(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	for _, p := range readPages {
		c := comparison{
			page: p, ours: oursRedis, theirs: plainGet,
			figure: "getredis_vs_plain_" + p.name, goal: "at least 1.2", ratio: rateRatio,
		}
		if p == readPages[0] {
			c.figure = "getredis_vs_plain"
		}
		if c.pool, err = b.choosePool(ctx, p); err != nil {
			return err
		}
		if err := b.compare(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// reads is a cache with pages, and what it takes to read them.
type reads struct {
	settings
	redis     string
	namespace string
}

// startReads makes a cache that holds the pages.
func startReads(ctx context.Context, s settings) (b *reads, stop func(), err error) {
	url, stopRedis, err := s.server()
	if err != nil {
		return nil, nil, err
	}
	b = &reads{settings: s, redis: url, namespace: "bench-" + jobqueue.NewID()}
	rdb, err := clientOf(url)
	if err != nil {
		stopRedis()
		return nil, nil, err
	}
	stop = func() {
		_ = removeAll(context.WithoutCancel(ctx), rdb, partition.Prefix(b.namespace, 0))
		_ = rdb.Close()
		stopRedis()
	}
	version, err := versionOf(ctx, url)
	if err == nil {
		err = b.fill(ctx, rdb)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	fmt.Fprintf(s.out, "%d connections, each with one request at a time, from this process; what answers is a process of its own "+
		"with GOMAXPROCS 1 and %d MiB of live heap\nwindows of %v, %d pairs; %d processors, %s, %s\n\n",
		readConnections, s.heap, s.window, s.rounds, runtime.NumCPU(), version, runtime.Version())
	return b, stop, nil
}

func (b *reads) fill(ctx context.Context, rdb *redis.Client) error {
	cache, err := scales.NewCache(rdb, scales.Namespace(b.namespace), scales.Codings())
	if err != nil {
		return err
	}
	defer cache.Close(ctx)
	for _, p := range readPages {
		entry := scales.HTML(strings.Repeat("<p>Nina</p>\n", p.size/12+1)[:p.size])
		entry.PushOnly = true
		if err := cache.Push(ctx, p.key, entry); err != nil {
			return err
		}
	}
	return cache.MarkFilled(ctx)
}

// A comparison is of two ways to answer the same request.
type comparison struct {
	page         page
	conditional  bool // the client has the entry already
	ours, theirs string
	pool         int // connections of a client of Redis; 0 for the default of go-redis
	figure, goal string
	ratio        func(ours, theirs readRun) float64
}

// compare reads a page from two processes in turn, and prints the median of what ratio says of each pair.
func (b *reads) compare(ctx context.Context, c comparison) error {
	one, other, sample, err := b.startPair(ctx, c)
	if err != nil {
		return err
	}
	defer one.close()
	defer other.close()
	fmt.Fprintf(b.out, "%s, body of %d bytes, response of %d\n", c.page.key, len(sample.body), sample.length)
	var ratios []float64
	for round := range b.rounds {
		var runs [2]readRun
		sides := []int{0, 1}
		if round%2 == 1 { // a machine that grows slower or faster favours neither
			slices.Reverse(sides)
		}
		for _, side := range sides {
			process := []*readerProcess{one, other}[side]
			if runs[side], err = b.read(ctx, process, sample, b.window); err != nil {
				return err
			}
		}
		ratios = append(ratios, c.ratio(runs[0], runs[1]))
		fmt.Fprintf(b.out, "  %-16s %v\n  %-16s %v\n  ratio %.3f\n", c.ours, runs[0], c.theirs, runs[1], ratios[round])
	}
	fmt.Fprintf(b.out, "figure %s %.3f (goal %s)\n\n", c.figure, median(ratios), c.goal)
	return nil
}

// startPair starts what answers on both sides. It is an error if their answers differ: in a field, but for Date, in the body,
// or in the length on the wire.
func (b *reads) startPair(ctx context.Context, c comparison) (one, other *readerProcess, s *sample, err error) {
	order := readOrder{Kind: c.ours, Redis: b.redis, Namespace: b.namespace, Heap: b.heap, Pool: c.pool}
	if b.profile != "" {
		order.Profile = b.profile + "." + c.page.name
	}
	if one, err = startReader(ctx, order); err != nil {
		return nil, nil, nil, err
	}
	if s, err = sampleOf(ctx, one.addr, c.page.key, nil); err == nil && c.conditional {
		order.Tag = s.header.Get("Etag")
		s, err = sampleOf(ctx, one.addr, c.page.key, http.Header{"If-None-Match": {order.Tag}})
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, one.close())
	}
	order.Kind, order.Header, order.Body, order.Profile = c.theirs, s.header, s.body, ""
	if other, err = startReader(ctx, order); err != nil {
		return nil, nil, nil, errors.Join(err, one.close())
	}
	again, err := sampleOf(ctx, other.addr, c.page.key, s.sent)
	if err == nil && !again.same(s) {
		err = fmt.Errorf("%s and %s do not answer the same: %d %v and %d %v", c.ours, c.theirs, s.status, s.header, again.status, again.header)
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, other.close(), one.close())
	}
	return one, other, s, nil
}

// choosePool returns the number of connections with which a GET per request does best. The better of two tries counts.
func (b *reads) choosePool(ctx context.Context, p page) (best int, err error) {
	highest := 0.0
	for range 2 {
		for _, pool := range []int{4, 10, 64} { // 10 is the default of go-redis where GOMAXPROCS is 1
			one, other, sample, err := b.startPair(ctx, comparison{page: p, ours: oursRedis, theirs: plainGet, pool: pool})
			if err != nil {
				return 0, err
			}
			run, err := b.read(ctx, other, sample, b.window/2)
			if err = errors.Join(err, other.close(), one.close()); err != nil {
				return 0, err
			}
			if run.rate > highest {
				best, highest = pool, run.rate
			}
		}
	}
	fmt.Fprintf(b.out, "%s does best with a pool of %d connections; both have that\n", plainGet, best)
	return best, nil
}

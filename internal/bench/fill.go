package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// plainConnections is how many connections the yardstick has, each of which sends a thousand commands at once.
const plainConnections = 4

// A filling is what came of storing all entries once.
type filling struct {
	rate          float64       // entries per second
	process, cost time.Duration // processor time for each entry: of this process, of Redis
}

func (f filling) String() string {
	return fmt.Sprintf("%8.0f entries/s   CPU per entry %6.2f µs here, %6.2f µs Redis", f.rate, microseconds(f.process), microseconds(f.cost))
}

// benchFill compares the fill of a trivial application with a pipeline that stores the same values.
func benchFill(ctx context.Context, s settings) error {
	url, stop, err := s.server()
	if err != nil {
		return err
	}
	defer stop()
	rdb, err := clientOf(url)
	if err != nil {
		return err
	}
	defer rdb.Close()
	version, err := versionOf(ctx, url)
	if err != nil {
		return err
	}
	stopProfile, err := profileTo(s.profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	f := &fillBench{s, rdb, ""}
	if _, err := f.ours(ctx, 1); err != nil { // for the value
		return err
	}
	fmt.Fprintf(s.out, "fill: %d entries of %d bytes, metadata included; a worker with the defaults, and %d connections that send 1000 SETs at once\n"+
		"%d pairs; %d processors, %s, %s\n\n", s.entries, len(f.value), plainConnections, s.rounds, runtime.NumCPU(), version, runtime.Version())
	var ratios []float64
	for round := range s.rounds {
		var ours, plain filling
		order := []func() error{
			func() (err error) { ours, err = f.ours(ctx, s.entries); return },
			func() (err error) { plain, err = f.plain(ctx); return },
		}
		if round%2 == 1 { // a machine that grows slower or faster favours neither
			slices.Reverse(order)
		}
		for _, run := range order {
			if err := run(); err != nil {
				return err
			}
		}
		ratios = append(ratios, ours.rate/plain.rate)
		fmt.Fprintf(s.out, "  Fill  %v\n  SET   %v\n  ratio %.3f\n", ours, plain, ratios[round])
	}
	fmt.Fprintf(s.out, "\nfigure fill_vs_plain_set %.3f\n", median(ratios))
	return nil
}

type fillBench struct {
	settings
	rdb   *redis.Client
	value string // of an entry; all have the same length
}

// ours fills a cache with n entries, and removes it.
func (f *fillBench) ours(ctx context.Context, n int) (result filling, err error) {
	namespace := "bench-" + jobqueue.NewID()
	result, err = f.count(ctx, n, func() error {
		_, err := fillEntries(ctx, f.rdb, namespace, n)
		return err
	})
	if err != nil {
		return result, err
	}
	if f.value, err = f.rdb.Get(ctx, entryName(namespace, 0)).Result(); err != nil {
		return result, err
	}
	return result, removeAll(ctx, f.rdb, partition.Prefix(namespace, 0))
}

// plain stores the same values under names of the same length, and removes them.
func (f *fillBench) plain(ctx context.Context) (result filling, err error) {
	namespace := "bench-" + jobqueue.NewID()
	result, err = f.count(ctx, f.entries, func() error {
		return setPlain(ctx, f.rdb, f.entries, plainConnections, func(i int) string { return entryName(namespace, i) }, f.value)
	})
	if err != nil {
		return result, err
	}
	return result, removeAll(ctx, f.rdb, partition.Prefix(namespace, 0))
}

func (f *fillBench) count(ctx context.Context, n int, do func() error) (filling, error) {
	runtime.GC()
	before, err := usageAt(ctx, f.rdb, time.Now())
	if err != nil {
		return filling{}, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return filling{}, err
	}
	took := time.Since(began)
	after, err := usageAt(ctx, f.rdb, time.Now())
	entries := time.Duration(n)
	return filling{float64(n) / took.Seconds(), (after.process - before.process) / entries, (after.redis - before.redis) / entries}, err
}

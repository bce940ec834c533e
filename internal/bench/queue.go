package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// queueSlots is how many jobs our worker runs at once: as many as the largest number of consumers of the yardstick.
const queueSlots = 64

// A setting is what the yardstick is run with: consumers, and connections that its callers share with everything else.
type setting struct{ consumers, connections int }

func (s setting) pool() int { return s.consumers + s.connections }

func (s setting) String() string {
	return fmt.Sprintf("%d consumers, pool of %d", s.consumers, s.pool())
}

// listSettings are what the yardstick may choose from.
func listSettings() []setting {
	var all []setting
	for _, consumers := range []int{1, 4, 16, 64} {
		for _, connections := range []int{4, 16, 64} {
			all = append(all, setting{consumers, connections})
		}
	}
	return all
}

// A figure is a ratio that the benchmark is run for.
type figure struct {
	name    string
	callers int
	goal    string
	ratio   func(ours, theirs measurement) float64
}

func queueFigures() []figure {
	rate := func(ours, theirs measurement) float64 { return ours.rate / theirs.rate }
	p50 := func(ours, theirs measurement) float64 { return float64(ours.p50) / float64(theirs.p50) }
	return []figure{
		{"queue_vs_list_c1_p50", 1, "at most 1.5", p50},
		{"queue_vs_list_c64", 64, "at least 2.0", rate},
		{"queue_vs_list_c512", 512, "at least 2.5", rate},
	}
}

// benchQueue compares request/reply through the queue with the same over a list.
func benchQueue(ctx context.Context, s settings) error {
	url, stop, err := s.server()
	if err != nil {
		return err
	}
	defer stop()
	options, err := redis.ParseURL(url)
	if err != nil {
		return fmt.Errorf("%w: -redis: %w", errUsage, err)
	}
	stopProfile, err := profileTo(s.profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	ballast := make([]byte, s.heap<<20)
	defer runtime.KeepAlive(ballast)

	b := &queueBench{settings: s, options: options}
	fmt.Fprintf(s.out, "queue: request/reply, %d bytes both ways, jobs that write nothing; %d rounds of %v\n", payload, s.rounds, s.window)
	fmt.Fprintf(s.out, "GOMAXPROCS %d, %d MiB of live heap, %s\n", runtime.GOMAXPROCS(0), s.heap, b.version(ctx))
	fmt.Fprintf(s.out, "ours: 1 producer, 1 consumer with %d slots; the list: as below; the pool of connections is the same\n", queueSlots)
	var lines []string
	for _, f := range queueFigures() {
		ratio, err := b.compare(ctx, f)
		if err != nil {
			return fmt.Errorf("%d callers: %w", f.callers, err)
		}
		lines = append(lines, fmt.Sprintf("figure %s %.2f (goal %s)", f.name, ratio, f.goal))
	}
	fmt.Fprintln(s.out)
	for _, line := range lines {
		fmt.Fprintln(s.out, line)
	}
	return nil
}

type queueBench struct {
	settings
	options *redis.Options
}

func (b *queueBench) version(ctx context.Context) string {
	rdb := b.client(1)
	defer rdb.Close()
	info, err := rdb.InfoMap(ctx, "server").Result()
	if err != nil {
		return "Redis of unknown version"
	}
	return "Redis " + info["Server"]["redis_version"]
}

// client returns what both sides get: a client with the same options, but for what is in the URL its defaults, that heeds
// the deadlines of contexts.
func (b *queueBench) client(pool int) *redis.Client {
	options := *b.options
	options.PoolSize, options.ContextTimeoutEnabled = pool, true
	return redis.NewClient(&options)
}

// compare measures pairs and returns the median of their ratios.
func (b *queueBench) compare(ctx context.Context, f figure) (float64, error) {
	best, err := b.chooseList(ctx, f)
	if err != nil {
		return 0, fmt.Errorf("list: %w", err)
	}
	fmt.Fprintf(b.out, "\n%d callers; the list is best with %v\n", f.callers, best)
	ratios := make([]float64, 0, b.rounds)
	for round := range b.rounds {
		var ours, theirs measurement
		measureOurs := func() (err error) { ours, err = b.measureOurs(ctx, f.callers, best.pool(), b.window); return }
		measureList := func() (err error) { theirs, err = b.measureList(ctx, f.callers, best, b.window); return }
		order := []func() error{measureOurs, measureList}
		if round%2 == 1 { // a machine that grows slower or faster favours neither
			slices.Reverse(order)
		}
		for _, measure := range order {
			if err := measure(); err != nil {
				return 0, err
			}
		}
		ratios = append(ratios, f.ratio(ours, theirs))
		fmt.Fprintf(b.out, "  ours %v\n  list %v\n  ratio %.2f\n", ours, theirs, ratios[round])
	}
	return median(ratios), nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// medianBy returns the median of one value that each of all has.
func medianBy[T any, N ~int64 | ~float64](all []T, value func(T) N) N {
	values := make([]float64, len(all))
	for i, one := range all {
		values[i] = float64(value(one))
	}
	return N(median(values))
}

// chooseList returns the setting with which the list does best in what the figure is about. Each is tried twice, in two
// passes, and counts with its better result.
func (b *queueBench) chooseList(ctx context.Context, f figure) (setting, error) {
	var best setting
	var champion measurement
	for range 2 {
		for _, s := range listSettings() {
			m, err := b.measureList(ctx, f.callers, s, b.window/4)
			if errors.Is(err, errNoJob) {
				continue
			}
			if err != nil {
				return best, fmt.Errorf("%v: %w", s, err)
			}
			better := f.ratio(m, champion) > 1
			if f.callers == 1 { // the figure is a latency
				better = f.ratio(m, champion) < 1
			}
			if champion.rate == 0 || better {
				best, champion = s, m
			}
		}
	}
	if champion.rate == 0 {
		return best, errNoJob
	}
	return best, nil
}

func (b *queueBench) measureOurs(ctx context.Context, callers, pool int, window time.Duration) (measurement, error) {
	rdb := b.client(pool)
	defer rdb.Close()
	o, err := newOurs(ctx, rdb, queueSlots)
	if err != nil {
		return measurement{}, err
	}
	return measureAndClose(ctx, rdb, "ours", o, callers, window)
}

func (b *queueBench) measureList(ctx context.Context, callers int, s setting, window time.Duration) (measurement, error) {
	rdb := b.client(s.pool())
	defer rdb.Close()
	l, err := newList(ctx, rdb, s.consumers)
	if err != nil {
		return measurement{}, err
	}
	return measureAndClose(ctx, rdb, "list", l, callers, window)
}

func measureAndClose(ctx context.Context, rdb redis.UniversalClient, name string, s side, callers int, window time.Duration) (measurement, error) {
	var m measurement
	var err error
	pprof.Do(ctx, pprof.Labels("side", name), func(ctx context.Context) {
		m, err = measure(ctx, rdb, s, callers, window)
	})
	return m, errors.Join(err, s.close(context.WithoutCancel(ctx)))
}

// profileTo begins a CPU profile and returns what ends it.
func profileTo(path string) (func(), error) {
	if path == "" {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("%w: -profile: %w", errUsage, err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, fmt.Errorf("-profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

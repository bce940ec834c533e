package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// workersWait is how long a handler takes, all of it for I/O.
	workersWait = 10 * time.Millisecond

	// workersCallers is how many requests are under way, so that jobs wait for the largest number of workers too.
	workersCallers = 64

	// workersTimeout bounds one window, with all that comes before and after it.
	workersTimeout = 2 * time.Minute
)

// workerCounts are how many worker processes are compared.
var workerCounts = []int{1, 2, 4, 8}

// A workersRun is what workers with one slot each did in one window.
type workersRun struct {
	workers int
	rate    float64       // jobs per second
	handler time.Duration // mean time of a job in its handler
	cpu     time.Duration // processor time of all processes for a job
	waiting int           // the fewest jobs that were found waiting
}

// idle is how long a slot is without a handler from one job to the next, on average.
func (r workersRun) idle() time.Duration {
	return time.Duration(float64(r.workers)/r.rate*float64(time.Second)) - r.handler
}

// efficiency is the rate as a share of what handlers alone would allow, if each took no longer than it waits for.
func (r workersRun) efficiency() float64 {
	return r.rate * workersWait.Seconds() / float64(r.workers)
}

func (r workersRun) String() string {
	return fmt.Sprintf("%d workers  %6.1f jobs/s, %.3f of the ideal   handler %6.3f ms, then %6.3f ms without one   CPU per job %5.0f µs   at least %d jobs waiting",
		r.workers, r.rate, r.efficiency(), milliseconds(r.handler), milliseconds(r.idle()), microseconds(r.cpu), r.waiting)
}

// benchWorkers compares numbers of workers on a queue that is never empty.
func benchWorkers(ctx context.Context, s settings) error {
	url, version, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer stop()
	state := fmt.Sprintf("handlers that wait for %v, worker processes of 1 handler each, %d callers, 1 server in their process", workersWait, workersCallers)
	fmt.Fprintf(s.out, "workers: %s; %d rounds of %v\n%d processors, %s, %s\n\n", state, s.rounds, s.window, runtime.NumCPU(), version, runtime.Version())
	runs := make([][]workersRun, len(workerCounts))
	for round := range s.rounds {
		order := slices.Clone(workerCounts)
		if round%2 == 1 { // a machine that grows slower or faster favours none
			slices.Reverse(order)
		}
		for _, workers := range order {
			run, err := s.workers(ctx, url, workers)
			if err != nil {
				return fmt.Errorf("%d workers: %w", workers, err)
			}
			i := slices.Index(workerCounts, workers)
			runs[i] = append(runs[i], run)
			fmt.Fprintf(s.out, "  %v\n", run)
		}
	}
	fmt.Fprintf(s.out, "medians\n")
	for _, of := range runs {
		fmt.Fprintf(s.out, "  %v\n", medianWorkers(of))
	}
	fmt.Fprintf(s.out, "\n%s\nwith %s\n", strings.Join(workersFigures(runs), "\n"), state)
	return nil
}

// workersFigures returns the lines of figures. Those of scaling compare the runs of one round.
func workersFigures(runs [][]workersRun) (lines []string) {
	for i, workers := range workerCounts[1:] {
		var scaling []float64
		for round, one := range runs[0] {
			scaling = append(scaling, runs[i+1][round].rate/(float64(workers)*one.rate))
		}
		line := fmt.Sprintf("figure workers_scaling_%d %.3f", workers, median(scaling))
		if workers == slices.Max(workerCounts) {
			line += " (goal at least 0.95)"
		}
		lines = append(lines, line)
	}
	return append(lines, fmt.Sprintf("figure workers_efficiency_1 %.3f", medianBy(runs[0], workersRun.efficiency)))
}

// workers has a site with so many workers measured. It is an error if a request was not carried out once for its answer.
func (s settings) workers(ctx context.Context, redisURL string, workers int) (run workersRun, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, workersTimeout, fmt.Errorf("it took longer than %v", workersTimeout))
	defer cancel()
	site, err := startSite(ctx, order{Redis: redisURL, Slots: 1, Echo: &echoOrder{Wait: workersWait}}, layout{workers: workers})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, site.close(context.WithoutCancel(ctx))) }()
	connections, err := newPosts(ctx, strings.TrimPrefix(site.url, "http://"), workersCallers, quietTarget)
	if err != nil {
		return run, err
	}
	connections.site = site
	watched := make(chan int, 1)
	go func() { watched <- site.fewest(ctx, s.window) }()
	m, err := measureAndClose(ctx, site.rdb, "workers", connections, workersCallers, s.window)
	if err != nil {
		return run, err
	}
	done, err := site.settle(ctx)
	if err != nil {
		return run, err
	}
	if answered := connections.answered.Load(); done.Writes != answered {
		return run, fmt.Errorf("%d requests were answered, and carried out %d times", answered, done.Writes)
	}
	return workersRun{
		workers: workers, rate: m.rate, handler: done.Busy / time.Duration(done.Writes),
		cpu: m.process + m.workers + m.redis, waiting: <-watched - workers,
	}, nil
}

// fewest returns the smallest number of jobs on the queue, waiting or running, that is found in a window of measure that is
// to begin. It is 0 where the queue cannot be looked at.
func (s *site) fewest(ctx context.Context, window time.Duration) int {
	begin := time.Now().Add(warmUp(window))
	end := begin.Add(window)
	fewest := math.MaxInt
	for at := begin; at.Before(end); at = at.Add(20 * time.Millisecond) {
		time.Sleep(time.Until(at))
		stats, err := s.cache.Queue().Stats(ctx)
		if err != nil {
			return 0
		}
		if time.Now().Before(end) {
			fewest = min(fewest, stats.Jobs)
		}
	}
	return fewest
}

// medianWorkers returns the median of each value by itself, but the fewest jobs that waited in any run.
func medianWorkers(runs []workersRun) workersRun {
	fewest := slices.MinFunc(runs, func(a, b workersRun) int { return a.waiting - b.waiting })
	return workersRun{
		workers: runs[0].workers, waiting: fewest.waiting,
		rate:    medianBy(runs, func(r workersRun) float64 { return r.rate }),
		handler: medianBy(runs, func(r workersRun) time.Duration { return r.handler }),
		cpu:     medianBy(runs, func(r workersRun) time.Duration { return r.cpu }),
	}
}

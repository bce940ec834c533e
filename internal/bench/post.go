package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// postCallers are how many callers there are at once.
var postCallers = []int{1, 64}

// A postRun is what one side did in one window.
type postRun struct{ measurement }

// cpu is the processor time of everything that answers, for each request.
func (r postRun) cpu() time.Duration { return r.server + r.workers + r.redis }

func (r postRun) String() string {
	return fmt.Sprintf("%7.0f requests/s   p50 %7.3f ms   p99 %7.3f ms   CPU per request %6.1f µs: %5.1f server, %5.1f worker, %5.1f Redis; %5.1f clients",
		r.rate, milliseconds(r.p50), milliseconds(r.p99), microseconds(r.cpu()),
		microseconds(r.server), microseconds(r.workers), microseconds(r.redis), microseconds(r.process))
}

// A postSide is what requests are sent to, and for what.
type postSide struct {
	name    string // in lines
	figure  string // what the names of its figures begin with
	process *readerProcess
	site    *site // nil for the bare application
	target  func(caller int) string
	renders bool // each request owes one
}

// benchPost compares a POST through server, queue and worker with the same to the bare application.
func benchPost(ctx context.Context, s settings) error {
	b, err := startPost(ctx, s)
	if err == nil {
		err = b.run(ctx)
	}
	return errors.Join(err, b.close(context.WithoutCancel(ctx)))
}

type postBench struct {
	settings
	site  *site
	bare  *readerProcess
	sides []postSide
	stop  func() // ends Redis
}

// startPost returns when all sides answer. What it returns is to be closed, even with an error.
func startPost(ctx context.Context, s settings) (*postBench, error) {
	b := &postBench{settings: s}
	url, stop, err := s.server()
	if err != nil {
		return b, err
	}
	b.stop = stop
	keys := make([]string, slices.Max(postCallers))
	for i := range keys {
		keys[i] = echoKey(i)
	}
	o := order{Redis: url, Slots: s.slots, Heap: s.heap, Echo: new(echoOrder)}
	if b.site, err = startSite(ctx, o, layout{workers: 1, server: &serverOrder{s.heap, s.profile}}, keys...); err != nil {
		return b, err
	}
	if b.bare, err = startReader(ctx, readOrder{Kind: bareEcho, Procs: runtime.NumCPU(), Heap: s.heap}); err != nil {
		return b, err
	}
	b.sides = []postSide{
		{name: "bare", process: b.bare, target: quietTarget},
		{name: "ours", figure: "post", process: b.site.server, site: b.site, target: quietTarget},
		{name: "ours, a render", figure: "post_render", process: b.site.server, site: b.site, target: echoKey, renders: true},
	}
	return b, b.checkAnswers(ctx)
}

// checkAnswers returns an error if the answers of the sides differ: in a field, but for Date, in the body, or in the length on the
// wire.
func (b *postBench) checkAnswers(ctx context.Context) error {
	var first *sample
	for _, side := range b.sides {
		s, err := samplePost(ctx, side.process.addr, side.target(0))
		if err != nil {
			return fmt.Errorf("%s: %w", side.name, err)
		}
		if first == nil {
			first = s
		}
		if !s.same(first) {
			return fmt.Errorf("%s and %s do not answer the same: %s", side.name, b.sides[0].name, differences(s.header, first.header))
		}
	}
	return nil
}

// close ends everything that was started.
func (b *postBench) close(ctx context.Context) (err error) {
	if b.bare != nil {
		err = b.bare.close()
	}
	if b.site != nil {
		err = errors.Join(err, b.site.close(ctx))
	}
	if b.stop != nil {
		b.stop()
	}
	return err
}

// run makes all rounds and prints what came of them.
func (b *postBench) run(ctx context.Context) error {
	ballast := make([]byte, b.heap<<20)
	defer runtime.KeepAlive(ballast)
	version, err := versionOf(ctx, b.site.order.Redis)
	if err != nil {
		return err
	}
	state := fmt.Sprintf("%d bytes both ways, 1 server process, 1 worker process of %d handlers and %d renders, 1 process of the bare application, "+
		"callers in this process", payload, b.slots, b.slots)
	fmt.Fprintf(b.out, "post: %s; %d rounds of %v\n%d processors, %d MiB of live heap in each process, %s, %s\n",
		state, b.rounds, b.window, runtime.NumCPU(), b.heap, version, runtime.Version())
	var figures []string
	for _, callers := range postCallers {
		runs, err := b.measureAll(ctx, callers)
		if err != nil {
			return fmt.Errorf("%d callers: %w", callers, err)
		}
		figures = append(figures, b.figures(callers, runs)...)
	}
	fmt.Fprintf(b.out, "\n%s\nwith %s\n", strings.Join(figures, "\n"), state)
	return nil
}

// measureAll measures all sides in turn, and returns the runs of each, by round.
func (b *postBench) measureAll(ctx context.Context, callers int) ([][]postRun, error) {
	fmt.Fprintf(b.out, "\n%d callers\n", callers)
	runs := make([][]postRun, len(b.sides))
	for round := range b.rounds {
		for i := range b.sides {
			if round%2 == 1 { // a machine that grows slower or faster favours none
				i = len(b.sides) - 1 - i
			}
			run, err := b.measure(ctx, b.sides[i], callers)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", b.sides[i].name, err)
			}
			runs[i] = append(runs[i], run)
		}
		for i, side := range b.sides {
			fmt.Fprintf(b.out, "  %-15s %v\n", side.name, runs[i][round])
		}
	}
	fmt.Fprintf(b.out, "medians\n")
	for i, side := range b.sides {
		fmt.Fprintf(b.out, "  %-15s %v\n", side.name, medianPost(runs[i]))
	}
	return runs, nil
}

// measure has callers send to one side for a window. It is an error if the application was not called once for each answer, or
// rendered when nothing was owed, or less often than renders were owed.
func (b *postBench) measure(ctx context.Context, side postSide, callers int) (run postRun, err error) {
	before, err := b.site.settle(ctx)
	if err != nil {
		return run, err
	}
	connections, err := newPosts(ctx, side.process.addr, callers, side.target)
	if err != nil {
		return run, err
	}
	connections.process, connections.site = side.process, side.site
	runtime.GC()
	run.measurement, err = measure(ctx, b.site.rdb, connections, callers, b.window)
	if err = errors.Join(err, connections.close(ctx)); err != nil {
		return run, err
	}
	if side.site == nil {
		run.redis = 0 // it has none
		return run, nil
	}
	after, err := b.site.settle(ctx)
	if err != nil {
		return run, err
	}
	answered := connections.answered.Load()
	writes, renders := after.Writes-before.Writes, after.Renders-before.Renders
	if writes != answered || !side.renders && renders != 0 || side.renders && renders < answered {
		return run, fmt.Errorf("%d requests were answered, and carried out %d times, with %d renders", answered, writes, renders)
	}
	return run, nil
}

// figures returns the lines of all figures for so many callers, ours to the bare application.
func (b *postBench) figures(callers int, runs [][]postRun) (lines []string) {
	add := func(i int, name string, ratio func(ours, bare postRun) float64) {
		var ratios []float64
		for round := range b.rounds {
			ratios = append(ratios, ratio(runs[i][round], runs[0][round]))
		}
		lines = append(lines, fmt.Sprintf("figure %s_c%d_%s_ratio %.3f", b.sides[i].figure, callers, name, median(ratios)))
	}
	for i := 1; i < len(b.sides); i++ {
		if callers == 1 {
			add(i, "p50", func(ours, bare postRun) float64 { return float64(ours.p50) / float64(bare.p50) })
		} else {
			add(i, "throughput", func(ours, bare postRun) float64 { return ours.rate / bare.rate })
		}
		add(i, "cpu", func(ours, bare postRun) float64 { return float64(ours.cpu()) / float64(bare.cpu()) })
	}
	return lines
}

// medianPost returns the median of each value by itself.
func medianPost(runs []postRun) postRun {
	return postRun{measurement{
		rate:    medianBy(runs, func(r postRun) float64 { return r.rate }),
		p50:     medianBy(runs, func(r postRun) time.Duration { return r.p50 }),
		p99:     medianBy(runs, func(r postRun) time.Duration { return r.p99 }),
		process: medianBy(runs, func(r postRun) time.Duration { return r.process }),
		redis:   medianBy(runs, func(r postRun) time.Duration { return r.redis }),
		server:  medianBy(runs, func(r postRun) time.Duration { return r.server }),
		workers: medianBy(runs, func(r postRun) time.Duration { return r.workers }),
	}}
}

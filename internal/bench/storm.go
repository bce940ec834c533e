package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// stormTimeout bounds one storm, with all that comes before and after it.
const stormTimeout = 2 * time.Minute

// A storm is what came of writes that were all sent at once.
type storm struct {
	wall     time.Duration // until the last reply
	p50, p99 time.Duration // of a reply, from the moment at which all were sent
	renders  int64

	here, workers, redis time.Duration // processor time
}

func (s storm) String() string {
	return fmt.Sprintf("wall %5.0f ms   p50 %5.0f ms   p99 %5.0f ms   renders %5d   CPU %4.0f ms here, %4.0f ms workers, %4.0f ms Redis",
		milliseconds(s.wall), milliseconds(s.p50), milliseconds(s.p99), s.renders,
		milliseconds(s.here), milliseconds(s.workers), milliseconds(s.redis))
}

// benchStorm compares many writes to one page at once, whose renders are shared, with the same where each has its own.
func benchStorm(ctx context.Context, s settings) error {
	url, version, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer stop()
	state := fmt.Sprintf("%d writes at once, %v to render, %d worker processes of %d handlers and %d renders each, "+
		"1 server in the process of the clients", s.writes, renderTime, siteWorkers, s.slots, s.slots)
	fmt.Fprintf(s.out, "storm: %s; %d rounds\n", state, s.rounds)
	fmt.Fprintf(s.out, "%d processors, %s\n\n", runtime.NumCPU(), version)

	var shared, alone []storm
	var share, speedup []float64
	for round := range s.rounds {
		var on, off storm
		order := []func() error{
			func() (err error) { on, err = s.storm(ctx, url, false); return },
			func() (err error) { off, err = s.storm(ctx, url, true); return },
		}
		if round%2 == 1 { // a machine that grows slower or faster favours neither
			slices.Reverse(order)
		}
		for _, run := range order {
			if err := run(); err != nil {
				return err
			}
		}
		shared, alone = append(shared, on), append(alone, off)
		share = append(share, float64(on.renders)/float64(s.writes))
		speedup = append(speedup, float64(off.wall)/float64(on.wall))
		fmt.Fprintf(s.out, "  shared  %v\n  alone   %v\n  ratio %.2f\n", on, off, speedup[round])
	}
	fmt.Fprintf(s.out, "medians\n  shared  %v\n  alone   %v\n\n", medianOf(shared), medianOf(alone))
	fmt.Fprintf(s.out, "figure storm_renders_share %.4f (goal at most 0.05)\n", median(share))
	fmt.Fprintf(s.out, "figure storm_speedup %.2f (goal at least 10)\n", median(speedup))
	fmt.Fprintf(s.out, "with %s\n", state)
	return nil
}

func versionOf(ctx context.Context, url string) (string, error) {
	rdb, err := clientOf(url)
	if err != nil {
		return "", err
	}
	defer rdb.Close()
	info, err := rdb.InfoMap(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	return "Redis " + info["Server"]["redis_version"], nil
}

// storm makes one on a site of its own. It is an error if a reply is not 204, a write was not carried out exactly once,
// or the page is not current when all replies have come.
func (s settings) storm(ctx context.Context, redisURL string, alone bool) (result storm, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stormTimeout, fmt.Errorf("a storm took longer than %v", stormTimeout))
	defer cancel()
	site, err := startSite(ctx, order{Redis: redisURL, Slots: s.slots, Alone: alone}, layout{workers: siteWorkers}, listKey)
	if err != nil {
		return storm{}, err
	}
	defer func() { err = errors.Join(err, site.close(context.WithoutCancel(ctx))) }()
	clients, err := connect(ctx, site.url+listKey, s.writes)
	if err != nil {
		return storm{}, err
	}
	defer clients.close()

	first := min(2*siteWorkers*s.slots, s.writes) // to warm up
	if _, err := clients[:first].storm(); err != nil {
		return storm{}, fmt.Errorf("warm up: %w", err)
	}
	before, err := site.settle(ctx)
	if err != nil {
		return storm{}, err
	}
	runtime.GC()
	latencies, err := clients.storm()
	if err != nil {
		return storm{}, err
	}
	page, err := clients[0].page()
	if want := strconv.Itoa(first + s.writes); err != nil || page != want {
		return storm{}, errors.Join(err, fmt.Errorf("after %s writes the page shows %q", want, page))
	}
	after, err := site.settle(ctx)
	if err != nil {
		return storm{}, err
	}
	if written := after.Writes - before.Writes; written != int64(s.writes) {
		return storm{}, fmt.Errorf("%d writes were carried out %d times", s.writes, written)
	}
	return storm{
		wall: latencies[s.writes-1], p50: latencies[s.writes/2], p99: latencies[s.writes*99/100],
		renders: after.Renders - before.Renders, workers: after.CPU - before.CPU,
		here: after.others.process - before.others.process, redis: after.others.redis - before.others.redis,
	}, nil
}

// medianOf returns the median of each value by itself.
func medianOf(storms []storm) storm {
	return storm{
		wall:    medianBy(storms, func(s storm) time.Duration { return s.wall }),
		p50:     medianBy(storms, func(s storm) time.Duration { return s.p50 }),
		p99:     medianBy(storms, func(s storm) time.Duration { return s.p99 }),
		renders: medianBy(storms, func(s storm) int64 { return s.renders }),
		here:    medianBy(storms, func(s storm) time.Duration { return s.here }),
		workers: medianBy(storms, func(s storm) time.Duration { return s.workers }),
		redis:   medianBy(storms, func(s storm) time.Duration { return s.redis }),
	}
}

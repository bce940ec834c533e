package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// payload is the length of requests and replies in bytes.
const payload = 512

// answer is the application of both sides: it writes nothing and says back what it was told, so that a caller can tell
// the reply to its request from every other.
func answer(request string) string { return request }

// A side is one way to have requests answered.
type side interface {
	// do returns the reply to a request. It is called concurrently.
	do(ctx context.Context, request string) (string, error)

	// close ends everything that the side has started and removes its keys. Nobody calls do any more.
	close(ctx context.Context) error
}

// apart is a side that is answered by processes of their own.
type apart interface {
	// usage returns the processor time that they have taken.
	usage() (server, workers time.Duration, err error)
}

// errNoJob means that a window was too short.
var errNoJob = errors.New("no job ended within the window: take a longer one with -seconds")

// A measurement is what one side did in one window.
type measurement struct {
	rate           float64 // jobs per second
	p50, p99       time.Duration
	process, redis time.Duration // processor time per job, user and system: of this process, of Redis

	server, workers time.Duration // the same of processes that a side has; else 0
}

func (m measurement) String() string {
	return fmt.Sprintf("%8.0f jobs/s   p50 %7.3f ms   p99 %7.3f ms   CPU per job %6.1f µs here, %5.1f µs Redis",
		m.rate, milliseconds(m.p50), milliseconds(m.p99), microseconds(m.process), microseconds(m.redis))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// measure has callers send one request after the other to the side. What happens before the window, while connections
// are opened, is not counted; nor are jobs that end after it.
func measure(ctx context.Context, rdb redis.UniversalClient, s side, callers int, window time.Duration) (measurement, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now().Add(warmUp(window))
	end := begin.Add(window)

	latencies := make([][]time.Duration, callers)
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			var err error
			if latencies[caller], err = call(ctx, s, caller, begin, end); err != nil {
				cancel(err)
			}
		})
	}
	before, err := usageOf(ctx, rdb, s, begin)
	after, err2 := usageOf(ctx, rdb, s, end)
	if err = errors.Join(err, err2); err != nil {
		cancel(err)
	}
	group.Wait()
	if ctx.Err() != nil {
		return measurement{}, context.Cause(ctx)
	}

	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return measurement{}, errNoJob
	}
	slices.Sort(all)
	jobs := time.Duration(len(all))
	return measurement{
		rate: float64(len(all)) / window.Seconds(),
		p50:  all[len(all)/2], p99: all[len(all)*99/100],
		process: (after.process - before.process) / jobs, redis: (after.redis - before.redis) / jobs,
		server: (after.server - before.server) / jobs, workers: (after.workers - before.workers) / jobs,
	}, nil
}

// warmUp is how long requests are sent before a window begins.
func warmUp(window time.Duration) time.Duration { return max(window/4, 200*time.Millisecond) }

// call sends requests until the end and returns the latencies of those that ended between begin and end.
func call(ctx context.Context, s side, caller int, begin, end time.Time) ([]time.Duration, error) {
	var latencies []time.Duration
	filler := strings.Repeat(".", payload)
	for n := 0; ; n++ {
		request := strconv.Itoa(caller) + "/" + strconv.Itoa(n)
		request += filler[len(request):]
		sent := time.Now()
		reply, err := s.do(ctx, request)
		now := time.Now()
		switch {
		case err != nil:
			return nil, err
		case reply != request:
			return nil, fmt.Errorf("caller %d asked %q and was answered %q", caller, request, reply)
		case now.After(end):
			return latencies, nil
		case now.After(begin):
			latencies = append(latencies, now.Sub(sent))
		}
	}
}

// usage is processor time, user and system.
type usage struct {
	process, redis  time.Duration
	server, workers time.Duration // of a side that has processes
}

// usageOf is usageAt with the processes of a side.
func usageOf(ctx context.Context, rdb redis.UniversalClient, s side, at time.Time) (usage, error) {
	u, err := usageAt(ctx, rdb, at)
	if s, ok := s.(apart); ok && err == nil {
		u.server, u.workers, err = s.usage()
	}
	return u, err
}

func usageAt(ctx context.Context, rdb redis.UniversalClient, at time.Time) (usage, error) {
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return usage{}, context.Cause(ctx)
	}
	own, err := ownUsage()
	if err != nil {
		return usage{}, err
	}
	info, err := rdb.Info(ctx, "cpu").Result()
	if err != nil {
		return usage{}, err
	}
	u := usage{process: own}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return usage{}, fmt.Errorf("INFO cpu: %w", err)
			}
			u.redis += time.Duration(seconds * float64(time.Second))
		}
	}
	return u, nil
}

func ownUsage() (time.Duration, error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(own.Utime.Nano() + own.Stime.Nano()), nil
}

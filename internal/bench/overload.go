package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/itscales/scales"
)

const (
	// overloadWorkers and overloadSlots are the processes that requests are sent to, and how many handlers each runs at once.
	overloadWorkers, overloadSlots = 2, 4

	// overloadWait is how long a handler takes, all of it for I/O, so that the capacity is that of the slots.
	overloadWait = 20 * time.Millisecond

	// overloadDeadline is the option Deadline of the server.
	overloadDeadline = 5 * time.Second

	// overloadFactor is how many times as many requests come as can be carried out.
	overloadFactor = 3

	// One client in overloadLeavers leaves after overloadPatience, while its job waits.
	overloadLeavers, overloadPatience = 20, overloadDeadline / 4
)

// A fate is what became of one request.
type fate struct {
	status  int
	problem string        // the name of the problem that it is answered with, or ""
	took    time.Duration // from when it was due
	ended   time.Duration // from the beginning of the overload
}

// benchOverload measures what is carried out when more is asked for than can be: first as many requests per second as clients get
// answered who wait for each answer, then three times as many, whether or not there are answers.
func benchOverload(ctx context.Context, s settings) (err error) {
	url, version, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer stop()
	site, err := startSite(ctx, order{Redis: url, Slots: overloadSlots, Echo: &echoOrder{Wait: overloadWait, Count: true}},
		layout{workers: overloadWorkers, options: []scales.ServerOption{scales.Deadline(overloadDeadline)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.close(context.WithoutCancel(ctx))) }()
	o := &overload{settings: s, site: site, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 10_000, DisableCompression: true},
	}}
	defer o.client.CloseIdleConnections()
	fmt.Fprintf(s.out, "overload: handlers that wait for %v, %d worker processes of %d, deadline %v; %v\n%d processors, %s, %s\n\n",
		overloadWait, overloadWorkers, overloadSlots, overloadDeadline, s.window, runtime.NumCPU(), version, runtime.Version())
	capacity, err := o.capacity(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%d callers: %.1f requests/s, %.3f of what %d slots would do without a pause\n", overloadCallers, capacity,
		capacity*overloadWait.Seconds()/(overloadWorkers*overloadSlots), overloadWorkers*overloadSlots)
	return o.run(ctx, capacity)
}

// overloadCallers is how many callers find out the capacity: enough that the queue is never empty.
const overloadCallers = 4 * overloadWorkers * overloadSlots

type overload struct {
	settings
	site   *site
	client *http.Client
	mu     sync.Mutex
	fates  map[string]fate // by what was sent
}

// capacity returns how many requests are carried out per second when callers wait for each answer.
func (o *overload) capacity(ctx context.Context) (perSecond float64, err error) {
	callers, err := newPosts(ctx, strings.TrimPrefix(o.site.url, "http://"), overloadCallers, quietTarget)
	if err != nil {
		return 0, err
	}
	m, err := measureAndClose(ctx, o.site.rdb, "capacity", callers, overloadCallers, min(o.window, 10*time.Second))
	if err != nil {
		return 0, err
	}
	if _, err := o.site.settle(ctx); err != nil {
		return 0, err
	}
	return m.rate, nil
}

// run sends requests at their time for a window, and prints what became of them.
func (o *overload) run(ctx context.Context, capacity float64) error {
	o.fates = make(map[string]fate)
	due := time.Duration(float64(time.Second) / (capacity * overloadFactor))
	total := int(o.window / due)
	var sent sync.WaitGroup
	begin := time.Now()
	for i := range total {
		at := begin.Add(time.Duration(i) * due)
		if wait := time.Until(at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		patience := 4 * overloadDeadline
		if i%overloadLeavers == 0 {
			patience = overloadPatience
		}
		sent.Go(func() { o.send(ctx, patience, fmt.Sprintf("request %d", i), begin, at) })
	}
	lag := time.Since(begin) - o.window
	sent.Wait()
	if _, err := o.site.settle(ctx); err != nil {
		return err
	}
	stats, err := o.site.cache.Queue().Stats(ctx)
	if err != nil {
		return err
	}
	executed, err := o.site.rdb.HGetAll(ctx, o.site.order.executions()).Result()
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%d requests in %v, %.1f per second, the last one sent %v late\n", total, o.window, float64(total)/o.window.Seconds(), lag.Round(time.Millisecond))
	return o.report(capacity, executed, stats.Withdrawn)
}

// leftEarly is the problem of a client that leaves.
const leftEarly = "the client left"

// send sends one request and notes what becomes of it.
func (o *overload) send(ctx context.Context, patience time.Duration, body string, begin, due time.Time) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var f fate
	defer func() {
		f.took, f.ended = time.Since(due), time.Since(begin)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.fates[body] = f
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.site.url+quietKey, strings.NewReader(body))
	if err != nil {
		f.problem = err.Error()
		return
	}
	response, err := o.client.Do(request)
	var answer []byte
	if err == nil {
		defer response.Body.Close()
		answer, err = io.ReadAll(response.Body)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		f.problem = leftEarly
	case err != nil:
		f.problem = err.Error()
	case response.StatusCode == http.StatusCreated && string(answer) == body:
		f = fate{status: response.StatusCode}
	default:
		_, name, _ := strings.Cut(string(answer), "urn:scales:problem:")
		name, _, _ = strings.Cut(name, `"`)
		f = fate{status: response.StatusCode, problem: name}
		if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
			f.problem += " without Retry-After"
		}
	}
}

// report prints what became of the requests. It is an error if one was carried out that was told it never would be, or that was
// withdrawn because its client had left, or one more often than once, or if one was not that was told so.
func (o *overload) report(capacity float64, executed map[string]string, withdrawn int64) error {
	var accepted, refused []time.Duration
	counts := make(map[string]int)
	var inTime, wrong int
	var left, leftExecuted int64
	var first error
	note := func(format string, args ...any) {
		wrong++
		if first == nil {
			first = fmt.Errorf(format, args...)
		}
	}
	for body, f := range o.fates {
		counts[strings.TrimSpace(fmt.Sprint(f.status, " ", f.problem))]++
		times := executed[body]
		switch {
		case f.status == http.StatusCreated:
			accepted = append(accepted, f.took)
			if f.ended <= o.window {
				inTime++
			}
			if times != "1" {
				note("%q was answered %d and carried out %q times", body, f.status, times)
			}
		case f.status == http.StatusServiceUnavailable:
			refused = append(refused, f.took)
			if times != "" {
				note("%q was answered %s and carried out %s times", body, f.problem, times)
			}
		case f.problem == leftEarly:
			left++
			if times != "" {
				leftExecuted++
			}
		case times != "" && times != "1":
			note("%q was carried out %s times", body, times)
		}
	}
	withdrawn -= int64(counts["503 not-started"]) // of those who had waited until the deadline
	if leftExecuted > max(0, left-withdrawn) {
		note("%d clients left, %d jobs were withdrawn, and %d of those who had left were carried out", left, withdrawn, leftExecuted)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(o.out, "  %6d  %s\n", counts[name], name)
	}
	if len(accepted) == 0 || len(refused) == 0 {
		return fmt.Errorf("of %d requests %d were carried out and %d refused: that is no overload", len(o.fates), len(accepted), len(refused))
	}
	slices.Sort(accepted)
	slices.Sort(refused)
	fmt.Fprintf(o.out, "\nfigure overload_goodput %.3f (goal at least 0.90)\n", float64(inTime)/o.window.Seconds()/capacity)
	fmt.Fprintf(o.out, "figure overload_p50_of_deadline %.3f\nfigure overload_p99_of_deadline %.3f (%v of %v)\n", accepted[len(accepted)/2].Seconds()/overloadDeadline.Seconds(),
		accepted[len(accepted)*99/100].Seconds()/overloadDeadline.Seconds(), accepted[len(accepted)*99/100].Round(time.Millisecond), overloadDeadline)
	fmt.Fprintf(o.out, "figure overload_refused_p50_ms %.2f\nfigure overload_refused_p99_ms %.2f\n", milliseconds(refused[len(refused)/2]), milliseconds(refused[len(refused)*99/100]))
	fmt.Fprintf(o.out, "figure overload_withdrawn %d\nfigure overload_wrong_executions %d\n", withdrawn, wrong)
	return first
}

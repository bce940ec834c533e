package blackbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// readPace and writePace are the shortest times between two requests of a client, to leave something of the machine to
	// those who answer.
	readPace  = 20 * time.Millisecond
	writePace = 100 * time.Millisecond
	// patience is how long a test waits for what has no limit of its own.
	patience = 30 * time.Second
)

// soon is the longest time in which an outage is told, and in which everything works again after it: two seconds, and more
// for processes that the race detector slows down.
var soon = map[bool]time.Duration{false: 2 * time.Second, true: 5 * time.Second}[raceDetector]

// phase is a time in which requests may be answered in certain ways. A request that begins in one phase and ends in
// another may be answered as in any, for what happens between two phases happens to it.
type phase struct {
	name string
	get  []int
	post []int
}

// anyhow is a phase in which something is just happening. A page that exists is never told to be missing, even then.
func anyhow(name string) phase {
	return phase{
		name: name, get: []int{http.StatusOK, http.StatusServiceUnavailable},
		post: []int{http.StatusCreated, http.StatusServiceUnavailable, http.StatusGatewayTimeout},
	}
}

// working is a phase in which everything works.
func working(name string) phase {
	return phase{name: name, get: []int{http.StatusOK}, post: []int{http.StatusCreated}}
}

// traffic is a number of clients that read pages which never change, and write new tracks, until it is stopped.
type traffic struct {
	server *process
	ledger *ledger
	pages  map[string]*answer // what the readers must get
	keys   []string
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu       sync.Mutex
	phase    phase
	number   int                    // of the phase
	answered map[string]map[int]int // answers of this phase by method and status
	told     chan struct{}          // closed and made anew with every answer
	problems []error
	longest  map[string]time.Duration // by phase and method
}

// newTraffic returns traffic through a server; it begins with the first phase. The application says what the pages are.
func (s *site) newTraffic(t *testing.T, server *process) *traffic {
	t.Helper()
	var keys []string
	for id := int64(1); id <= 100; id++ {
		keys = append(keys, trackKeys(id)...)
	}
	pages, err := readAll(t.Context(), s.app, keys)
	if err != nil {
		t.Fatal(err)
	}
	traffic := &traffic{
		server: server, ledger: newLedger("Traffic"), pages: pages, keys: keys,
		told: make(chan struct{}), longest: map[string]time.Duration{},
	}
	traffic.ctx, traffic.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		traffic.cancel()
		traffic.group.Wait()
	})
	return traffic
}

// enter begins a phase, with new clients: the old ones may be held up by what they began before, and end with it.
func (f *traffic) enter(p phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.number++
	f.phase, f.answered = p, map[string]map[int]int{http.MethodGet: {}, http.MethodPost: {}}
	number := f.number
	for range *trafficReaders {
		f.group.Go(func() { f.client(number, readPace, f.read) })
	}
	for range *trafficWriters {
		f.group.Go(func() { f.client(number, writePace, f.write) })
	}
}

// client sends requests, one after the other, while its phase lasts.
func (f *traffic) client(number int, pace time.Duration, request func() (call, func(*answer) error)) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for ; f.ctx.Err() == nil; <-ticker.C {
		f.mu.Lock()
		lasts, p := f.number == number, f.phase
		f.mu.Unlock()
		if !lasts {
			return
		}
		c, judge := request()
		began := time.Now()
		a, err := f.server.do(f.ctx, c)
		took := time.Since(began)
		if err == nil {
			err = judge(a)
		} else {
			_ = judge(nil) // the error is the client's already
		}
		if f.ctx.Err() == nil {
			f.note(number, p, c, a, err, took)
		}
	}
}

// note takes down what became of a request that began in a phase.
func (f *traffic) note(number int, began phase, c call, a *answer, err error, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	strictly := f.number == number
	if err == nil {
		err = judgeAnswer(began, strictly, c, a, took)
	}
	if err != nil && len(f.problems) < 5 {
		f.problems = append(f.problems, fmt.Errorf("in the phase %q: %w", began.name, err))
	}
	key := began.name + " " + c.method
	f.longest[key] = max(f.longest[key], took)
	if strictly && a != nil {
		f.answered[c.method][a.status]++
	}
	close(f.told)
	f.told = make(chan struct{})
}

// judgeAnswer returns what is wrong with an answer. It is judged strictly if the phase in which it began still lasts. That a
// page cannot be had, or that nothing can be written, is told soon in any case; the reply to a write may take longer.
func judgeAnswer(p phase, strictly bool, c call, a *answer, took time.Duration) error {
	if !strictly {
		other := anyhow("")
		p.get, p.post = slices.Concat(p.get, other.get), slices.Concat(p.post, other.post)
	}
	allowed := p.get
	if c.method == http.MethodPost {
		allowed = p.post
	}
	switch {
	case !slices.Contains(allowed, a.status):
		return fmt.Errorf("%v: got %d after %v, want one of %v\n%.500s", c, a.status, took, allowed, a.body)
	case took > soon && (c.method == http.MethodGet || a.problem(http.StatusServiceUnavailable, "store-unreachable") == nil):
		return fmt.Errorf("%v: got %d after %v, want it within %v\n%.500s", c, a.status, took, soon, a.body)
	case a.status >= http.StatusInternalServerError:
		return a.problem(a.status, "")
	}
	return nil
}

// read is the request of a reader.
func (f *traffic) read() (call, func(*answer) error) {
	key := f.keys[rand.IntN(len(f.keys))]
	return call{method: http.MethodGet, target: key}, func(a *answer) error {
		if a == nil || a.status != http.StatusOK {
			return nil
		}
		return compareOne(f.pages[key], a)
	}
}

// write is the request of a writer.
func (f *traffic) write() (call, func(*answer) error) {
	name, request := f.ledger.next()
	return request, func(a *answer) error { return f.ledger.note(name, a) }
}

// await returns when that many requests of the method, begun in this phase, were answered with the status.
func (f *traffic) await(t *testing.T, within time.Duration, method string, status, number int) {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		f.mu.Lock()
		got, told, problem := f.answered[method][status], f.told, errors.Join(f.problems...)
		answered, name := maps.Clone(f.answered[method]), f.phase.name
		f.mu.Unlock()
		if problem != nil {
			t.Fatal(problem)
		}
		if got >= number {
			return
		}
		select {
		case <-told:
		case <-timeout.C:
			t.Fatalf("in the phase %q: not within %v: %d times %s with %d; answered by status: %v",
				name, within, number, method, status, answered)
		}
	}
}

// awaitBoth is await for readers and writers.
func (f *traffic) awaitBoth(t *testing.T, within time.Duration, get, post, number int) {
	t.Helper()
	began := time.Now()
	f.await(t, within, http.MethodGet, get, number)
	f.await(t, within-time.Since(began), http.MethodPost, post, number)
}

// stop ends the traffic, after the requests that are under way, and fails the test if something was wrong with an answer.
func (f *traffic) stop(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	f.number++ // no client's phase lasts
	f.phase = anyhow("the end")
	f.mu.Unlock()
	f.group.Wait()
	for _, problem := range f.problems {
		t.Error(problem)
	}
	t.Logf("longest answers: %v", f.longest)
}

package scales_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// crowd has more jobs wait than its worker can carry out in time: it has one slot, and nothing is finished before the crowd is released.
func crowd(t *testing.T, options ...scales.CacheOption) (s *system, release func()) {
	t.Helper()
	const jobs = 12
	open := make(chan struct{})
	app := handler(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			<-open
		}
	})
	s = single(t, app, setup{
		cache: options, worker: []scales.WorkerOption{scales.Concurrency(1)}, server: []scales.ServerOption{scales.Deadline(4 * time.Second)},
	})
	for range jobs { // nobody waits for them
		s.send("POST", "/", "", "Prefer", "respond-async").is(t, 202, "{\"state\":\"queued\"}\n")
	}
	return s, func() {
		close(open)
		await.Until(t, "the jobs are finished", func() bool { return s.stats().Finished >= jobs })
	}
}

func (s *system) stats() scales.QueueStats {
	s.t.Helper()
	return must(s.cache.Queue().Stats(context.Background()))(s.t)
}

// refusal is the answer to one more request, sent again and again for so long by a client that leaves if it has to wait; nil if none of
// them is answered.
func (s *system) refusal(patience time.Duration) *response {
	s.t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; {
		ctx, leave := context.WithTimeout(context.Background(), 200*time.Millisecond)
		req := must(http.NewRequestWithContext(ctx, "POST", s.url+"/more", nil))(s.t)
		res, err := client.Do(req)
		if err == nil {
			answer := readAll(s.t, res)
			leave()
			return &answer
		}
		leave()
		if !errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatal(err)
		}
	}
	return nil
}

// A deadline that cannot be met is told at once, and when it is worth the while to try again; not after the deadline.
func TestWhoCannotBeServedInTimeIsToldSo(t *testing.T) {
	s, release := crowd(t)
	defer release()
	refusal := s.refusal(18 * time.Second)
	if refusal == nil {
		t.Fatal("nobody was refused")
	}
	refusal.problem(t, 503, "too-busy")
	// Nothing is ever finished, as far as is known.
	if seconds, err := strconv.Atoi(refusal.Header.Get("Retry-After")); err != nil || seconds < 5 || seconds > 10 {
		t.Errorf("Retry-After: %q", refusal.Header.Get("Retry-After"))
	}
	await.Until(t, "who has left is withdrawn, which is after the answer to whoever came next", func() bool { return s.stats().Jobs == 12 })
	// Who can wait for long enough is not refused.
	s.send("POST", "/more", "", "Prefer", "respond-async").is(t, 202, "{\"state\":\"queued\"}\n")
}

func TestWithoutThePaceOfTheWorkersNobodyIsToldSo(t *testing.T) {
	s, release := crowd(t, scales.QueueGuards(jobqueue.Guards{NoPace: true}))
	defer release()
	if refusal := s.refusal(9 * time.Second); refusal != nil {
		t.Errorf("refused with %d: %s", refusal.StatusCode, refusal.body)
	}
}

func TestStatsSayWhatTheQueueIsLike(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		t.Parallel()
		began, open := make(chan struct{}, 2), make(chan struct{})
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" && r.URL.Path == "/slow" {
				began <- struct{}{}
				<-open
			}
		})
		s := start(t, rdb, app, setup{
			cache:  []scales.CacheOption{scales.Partitions(partitions)},
			worker: []scales.WorkerOption{scales.Concurrency(2)},
		})
		stats := s.stats()
		if stats != (scales.QueueStats{Workers: 1, Slots: 2, EnqueueRate: stats.EnqueueRate, FinishRate: stats.FinishRate}) {
			t.Errorf("before anything: %+v", stats)
		}
		s.send("GET", "/", "")
		await.Until(t, "the server is known", func() bool { return s.stats().Servers == 1 })
		s.send("POST", "/fast?", "", "Idempotency-Key", "one").is(t, 200, "")
		answers := make(chan response, 3)
		for range 2 {
			go func() { answers <- s.send("POST", "/slow", "") }()
			<-began
		}
		go func() { answers <- s.send("POST", "/slow", "") }()
		await.Until(t, "three jobs are there", func() bool {
			stats = s.stats()
			return stats.Jobs == 3
		})
		if stats.Running != 2 || stats.Oldest <= 0 || stats.Enqueued != 4 || stats.Finished != 1 || stats.Tracked != 1 || stats.TrackedSize <= 0 {
			t.Errorf("with three jobs: %+v", stats)
		}
		close(open)
		for range 3 {
			(<-answers).is(t, 200, "")
		}
		await.Until(t, "there are rates", func() bool {
			stats = s.stats()
			return stats.FinishRate > 0 && stats.EnqueueRate > 0
		})
		if stats = s.stats(); stats.Jobs != 0 || stats.Running != 0 || stats.Oldest != 0 || stats.Finished != 4 || stats.Withdrawn != 0 {
			t.Errorf("in the end: %+v", stats)
		}
		if err := s.server.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if stats = s.stats(); stats.Servers != 0 {
			t.Errorf("after the server was closed: %+v", stats)
		}
	})
}

// overlaps counts how many handlers of one path ran at once, at most.
type overlaps struct {
	hold time.Duration // how long a handler runs, so that others may begin meanwhile

	mu      sync.Mutex
	running map[string]int
	most    map[string]int
	all     []string
}

func (o *overlaps) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != "POST" {
		return
	}
	o.mu.Lock()
	o.running[r.URL.Path]++
	o.most[r.URL.Path] = max(o.most[r.URL.Path], o.running[r.URL.Path])
	o.all = append(o.all, r.URL.String())
	o.mu.Unlock()
	time.Sleep(o.hold)
	o.mu.Lock()
	o.running[r.URL.Path]--
	o.mu.Unlock()
}

// inOrder sends requests to two paths through a server with two workers, and returns what ran when.
func inOrder(t *testing.T, rdb redis.UniversalClient, partitions int, guards jobqueue.Guards, hold time.Duration) *overlaps {
	t.Helper()
	app := &overlaps{hold: hold, running: make(map[string]int), most: make(map[string]int)}
	s := start(t, rdb, app, setup{
		cache:  []scales.CacheOption{scales.Partitions(partitions), scales.QueueGuards(guards)},
		server: []scales.ServerOption{scales.Order(func(r *http.Request) string { return r.URL.Path })},
	})
	second := must(scales.NewWorker(s.cache, app))(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- second.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await.Until(t, "both workers are known", func() bool { return s.stats().Workers == 2 })
	const each = 12
	for i := range each {
		for _, path := range []string{"/a", "/b"} {
			s.send("POST", path+"?n="+strconv.Itoa(i), "", "Prefer", "respond-async")
		}
	}
	await.Until(t, "the jobs are finished", func() bool { return s.stats().Finished == 2*each })
	return app
}

func TestRequestsOfAnOrderRunOneAfterTheOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		t.Parallel()
		app := inOrder(t, rdb, partitions, jobqueue.Guards{}, 5*time.Millisecond)
		next := map[string]int{}
		for _, target := range app.all {
			path, n, _ := strings.Cut(target, "?n=")
			if n != strconv.Itoa(next[path]) {
				t.Errorf("%s ran as number %d", target, next[path])
			}
			next[path]++
		}
		if app.most["/a"] != 1 || app.most["/b"] != 1 || next["/a"] != 12 || next["/b"] != 12 {
			t.Errorf("at once: %v, in all: %v", app.most, next)
		}
	})
}

// One order keeps no others out: of those that wait for each other there may be a tenth of the queue.
func TestRequestsOfAnOrderAreRefusedWhereTooManyWait(t *testing.T) {
	open := make(chan struct{})
	app := handler(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && r.URL.Path == "/a" {
			<-open
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{
		scales.Order(func(r *http.Request) string { return r.URL.Path }), scales.QueueLength(15),
	}})
	release := sync.OnceFunc(func() { close(open) })
	t.Cleanup(release)
	for range 3 { // one runs, two wait
		s.send("POST", "/a", "", "Prefer", "respond-async").is(t, 202, "{\"state\":\"queued\"}\n")
	}
	tracked := s.stats().Tracked
	for range 2 { // a refusal leaves the key free
		refused := s.send("POST", "/a", "", "Idempotency-Key", "one").problem(t, 503, "order-full")
		if !strings.Contains(refused.body, `"limit":2`) {
			t.Error(refused.body)
		}
	}
	if now := s.stats().Tracked; now != tracked {
		t.Errorf("%d requests are tracked, and were %d", now, tracked)
	}
	s.send("POST", "/b", "").is(t, 200, "")
	release()
	await.Until(t, "they are finished", func() bool { return s.stats().Jobs == 0 })
}

// restart has the only worker end while its handler runs for longer than a lease, and a request come meanwhile, which is answered when a
// successor has begun.
func restart(t *testing.T, guards jobqueue.Guards) (meanwhile response) {
	const lease = 3 * time.Second
	began, open := make(chan struct{}), make(chan struct{})
	app := handler(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && r.URL.Path == "/slow" {
			close(began)
			<-open
		}
	})
	release := sync.OnceFunc(func() { close(open) })
	defer release()
	s := single(t, app, setup{
		idle: true, cache: []scales.CacheOption{scales.QueueGuards(guards)}, worker: []scales.WorkerOption{scales.Lease(lease)},
	})
	stop := s.run()
	slow, second, ended := make(chan response), make(chan response, 1), make(chan struct{})
	go func() { slow <- s.send("POST", "/slow", "") }()
	<-began
	go func() {
		stop()
		close(ended)
	}()
	await.Until(t, "the worker takes no more jobs", func() bool { return s.stats().Workers == 0 })
	<-time.After(lease)
	go func() { second <- s.send("POST", "/meanwhile", "") }()
	await.Until(t, "the request waits, or is refused", func() bool { return s.stats().Jobs == 2 || len(second) == 1 })
	release()
	(<-slow).is(t, 200, "")
	<-ended
	s.run()
	return <-second
}

func TestTheOnlyWorkerIsRestarted(t *testing.T) {
	restart(t, jobqueue.Guards{}).is(t, 200, "")
}

func TestIfNobodyWaitedForASuccessorARestartWouldRefuseRequests(t *testing.T) {
	restart(t, jobqueue.Guards{NoSuccessor: true}).problem(t, 503, "no-worker")
}

// Clients may leave before Redis had its time to answer, and a server may have nothing but writes: its log says all the same that Redis
// is away, and that it is back.
func TestAnOutageIsLoggedThoughNobodyWaitsForItsEnd(t *testing.T) {
	redistest.Require(t)
	store := redistest.Start(t)
	namespace := scales.Namespace(redistest.Namespace(t))
	s := start(t, store.Client(t), newShelf(), setup{cache: []scales.CacheOption{namespace}})
	text := &logs{t: t}
	writes := s.serve(store.Client(t), []scales.CacheOption{
		namespace, scales.StoreTimeout(300 * time.Millisecond), scales.Logger(slog.New(slog.NewTextHandler(text, nil))),
	})
	write := func(patience time.Duration) bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer := httptest.NewRecorder()
		writes.server.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, "PUT", "/books/1", strings.NewReader("Moby-Dick")))
		return answer.Code == 204
	}
	await.Until(t, "a write is carried out", func() bool { return write(time.Minute) })
	away := func() int { return strings.Count(text.text(), "Redis is away") }
	for range 2 {
		before := away()
		store.Pause()
		await.Until(t, "the outage is logged", func() bool {
			write(20 * time.Millisecond)
			return away() > before
		})
		store.Resume()
		await.Until(t, "its end is logged", func() bool {
			return write(time.Minute) && strings.Count(text.text(), "Redis is back") == away()
		})
	}
}

// A Redis that has no memory left answers, and refuses what writes. That is logged once, and once that it is over.
func TestThatRedisTakesNoWritesIsLoggedOnce(t *testing.T) {
	redistest.Require(t)
	rdb, ctx := redistest.Start(t).Client(t), context.Background()
	s := start(t, rdb, newShelf(), setup{
		fill: []string{"/books"}, cache: []scales.CacheOption{scales.StoreTimeout(5 * time.Second)}, server: []scales.ServerOption{scales.LocalCopy(0)},
	})
	s.send("PUT", "/books/1", "Moby-Dick").is(t, 204, "")
	limit := func(memory string) {
		t.Helper()
		if err := rdb.ConfigSet(ctx, "maxmemory", memory).Err(); err != nil {
			t.Fatal(err)
		}
	}
	limit("1")
	for begin := time.Now(); time.Since(begin) < 3*time.Second; {
		s.send("PUT", "/books/1", "Emma").problem(t, 503, "store-unreachable")
		s.send("GET", "/books", "").is(t, 200, "1 books")
		<-time.After(50 * time.Millisecond)
	}
	limit("0")
	await.Until(t, "writes are carried out", func() bool { return s.send("PUT", "/books/1", "Emma").StatusCode == 204 })
	await.Until(t, "that is logged", func() bool { return strings.Contains(s.logs.text(), "Redis takes writes again") })
	log := s.logs.text()
	if n := strings.Count(log, "Redis takes no writes"); n != 1 || strings.Contains(log, "Redis is away") {
		t.Errorf("%d times: %s", n, log)
	}
}

func TestWithoutTurnsRequestsOfAnOrderRunAtOnce(t *testing.T) {
	t.Parallel()
	app := inOrder(t, redistest.StartEmbedded(t).Client(t), 1, jobqueue.Guards{NoOrder: true}, time.Second)
	if app.most["/a"] < 2 && app.most["/b"] < 2 {
		t.Errorf("at once: %v", app.most)
	}
}

// A client can leave while its server asks for the queue. That says nothing of Redis, and is not logged as if it did.
func TestAClientThatLeavesIsNoOutage(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		t.Parallel()
		s := start(t, rdb, newShelf(), setup{cache: []scales.CacheOption{scales.Partitions(partitions)}})
		ctx, leave := context.WithCancel(context.Background())
		leave()
		answer := httptest.NewRecorder()
		s.server.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, "PUT", "/books/1", strings.NewReader("Moby-Dick")))
		if log := s.logs.text(); log != "" {
			t.Errorf("answered with %d; logged: %s", answer.Code, log)
		}
		s.send("PUT", "/books/1", "Moby-Dick").is(t, 204, "")
	})
}

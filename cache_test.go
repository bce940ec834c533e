package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

func newCache(t *testing.T, rdb redis.UniversalClient, opts ...scales.CacheOption) *scales.Cache {
	t.Helper()
	c := must(scales.NewCache(rdb, append([]scales.CacheOption{
		scales.Namespace(redistest.Namespace(t)), scales.Logger(slog.New(slog.NewTextHandler(&logs{t: t}, nil))),
	}, opts...)...))(t)
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestAProgramUsesTheCacheWithoutAWorker(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		c := newCache(t, rdb, scales.Partitions(partitions))
		if _, err := c.Get(ctx, "/a"); !errors.Is(err, scales.ErrNotFilled) {
			t.Errorf("before anything: %v", err)
		}
		entry := must(scales.JSON(map[string]int{"a": 1}))(t).With("X-A", "1").With("X-A", "2")
		entry.PushOnly = true
		want := []string{"/a", "/b?x=1", "/c"}
		for _, key := range want {
			if err := c.Push(ctx, key, entry); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.MarkFilled(ctx); err != nil {
			t.Fatal(err)
		}
		got := must(c.Get(ctx, "/%61"))(t)
		if got.Status != 200 || string(got.Body) != `{"a":1}` || !got.PushOnly || got.Header.Get("Content-Type") != "application/json" ||
			!slices.Equal(got.Header["X-A"], []string{"1", "2"}) {
			t.Errorf("%+v", got)
		}
		if n := must(c.Len(ctx))(t); n != 3 {
			t.Errorf("%d entries", n)
		}
		var keys []string
		for key, err := range c.Keys(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, want) {
			t.Errorf("keys: %v", keys)
		}
		if err := c.Destroy(ctx, "/a", "/c"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(ctx, "/a"); !errors.Is(err, scales.ErrNotFound) {
			t.Errorf("after it was destroyed: %v", err)
		}
		if n := must(c.Len(ctx))(t); n != 1 {
			t.Errorf("%d entries", n)
		}
		if err := c.Update(ctx, "/d"); err != nil {
			t.Fatal(err)
		}
		if stats := must(c.Queue().Stats(ctx))(t); stats.Pending != 1 {
			t.Errorf("pending after an update: %+v", stats)
		}
	})
}

func TestUpdatesFromElsewhereAreRendered(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/books"}})
		app.mu.Lock()
		app.books["1"] = "Emma"
		app.mu.Unlock()
		if err := s.cache.Update(context.Background(), "/books", "/books/1"); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/books", "/books/1"} {
			await.Until(t, "the page is rendered", func() bool {
				got := s.send("GET", path, "").body
				return got == "1 books" || got == "Emma"
			})
		}
	})
}

func TestATicketIsGoodForOneIncarnation(t *testing.T) {
	redistest.Require(t)
	rdb := redistest.Start(t).Client(t)
	ctx := context.Background()
	c := newCache(t, rdb)
	ticket := must(c.Ticket(ctx))(t)
	if err := c.Push(ctx, "/a", scales.Text("x").At(ticket)); err != nil {
		t.Fatal(err)
	}
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Push(ctx, "/a", scales.Text("x").At(ticket)); !errors.Is(err, scales.ErrTicket) {
		t.Errorf("after a flush: %v", err)
	}
}

func TestReadySaysEverythingThatIsWrong(t *testing.T) {
	redistest.Require(t)
	ctx := context.Background()
	server := redistest.Start(t, redistest.Directive("maxmemory-policy", "allkeys-lru"))
	c := newCache(t, server.Client(t), scales.StoreTimeout(300*time.Millisecond))
	err := c.Ready(ctx)
	if !errors.Is(err, scales.ErrNotFilled) || !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Errorf("an evicting Redis that is not filled: %v", err)
	}
	if err := server.Client(t).ConfigSet(ctx, "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.MarkFilled(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Errorf("when all is well: %v", err)
	}
	server.Kill()
	if err := c.Ready(ctx); !errors.Is(err, scales.ErrUnavailable) {
		t.Errorf("without Redis: %v", err)
	}
}

func TestReadyWorksOnAClusterAndOnTheEmbeddedRedis(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		c := newCache(t, rdb, scales.Partitions(partitions))
		if err := c.Ready(context.Background()); !errors.Is(err, scales.ErrNotFilled) {
			t.Errorf("before the fill: %v", err)
		}
		if err := errors.Join(c.MarkFilled(context.Background()), c.Ready(context.Background())); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherNumberOfPartitionsIsRefused(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		ctx := context.Background()
		name := scales.Namespace(redistest.Namespace(t))
		if err := newCache(t, rdb, name, scales.Partitions(2)).MarkFilled(ctx); err != nil {
			t.Fatal(err)
		}
		c := newCache(t, rdb, name, scales.Partitions(3))
		_, missed := c.Get(ctx, "/none")
		for what, err := range map[string]error{"Ready": c.Ready(ctx), "MarkFilled": c.MarkFilled(ctx)} {
			if !errors.Is(err, scales.ErrLayout) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if errors.Is(missed, scales.ErrNotFound) {
			t.Errorf("a miss is taken for true: %v", missed)
		}
	})
}

func TestAnOutageIsNoMiss(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t, redistest.AppendOnly())
	s := start(t, server.Client(t), newShelf(), setup{fill: []string{"/books"}})
	within := func(d time.Duration, f func()) {
		t.Helper()
		began := time.Now()
		f()
		if took := time.Since(began); took > d {
			t.Errorf("it took %v", took)
		}
	}
	for name, outage := range map[string][2]func(){"killed": {server.Kill, server.Restart}, "frozen": {server.Pause, server.Resume}} {
		t.Run(name, func(t *testing.T) {
			outage[0]()
			within(2*time.Second, func() { s.send("GET", "/books", "").problem(t, 503, "store-unreachable") })
			within(2*time.Second, func() { s.send("GET", "/none", "").problem(t, 503, "store-unreachable") })
			within(2*time.Second, func() { s.send("POST", "/books", "x").problem(t, 503, "store-unreachable") })
			outage[1]()
			within(9*time.Second, func() { // two seconds, but that beside all other tests
				await.Until(t, "reads are answered", func() bool { return s.send("GET", "/books", "").StatusCode == 200 })
				await.Until(t, "writes are answered", func() bool { return s.send("POST", "/books", "x").StatusCode == 201 })
			})
		})
	}
}

func TestAFlushedCacheIsFilledAgainWithoutARestart(t *testing.T) {
	redistest.Require(t)
	rdb := redistest.Start(t).Client(t)
	s := start(t, rdb, newShelf(), setup{fill: []string{"/books"}})
	s.send("POST", "/books", "Emma").is(t, 201, "")
	if err := rdb.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	s.send("GET", "/books", "").problem(t, 503, "not-filled")
	s.send("GET", "/none", "").problem(t, 503, "not-filled")
	await.Until(t, "the worker has noticed", func() bool { return s.send("POST", "/books", "Dracula").StatusCode == 201 })
	s.fill("/books", "/books/1", "/books/2")
	s.send("GET", "/books", "").is(t, 200, "2 books")
	s.send("GET", "/none", "").problem(t, 404, "not-found")
}

func TestAFillNamesWhatFailedAndWasRefused(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		broken := true
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/refused":
				w.Header().Set("Cache-Control", "private")
			case r.URL.Path == "/none":
				http.NotFound(w, r)
			case r.URL.Path == "/broken" && broken:
				w.WriteHeader(500)
			default:
				_, _ = io.WriteString(w, r.URL.Path)
			}
		})
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		var states []scales.FillState
		all := keys("/a", "/b", "/refused", "/none", "/broken", "no-slash")
		report, err := s.worker.Fill(context.Background(), maps.All(all),
			scales.FillParallel(3), scales.FillProgress(func(s scales.FillState) { states = append(states, s) }))
		if !errors.Is(err, scales.ErrFillIncomplete) {
			t.Errorf("error: %v", err)
		}
		if report.Keys != 6 || report.Stored != 2 || report.Refused != 2 || report.Failed != 2 || len(report.Problems) != 4 {
			t.Errorf("%+v", report)
		}
		for _, p := range report.Problems {
			if p.Reason == "" || p.Refused != (p.Key == "/refused" || p.Key == "/none") {
				t.Errorf("%+v", p)
			}
		}
		if len(states) != 6 || states[5].Keys != 6 {
			t.Errorf("progress: %+v", states)
		}
		s.send("GET", "/missing", "").problem(t, 503, "not-filled")
		broken = false
		if report := s.fill("/a", "/b", "/refused", "/broken"); report.Stored != 3 || report.Failed != 0 {
			t.Errorf("%+v", report)
		}
		s.send("GET", "/missing", "").problem(t, 404, "not-found")
		s.send("GET", "/refused", "").problem(t, 404, "not-found")
	})
}

func TestAFillEndsWithItsSequenceItsContextAndItsIncarnation(t *testing.T) {
	redistest.Require(t)
	rdb := redistest.Start(t).Client(t)
	var flushed sync.Once
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/flush" {
			return
		}
		flushed.Do(func() {
			if err := rdb.FlushAll(r.Context()).Err(); err != nil {
				t.Error(err)
			}
		})
	})
	s := start(t, rdb, app, setup{idle: true})
	bad := errors.New("no more")
	_, err := s.worker.Fill(context.Background(), func(yield func(string, error) bool) {
		_ = yield("/a", nil) && yield("", bad)
	})
	if !errors.Is(err, bad) {
		t.Errorf("its sequence: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = s.worker.Fill(ctx, func(yield func(string, error) bool) {
		for i := 0; yield(fmt.Sprint("/", i), nil); i++ {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("its context: %v", err)
	}
	if _, err = s.worker.Fill(context.Background(), maps.All(keys("/flush"))); !errors.Is(err, scales.ErrNotFilled) {
		t.Errorf("a flush in the middle: %v", err)
	}
	s.send("GET", "/none", "").problem(t, 503, "not-filled")
}

func TestOptionsAreCheckedTogether(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{})
	defer func() { _ = rdb.Close() }()
	_, err := scales.NewCache(rdb, scales.Namespace("a:b"), scales.Partitions(0), scales.Origin("example.com"), scales.MaxKeyLength(0),
		scales.MaxEntrySize(0), scales.MaxEntries(0), scales.TombstoneLife(1), scales.LogLength(0), scales.StoreTimeout(0),
		scales.ClaimLease(0), scales.Logger(nil), scales.Hosts())
	for _, name := range []string{"Namespace", "Partitions", "Origin", "MaxKeyLength", "MaxEntrySize", "MaxEntries", "TombstoneLife",
		"LogLength", "StoreTimeout", "ClaimLease", "Logger", "Hosts"} {
		if err == nil || !strings.Contains(err.Error(), "option "+name) {
			t.Errorf("option %s is not named in: %v", name, err)
		}
	}
	c := must(scales.NewCache(rdb))(t)
	_, err = scales.NewServer(c, scales.Deadline(0), scales.MaxBody(-1), scales.BodyMemory(-2), scales.BodyTimeout(0), scales.QueueLength(0), scales.ReservedPrefix("x"))
	for _, name := range []string{"Deadline", "MaxBody", "BodyMemory", "BodyTimeout", "QueueLength", "ReservedPrefix"} {
		if err == nil || !strings.Contains(err.Error(), "option "+name) {
			t.Errorf("option %s is not named in: %v", name, err)
		}
	}
	_, err = scales.NewWorker(c, newShelf(), scales.Concurrency(0), scales.JobTimeout(0), scales.Lease(0), scales.MaxReply(0),
		scales.MaxDeadLetters(0), scales.DrainTimeout(0), scales.RenderConcurrency(0), scales.RenderTimeout(time.Hour))
	for _, name := range []string{"Concurrency", "JobTimeout", "Lease", "MaxReply", "MaxDeadLetters", "DrainTimeout", "RenderConcurrency", "RenderTimeout"} {
		if err == nil || !strings.Contains(err.Error(), "option "+name) {
			t.Errorf("option %s is not named in: %v", name, err)
		}
	}
	if _, err := scales.NewCache(nil); err == nil {
		t.Error("a nil client is taken")
	}
	if _, err := scales.NewServer(nil); err == nil {
		t.Error("a nil cache is taken")
	}
	if _, err := scales.NewWorker(c, nil); err == nil {
		t.Error("a nil handler is taken")
	}
	replicas := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ReadOnly: true})
	defer func() { _ = replicas.Close() }()
	if _, err := scales.NewCache(replicas); err == nil || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("a client that reads from replicas: %v", err)
	}
}

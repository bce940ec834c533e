package shift_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/shift"
	"github.com/itscales/scales/internal/step"
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// bench is a queue with one shift and one producer.
type bench struct {
	consumer *jobqueue.Consumer
	producer *jobqueue.Producer
}

func start(t *testing.T, rdb redis.UniversalClient, app http.HandlerFunc, lease time.Duration, guards shift.Guards) *bench {
	t.Helper()
	namespace, logger := redistest.Namespace(t), slog.New(slog.DiscardHandler)
	prefix := partition.Prefix(namespace, 0)
	queue := jobqueue.Config{
		Client: rdb, Prefix: prefix, Meta: prefix + "meta", Timeout: 5 * time.Second, MaxQueue: 10_000, MaxDead: 10,
		Retention: time.Minute, Logger: logger,
	}
	store := partition.New(partition.Config{
		Client: rdb, Namespace: namespace, Partitions: 1, TombstoneLife: time.Minute, ClaimLease: 5 * time.Second, LogLength: 1000,
		MaxEntries: 1000, Timeout: 5 * time.Second,
	})
	rules, origin := &canonical.Rules{}, &url.URL{Scheme: "http", Host: "localhost"}
	redisLog := outage.New(logger, "Redis")
	renderer := render.New(render.Config{
		Store: store, App: app, Rules: rules, Origin: origin, Server: &http.Server{},
		Mark:  func(ctx context.Context) context.Context { return ctx },
		Limit: 4, Timeout: time.Second, MaxEntry: 1 << 20, Lease: time.Second, Retry: time.Second, Logger: logger, Outage: redisLog,
	})
	b := &bench{consumer: jobqueue.NewConsumer(queue, lease, 16), producer: jobqueue.NewProducer(queue)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		shift.Run(ctx, shift.Config{
			Consumer: b.consumer, Renderer: renderer, Rules: &step.Rules{Keys: rules, Origin: origin, Logger: logger}, App: app,
			Server: &http.Server{}, Writer: func(ctx context.Context) (context.Context, *step.Buffer) { return ctx, new(step.Buffer) },
			Exists: func(string) bool { return false }, Pend: func(context.Context, []string) error { return nil },
			Concurrency: 16, JobTimeout: time.Minute, DrainTimeout: 5 * time.Second, MaxReply: 1 << 20, Logger: logger, Outage: redisLog,
			Guards: guards,
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := b.producer.Close(context.Background()); err != nil {
			t.Error(err)
		}
		renderer.Close()
		store.Close()
	})
	for b.producer.Admit(context.Background()) != nil {
	}
	return b
}

func (b *bench) post(path string) error {
	_, err := b.producer.Do(context.Background(), jobqueue.Job{
		ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: "POST " + path + " HTTP/1.1\r\nHost: a\r\n\r\n",
	}, 20*time.Second)
	return err
}

// slowList is a Redis whose lists of owned jobs are old when they arrive.
type slowList struct{ redis.UniversalClient }

func (s slowList) XPendingExt(ctx context.Context, a *redis.XPendingExtArgs) *redis.XPendingExtCmd {
	cmd := s.UniversalClient.XPendingExt(ctx, a)
	<-time.After(5 * time.Millisecond)
	return cmd
}

func (s slowList) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := s.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if len(keys) == 3 && strings.HasSuffix(keys[2], "q:owed") {
		<-time.After(20 * time.Millisecond)
	}
	return cmd
}

// twice runs jobs on a shift that is in doubt all the time, and returns how many handlers ran more than once.
func twice(t *testing.T, guards shift.Guards) (n int) {
	t.Helper()
	const jobs = 600
	var runs [jobs]atomic.Int64
	app := func(w http.ResponseWriter, r *http.Request) {
		var i int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &i); err != nil {
			t.Error(err)
		}
		runs[i].Add(1)
		<-time.After(3 * time.Millisecond)
		w.WriteHeader(http.StatusUnprocessableEntity) // owes nothing
	}
	b := start(t, slowList{redistest.Shared(t)}, app, 400*time.Millisecond, guards)
	doubting, stop := context.WithCancel(context.Background())
	var group, clients sync.WaitGroup
	group.Go(func() {
		for doubting.Err() == nil {
			b.consumer.SetDoubt()
			<-time.After(5 * time.Millisecond)
		}
	})
	slots := make(chan struct{}, 32)
	for i := range runs {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			if err := b.post(fmt.Sprint("/", i)); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	stop()
	group.Wait()
	for i := range runs {
		if runs[i].Load() > 1 {
			n++
		}
	}
	return n
}

func TestADoubtRunsNoJobTwice(t *testing.T) {
	redistest.Require(t)
	if n := twice(t, shift.Guards{}); n > 0 {
		t.Errorf("%d handlers ran more than once", n)
	}
}

func TestWithAnEarlyLookADoubtRunsJobsTwice(t *testing.T) {
	redistest.Require(t)
	for range 30 {
		if twice(t, shift.Guards{EarlyLook: true}) > 0 {
			return
		}
	}
	t.Error("no handler ran more than once: the late look is not what prevents it")
}

// go-redis sends a fetch again whose answer was lost; nothing but the count of its jobs tells the worker of the first one.
func TestJobsOfAFetchWhoseAnswerWasLostAreServed(t *testing.T) {
	redistest.Require(t)
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	var runs atomic.Int64
	b := start(t, rdb, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.WriteHeader(http.StatusUnprocessableEntity)
	}, 200*time.Millisecond, shift.Guards{})
	for range 5 {
		dropped := proxy.DropReplyOnce("xreadgroup")
		answered := make(chan error, 1)
		go func() { answered <- b.post("/") }()
		<-dropped
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if n := runs.Load(); n != 5 {
		t.Errorf("5 jobs ran %d times", n)
	}
}

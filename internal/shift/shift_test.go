package shift_test

import (
	"context"
	"errors"
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

	"github.com/itscales/scales/internal/await"
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

// bench is a queue with one producer and at least one shift.
type bench struct {
	t         *testing.T
	rdb       redis.UniversalClient
	namespace string
	logger    *slog.Logger
	queue     jobqueue.Config
	producer  *jobqueue.Producer
	jobs      string // the stream

	consumer *jobqueue.Consumer // of the first shift
	stop     func()             // ends the first shift
}

func start(t *testing.T, rdb redis.UniversalClient, app http.HandlerFunc, lease time.Duration, guards shift.Guards) *bench {
	t.Helper()
	namespace, logger := redistest.Namespace(t), slog.New(slog.DiscardHandler)
	prefix := partition.Prefix(namespace, 0)
	queue := jobqueue.Config{
		Client: rdb, Prefix: prefix, Meta: prefix + "meta", Timeout: 5 * time.Second, MaxQueue: 10_000, MaxDead: 10,
		Retention: time.Minute, Logger: logger, Reading: outage.Reading(logger), Writing: outage.Writing(logger),
	}
	b := &bench{t: t, rdb: rdb, namespace: namespace, logger: logger, queue: queue, producer: jobqueue.NewProducer(queue), jobs: prefix + "q:jobs"}
	b.consumer, b.stop = b.work(app, lease, 16, guards)
	t.Cleanup(func() {
		if err := b.producer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	await.Until(t, "the worker is known", func() bool {
		return b.producer.Admit(context.Background(), jobqueue.Patience{Wait: time.Second}) == nil
	})
	return b
}

// work begins a shift, which ends with stop or the test.
func (b *bench) work(app http.HandlerFunc, lease time.Duration, slots int, guards shift.Guards) (consumer *jobqueue.Consumer, stop func()) {
	store := partition.New(partition.Config{
		Client: b.rdb, Namespace: b.namespace, Partitions: 1, TombstoneLife: time.Minute, ClaimLease: 5 * time.Second, LogLength: 1000,
		MaxEntries: 1000, Timeout: 5 * time.Second,
	})
	rules, origin := &canonical.Rules{}, &url.URL{Scheme: "http", Host: "localhost"}
	renderer := render.New(render.Config{
		Store: store, App: app, Rules: rules, Origin: origin, Server: &http.Server{},
		Mark:  func(ctx context.Context) context.Context { return ctx },
		Limit: 4, Timeout: time.Second, MaxEntry: 1 << 20, Lease: time.Second, Retry: time.Second, Logger: b.logger, Writing: outage.Writing(b.logger),
	})
	consumer = jobqueue.NewConsumer(b.queue, lease, slots)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		shift.Run(ctx, shift.Config{
			Consumer: consumer, Renderer: renderer, Rules: &step.Rules{Keys: rules, Origin: origin, Logger: b.logger}, App: app,
			Server: &http.Server{}, Writer: func(ctx context.Context, _ string) (context.Context, *step.Buffer) { return ctx, new(step.Buffer) },
			Exists: func(string) bool { return false }, Pend: func(context.Context, string, step.Pending) error { return nil },
			Concurrency: slots, JobTimeout: time.Minute, DrainTimeout: 5 * time.Second, MaxReply: 1 << 20, Logger: b.logger,
			Reading: outage.Reading(b.logger), Writing: outage.Writing(b.logger), Guards: guards,
		})
	}()
	b.t.Cleanup(func() {
		cancel()
		<-ended
		renderer.Close()
		store.Close()
	})
	return consumer, func() {
		cancel()
		<-ended
	}
}

func (b *bench) post(path string) error { return b.postWithin(path, 20*time.Second) }

func (b *bench) postWithin(path string, wait time.Duration) error {
	_, err := b.reply(path, wait)
	return err
}

// reply posts and returns the encoded response.
func (b *bench) reply(path string, wait time.Duration) (string, error) {
	reply, err := b.producer.Do(context.Background(), jobqueue.Job{
		ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: "POST " + path + " HTTP/1.1\r\nHost: a\r\n\r\n",
	}, jobqueue.Patience{Wait: wait})
	return reply.Text, err
}

// fetchFor has Redis deliver a job to a consumer whose worker does not know of it.
func (b *bench) fetchFor(consumer *jobqueue.Consumer) (id string) {
	b.t.Helper()
	taken, err := b.rdb.XReadGroup(b.t.Context(), &redis.XReadGroupArgs{
		Group: "workers", Consumer: consumer.ID(), Streams: []string{b.jobs, ">"}, Count: 1, Block: 5 * time.Second,
	}).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return taken[0].Messages[0].ID
}

// slowLook is a Redis that tells when it has loaded a job, and holds the answer back until the job has ended.
type slowLook struct {
	redis.UniversalClient
	loaded, ended chan struct{}
	once          *sync.Once
}

func (s slowLook) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := s.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if isLoad(keys) {
		s.once.Do(func() {
			close(s.loaded)
			<-s.ended
			<-time.After(20 * time.Millisecond) // the reply is out a little before the job is out of hand
		})
	}
	return cmd
}

// isLoad tells the script that loads jobs from all others by its keys.
func isLoad(keys []string) bool {
	return len(keys) == 4 && strings.HasSuffix(keys[2], "q:owed") && strings.HasSuffix(keys[3], "q:tracked")
}

// twice runs a job that the shift, which is in doubt, looks at while its handler runs, if it looks at it at all then. It
// returns how often the handler ran.
func twice(t *testing.T, guards shift.Guards) (runs int64) {
	t.Helper()
	rdb := slowLook{redistest.Shared(t), make(chan struct{}), make(chan struct{}), new(sync.Once)}
	var count atomic.Int64
	again := make(chan struct{}, 1)
	var b *bench
	b = start(t, rdb, func(w http.ResponseWriter, _ *http.Request) {
		if count.Add(1) == 1 {
			b.consumer.SetDoubt()
			select {
			case <-rdb.loaded:
			case <-time.After(300 * time.Millisecond):
			}
		} else {
			again <- struct{}{}
		}
		w.WriteHeader(http.StatusUnprocessableEntity) // owes nothing
	}, 200*time.Millisecond, guards)
	if err := b.post("/"); err != nil {
		t.Error(err)
	}
	close(rdb.ended)
	select {
	case <-again:
	case <-time.After(200 * time.Millisecond):
	}
	return count.Load()
}

func TestADoubtRunsNoJobTwice(t *testing.T) {
	redistest.Require(t)
	for range 3 {
		if n := twice(t, shift.Guards{}); n != 1 {
			t.Errorf("the handler ran %d times", n)
		}
	}
}

func TestWithAnEarlyLookADoubtRunsJobsTwice(t *testing.T) {
	redistest.Require(t)
	for range 30 {
		if twice(t, shift.Guards{EarlyLook: true}) > 1 {
			return
		}
	}
	t.Error("no handler ran more than once: the late look is not what prevents it")
}

// ghosts is a Redis to which one fetch gets through although its client has given it up.
type ghosts struct {
	redis.UniversalClient
	armed   *atomic.Bool
	haunted chan struct{} // closed when the fetch waits in Redis
	looked  chan struct{} // receives when the worker has looked for jobs that may be its own
}

func (g ghosts) XPendingExt(ctx context.Context, a *redis.XPendingExtArgs) *redis.XPendingExtCmd {
	cmd := g.UniversalClient.XPendingExt(ctx, a)
	select {
	case g.looked <- struct{}{}:
	default:
	}
	return cmd
}

func (g ghosts) XReadGroup(ctx context.Context, a *redis.XReadGroupArgs) *redis.XStreamSliceCmd {
	if !g.armed.CompareAndSwap(true, false) {
		return g.UniversalClient.XReadGroup(ctx, a)
	}
	ghost := *a
	go func() { _ = g.UniversalClient.XReadGroup(context.WithoutCancel(ctx), &ghost).Err() }()
	for {
		info, err := g.Info(ctx, "clients").Result()
		if err != nil || !strings.Contains(info, "blocked_clients:0") {
			break
		}
	}
	close(g.haunted)
	cmd := redis.NewXStreamSliceCmd(ctx)
	cmd.SetErr(context.DeadlineExceeded)
	return cmd
}

// haunt posts a job that goes to a fetch which was given up.
func haunt(t *testing.T, guards shift.Guards) error {
	t.Helper()
	rdb := ghosts{redistest.Start(t).Client(t), new(atomic.Bool), make(chan struct{}), make(chan struct{})}
	b := start(t, rdb, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
	}, time.Minute, guards)
	rdb.armed.Store(true)
	<-rdb.haunted
	<-rdb.looked
	return b.postWithin("/", 5*time.Second) // heartbeats come every 15 seconds
}

// A fetch that was given up may take jobs when Redis is back: the worker looks for them for as long.
func TestJobsOfAFetchThatWasGivenUpAreServed(t *testing.T) {
	redistest.Require(t)
	if err := haunt(t, shift.Guards{}); err != nil {
		t.Error(err)
	}
}

func TestWithoutLongDoubtJobsOfAFetchThatWasGivenUpWait(t *testing.T) {
	redistest.Require(t)
	if err := haunt(t, shift.Guards{NoLongDoubt: true}); !errors.Is(err, jobqueue.ErrRunning) {
		t.Errorf("%v: it is not the long doubt that finds the job", err)
	}
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

// cutOff is a Redis that no heartbeat of a worker reaches while it is away.
type cutOff struct {
	redis.UniversalClient
	away   *atomic.Bool
	beaten chan struct{} // receives when a heartbeat has arrived
	loaded chan struct{} // receives when a job was loaded
}

func (c cutOff) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	beat := len(keys) > 2 && strings.HasSuffix(keys[0], "q:workers") && strings.HasSuffix(keys[2], "q:samples")
	if beat && c.away.Load() {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(context.DeadlineExceeded)
		return cmd
	}
	cmd := c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	var told chan struct{}
	switch {
	case beat:
		told = c.beaten
	case isLoad(keys):
		told = c.loaded
	}
	select {
	case told <- struct{}{}:
	default:
	}
	return cmd
}

// overslept has a job wait for a slot while its worker is cut off for longer than its lease, and another worker takes the
// job over and ends it. It returns how often the handler of the job then runs.
func overslept(t *testing.T, guards shift.Guards) int64 {
	t.Helper()
	const slots = 16
	ctx := t.Context()
	rdb := cutOff{redistest.Shared(t), new(atomic.Bool), make(chan struct{}), make(chan struct{})}
	var runs atomic.Int64
	running, gate := make(chan struct{}, slots), make(chan struct{})
	b := start(t, rdb, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			runs.Add(1)
		} else {
			running <- struct{}{}
			<-gate
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	}, 400*time.Millisecond, guards)
	var clients sync.WaitGroup
	for range slots {
		clients.Go(func() {
			if err := b.post("/"); err != nil {
				t.Error(err)
			}
		})
	}
	for range slots {
		<-running
	}
	clients.Go(func() { _ = b.postWithin("/late", 3*time.Second) }) // nobody replies
	id := b.fetchFor(b.consumer)
	b.consumer.SetDoubt()
	<-rdb.loaded
	rdb.away.Store(true)
	<-time.After(500 * time.Millisecond)
	if err := errors.Join(rdb.XAck(ctx, b.jobs, "workers", id).Err(), rdb.XDel(ctx, b.jobs, id).Err()); err != nil {
		t.Fatal(err)
	}
	rdb.away.Store(false)
	<-rdb.beaten
	<-rdb.beaten
	close(gate)
	clients.Wait()
	return runs.Load()
}

func TestAJobThatWasTakenOverWhileItWaitedIsNotRun(t *testing.T) {
	redistest.Require(t)
	if n := overslept(t, shift.Guards{}); n != 0 {
		t.Errorf("it ran %d times more", n)
	}
}

func TestWithoutALookAJobThatWasTakenOverIsRunAgain(t *testing.T) {
	redistest.Require(t)
	if n := overslept(t, shift.Guards{NoLook: true}); n != 1 {
		t.Errorf("it ran %d times more: it is not the look that keeps it from running", n)
	}
}

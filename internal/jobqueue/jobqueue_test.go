package jobqueue_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/redistest"
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// fixture is one queue with as many ends as a test needs.
type fixture struct {
	t      *testing.T
	config jobqueue.Config
}

func newFixture(t *testing.T, rdb redis.UniversalClient) *fixture {
	prefix := "{" + redistest.Namespace(t) + ":0}:"
	return &fixture{t, jobqueue.Config{
		Client: rdb, Prefix: prefix, Meta: prefix + "meta", Timeout: 5 * time.Second, MaxQueue: 100, MaxDead: 100,
		Retention: time.Minute, Logger: slog.New(slog.DiscardHandler), Reading: outage.Reading(slog.New(slog.DiscardHandler)), Writing: outage.Writing(slog.New(slog.DiscardHandler)),
	}}
}

func (f *fixture) producer() *jobqueue.Producer {
	p := jobqueue.NewProducer(f.config)
	f.t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			f.t.Error(err)
		}
	})
	return p
}

func (f *fixture) consumer() *jobqueue.Consumer {
	f.t.Helper()
	return f.worker(time.Minute, 1)
}

// worker is a consumer that is known.
func (f *fixture) worker(lease time.Duration, slots int) *jobqueue.Consumer {
	f.t.Helper()
	c := jobqueue.NewConsumer(f.config, lease, slots)
	if err := c.Join(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) fetch(c *jobqueue.Consumer, n int) []*jobqueue.Delivery {
	f.t.Helper()
	for {
		deliveries, err := c.Fetch(context.Background(), n)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(deliveries) > 0 {
			return deliveries
		}
	}
}

// roundTrip has Redis know the scripts, so that a dropped answer is not the one that says it does not.
func (f *fixture) roundTrip(p *jobqueue.Producer, c *jobqueue.Consumer) {
	f.t.Helper()
	answers := do(p, context.Background(), "first", time.Minute)
	moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "")
	ok(f.t, moved, err)
	<-answers
}

// mine loads all jobs that a consumer owns.
func (f *fixture) mine(c *jobqueue.Consumer) []*jobqueue.Delivery {
	f.t.Helper()
	owned, err := c.Owned(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	loaded, err := c.Load(context.Background(), slices.Collect(maps.Keys(owned))...)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, d := range loaded {
		if d == nil || d.Deliveries != owned[d.StreamID] {
			f.t.Fatalf("listed %v, loaded %+v", owned, d)
		}
	}
	return loaded
}

type answer struct {
	reply string
	err   error
}

// do sends a job and returns where its answer will be.
func do(p *jobqueue.Producer, ctx context.Context, request string, wait time.Duration) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		reply, err := p.Do(ctx, jobqueue.Job{ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: request}, jobqueue.Patience{Wait: wait})
		answers <- answer{reply.Text, err}
	}()
	return answers
}

func ok(t *testing.T, moved bool, err error) {
	t.Helper()
	if !moved || err != nil {
		t.Fatalf("%t, %v", moved, err)
	}
}

func (f *fixture) counts() jobqueue.Stats {
	f.t.Helper()
	counts, err := jobqueue.ReadStats(context.Background(), f.config.Client, f.config.Prefix)
	if err != nil {
		f.t.Fatal(err)
	}
	return counts
}

func each(t *testing.T, test func(t *testing.T, f *fixture)) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) { test(t, newFixture(t, rdb)) })
}

func TestAJobIsFetchedFinishedAndAnswered(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		answers := do(p, context.Background(), "the request", time.Minute)
		d := f.fetch(c, 10)[0]
		if d.Request != "the request" || d.Scheme != "http" || d.Remote != "192.0.2.9:1" || !d.First() || d.Broken != nil {
			t.Errorf("delivered %+v", d)
		}
		if left := time.Duration(d.Deadline-c.Now()) * time.Microsecond; left < 50*time.Second || left > 61*time.Second {
			t.Errorf("%v are left until the deadline", left)
		}
		moved, err := c.Finish(context.Background(), d, "the reply")
		ok(t, moved, err)
		if got := <-answers; got != (answer{"the reply", nil}) {
			t.Errorf("%+v", got)
		}
		if counts := f.counts(); counts.Jobs != 0 {
			t.Errorf("left over: %+v", counts)
		}
		if moved, err := c.Finish(context.Background(), d, "the reply"); moved || err != nil {
			t.Errorf("finished twice: %t, %v", moved, err)
		}
	})
}

func TestEveryServerGetsItsOwnReplies(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const jobs = 60
		producers := []*jobqueue.Producer{f.producer(), f.producer(), f.producer()}
		c := f.consumer()
		var group sync.WaitGroup
		for i := range jobs {
			request := strings.Repeat("x", i+1)
			answers := do(producers[i%len(producers)], context.Background(), request, time.Minute)
			group.Go(func() {
				if got := <-answers; got.reply != "re: "+request || got.err != nil {
					t.Errorf("%q: %+v", request, got)
				}
			})
		}
		for done := 0; done < jobs; {
			for _, d := range f.fetch(c, 7) {
				done++
				group.Go(func() {
					moved, err := c.Finish(context.Background(), d, "re: "+d.Request)
					if !moved || err != nil {
						t.Errorf("%t, %v", moved, err)
					}
				})
			}
		}
		group.Wait()
	})
}

func TestAJobThatNobodyBeganIsWithdrawn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		if got := <-do(p, context.Background(), "x", 20*time.Millisecond); !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Errorf("at its deadline: %+v", got)
		}
		ctx, leave := context.WithCancel(context.Background())
		answers := do(p, ctx, "x", time.Minute)
		await.Until(t, "the job is there", func() bool { return f.counts().Jobs > 0 })
		leave()
		if got := <-answers; !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Errorf("after its client left: %+v", got)
		}
		if deliveries, err := c.Fetch(context.Background(), 10); len(deliveries) != 0 || err != nil {
			t.Errorf("delivered all the same: %v, %v", deliveries, err)
		}
	})
}

func TestAJobThatWasBegunIsNotWithdrawn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		ctx, leave := context.WithCancel(context.Background())
		answers := do(p, ctx, "x", time.Minute)
		d := f.fetch(c, 1)[0]
		leave()
		if got := <-answers; !errors.Is(got.err, jobqueue.ErrRunning) {
			t.Errorf("%+v", got)
		}
		moved, err := c.Finish(context.Background(), d, "late")
		ok(t, moved, err)
	})
}

func TestJobsAreRefusedWhereTheyCouldNotRun(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.config.MaxQueue = 2
		p := f.producer()
		if got := <-do(p, context.Background(), "x", time.Minute); !errors.Is(got.err, jobqueue.ErrNoWorker) {
			t.Errorf("without a worker: %+v", got)
		}
		c := f.consumer()
		p = f.producer()
		first, second := do(p, context.Background(), "1", time.Minute), do(p, context.Background(), "2", time.Minute)
		await.Until(t, "both jobs are there", func() bool { return f.counts().Jobs >= 2 })
		if got := <-do(p, context.Background(), "3", time.Minute); !errors.Is(got.err, jobqueue.ErrFull) {
			t.Errorf("with a full queue: %+v", got)
		}
		for done := 0; done < 2; {
			for _, d := range f.fetch(c, 2) {
				moved, err := c.Finish(context.Background(), d, "")
				ok(t, moved, err)
				done++
			}
		}
		<-first
		<-second
		closed := jobqueue.NewProducer(f.config)
		if err := closed.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := <-do(closed, context.Background(), "x", time.Minute); !errors.Is(got.err, jobqueue.ErrClosed) {
			t.Errorf("after it was closed: %+v", got)
		}
	})
}

// Whoever leaves while a producer looks at the queue does not make it believe that Redis is away.
func TestALookThatIsGivenUpRefusesNobodyElse(t *testing.T) {
	f, proxy := newProxiedFixture(t)
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	heard := func() float64 {
		servers := f.config.Client.ZRangeWithScores(context.Background(), f.config.Prefix+"q:servers", 0, -1).Val()
		return servers[0].Score
	}
	var before float64
	await.Until(t, "a look is given up", func() bool {
		<-time.After(600 * time.Millisecond) // nobody is admitted on what the producer knows, unless it has looked by itself
		before = heard()
		proxy.Hang()
		defer proxy.Restore()
		ctx, leave := context.WithCancel(context.Background())
		given := make(chan error)
		go func() { given <- p.Admit(ctx, jobqueue.Patience{Wait: time.Minute}) }()
		<-time.After(30 * time.Millisecond)
		leave()
		return errors.Is(<-given, jobqueue.ErrUnavailable)
	})
	await.Until(t, "the look ends", func() bool { return heard() > before })
	<-time.After(50 * time.Millisecond) // whoever comes now is admitted on what it has found, and has to look again
	answers := do(p, context.Background(), "x", time.Minute)
	await.Until(t, "the job is there", func() bool { return f.counts().Jobs == 1 })
	moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "done")
	ok(t, moved, err)
	if got := <-answers; got.err != nil || got.reply != "done" {
		t.Errorf("%+v", got)
	}
}

func TestADecidedJobIsReleasedWithItsHeldReply(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		d := f.fetch(c, 1)[0]
		for range 2 { // every step may happen twice
			moved, err := c.Decide(context.Background(), d, "held", "owed")
			ok(t, moved, err)
		}
		if mine := f.mine(c); len(mine) != 1 || !mine[0].Decided || mine[0].Owed != "owed" || mine[0].First() {
			t.Fatalf("%+v", mine)
		}
		moved, err := c.Release(context.Background(), d, "0:7-0")
		ok(t, moved, err)
		if got := <-answers; got != (answer{"held", nil}) {
			t.Errorf("%+v", got)
		}
		if counts := f.counts(); counts.Jobs != 0 || counts.Held != 0 {
			t.Errorf("left over: %+v", counts)
		}
	})
}

// expire makes a consumer take over the jobs of all others, as if their leases had expired.
func (f *fixture) takeOver(c *jobqueue.Consumer) {
	f.t.Helper()
	for n := 0; n < 3; n++ {
		took, err := c.BeatAt(context.Background(), time.Unix(int64(n)*25, 0))
		if err != nil {
			f.t.Fatal(err)
		}
		if took {
			f.t.Fatalf("taken over after %d s with a lease of a minute", n*25)
		}
	}
	if took, err := c.BeatAt(context.Background(), time.Unix(75, 0)); !took || err != nil {
		f.t.Fatalf("not taken over: %v", err)
	}
}

func TestJobsOfADeadWorkerAreTakenOverAndItsStepsAreRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, dead, living := f.producer(), f.consumer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		old := f.fetch(dead, 1)[0]
		f.takeOver(living)
		mine := f.mine(living)
		if len(mine) != 1 || mine[0].Deliveries != 2 || mine[0].First() {
			t.Fatalf("%+v", mine)
		}
		for name, step := range map[string]func() (bool, error){
			"decide": func() (bool, error) { return dead.Decide(context.Background(), old, "wrong", "") },
			"finish": func() (bool, error) { return dead.Finish(context.Background(), old, "wrong") },
			"bury":   func() (bool, error) { return dead.Bury(context.Background(), old, "wrong", "", true) },
		} {
			if moved, err := step(); moved || err != nil {
				t.Errorf("%s by the old owner: %t, %v", name, moved, err)
			}
		}
		moved, err := living.Finish(context.Background(), mine[0], "right")
		ok(t, moved, err)
		if got := <-answers; got != (answer{"right", nil}) {
			t.Errorf("%+v", got)
		}
		before := dead.ID()
		if loaded, err := dead.Load(context.Background(), old.StreamID); err != nil || loaded[0] != nil {
			t.Errorf("the old owner loads %+v, %v", loaded, err)
		}
		if _, err := dead.Beat(context.Background()); err != nil || dead.ID() == before {
			t.Errorf("a worker that was taken for dead keeps its name: %v", err)
		}
	})
}

func TestWithoutTheTokenTheOldOwnerAnswers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.config.Guards.NoLeaseToken = true
		p, dead, living := f.producer(), f.consumer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		old := f.fetch(dead, 1)[0]
		f.takeOver(living)
		if moved, err := dead.Finish(context.Background(), old, "wrong"); !moved || err != nil {
			t.Fatalf("%t, %v: the token is not what refuses the old owner", moved, err)
		}
		<-answers
	})
}

func TestAHeartbeatThatMovesKeepsTheJobs(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, working, watching := f.producer(), f.consumer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		d := f.fetch(working, 1)[0]
		for n := range 20 {
			if n%2 == 0 {
				if _, err := working.Beat(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if took, err := watching.BeatAt(context.Background(), time.Unix(int64(n)*25, 0)); took || err != nil {
				t.Fatalf("taken over: %t, %v", took, err)
			}
		}
		moved, err := working.Finish(context.Background(), d, "")
		ok(t, moved, err)
		<-answers
	})
}

func TestAnObserverThatWasAwayBeginsAnew(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, working, watching := f.producer(), f.consumer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		d := f.fetch(working, 1)[0]
		for n := range 5 { // it looks every 40 s: the gaps are longer than half a lease
			if took, err := watching.BeatAt(context.Background(), time.Unix(int64(n)*40, 0)); took || err != nil {
				t.Fatalf("taken over: %t, %v", took, err)
			}
		}
		moved, err := working.Finish(context.Background(), d, "")
		ok(t, moved, err)
		<-answers
	})
}

func TestABrokenRecordIsADeadLetter(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		c := f.consumer()
		if err := f.config.Client.XAdd(context.Background(), &redis.XAddArgs{
			Stream: f.config.Prefix + "q:jobs", Values: []string{"by", "hand"},
		}).Err(); err != nil {
			t.Fatal(err)
		}
		d := f.fetch(c, 1)[0]
		if d.Broken == nil {
			t.Fatalf("%+v", d)
		}
		moved, err := c.Bury(context.Background(), d, "sorry", "broken", true)
		ok(t, moved, err)
		letters, err := jobqueue.DeadLetters(context.Background(), f.config.Client, f.config.Prefix, "", "+", 10)
		if err != nil || len(letters) != 1 || letters[0].Reason != "broken" || !letters[0].Drift {
			t.Errorf("%+v, %v", letters, err)
		}
		if counts := f.counts(); counts.Jobs != 0 || counts.Dead != 1 || counts.Drift != 1 {
			t.Errorf("%+v", counts)
		}
	})
}

func TestALeavingWorkerIsForgottenOnlyIfItOwnsNothing(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		answers := do(p, context.Background(), "x", time.Minute)
		d := f.fetch(c, 1)[0]
		for _, want := range []int64{1, 0} {
			if _, err := c.Leave(context.Background()); err != nil {
				t.Fatal(err)
			}
			if counts := f.counts(); counts.Workers != want {
				t.Errorf("%d workers, not %d", counts.Workers, want)
			}
			if want == 1 {
				moved, err := c.Finish(context.Background(), d, "")
				ok(t, moved, err)
				<-answers
			}
		}
	})
}

// newProxiedFixture returns a fixture whose connections to a Redis of its own can be disturbed.
func newProxiedFixture(t *testing.T) (*fixture, *redistest.Proxy) {
	t.Helper()
	redistest.Require(t)
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return newFixture(t, rdb), proxy
}

// The connection breaks after Redis has executed a call and before its answer arrives, so that go-redis sends it again.
func TestEveryStepMayHappenTwice(t *testing.T) {
	f, proxy := newProxiedFixture(t)
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	for _, step := range []struct {
		name string
		once string // what is in the call whose answer is dropped
	}{
		{"enqueue", "the request"}, {"finish", "the reply"},
	} {
		dropped := proxy.DropReplyOnce(step.once)
		answers := do(p, context.Background(), "the request", time.Minute)
		d := f.fetch(c, 10)
		if len(d) != 1 {
			t.Fatalf("%s: %d deliveries", step.name, len(d))
		}
		if _, err := c.Finish(context.Background(), d[0], "the reply"); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := <-answers; got != (answer{"the reply", nil}) {
			t.Errorf("%s: %+v", step.name, got)
		}
		<-dropped
		if counts := f.counts(); counts.Jobs != 0 {
			t.Errorf("%s: left over %+v", step.name, counts)
		}
	}
}

// go-redis sends a fetch again whose answer was lost: the jobs of the first one are ours, and the count says so.
func TestAFetchWhoseAnswerIsLostShowsInTheCount(t *testing.T) {
	f, proxy := newProxiedFixture(t)
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	answers := do(p, context.Background(), "x", time.Minute)
	await.Until(t, "the job is there", func() bool { return f.counts().Jobs > 0 })
	dropped := proxy.DropReplyOnce("xreadgroup")
	if deliveries, err := c.Fetch(context.Background(), 1); len(deliveries) != 0 || err != nil {
		t.Fatalf("%v, %v", deliveries, err)
	}
	<-dropped
	if owned, err := c.Beat(context.Background()); owned != 1 || err != nil {
		t.Fatalf("%d jobs are owned, %v", owned, err)
	}
	mine := f.mine(c)
	moved, err := c.Finish(context.Background(), mine[0], "the reply")
	ok(t, moved, err)
	if got := <-answers; got != (answer{"the reply", nil}) {
		t.Errorf("%+v", got)
	}
}

func TestWithoutIdempotenceAJobThatIsSentTwiceRunsTwice(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	f := newFixture(t, rdb)
	f.config.Guards.NoIdempotentEnqueue = true
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	dropped := proxy.DropReplyOnce("the request")
	answers := do(p, context.Background(), "the request", time.Minute)
	<-dropped
	for done := 0; done < 2; {
		for _, d := range f.fetch(c, 10) {
			moved, err := c.Finish(context.Background(), d, "")
			ok(t, moved, err)
			done++
		}
	}
	<-answers
}

func TestAfterAFlushEverybodyGoesOn(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	rdb := server.Client(t)
	f := newFixture(t, rdb)
	p, c := f.producer(), f.consumer()
	meta := func() {
		if err := rdb.HSet(context.Background(), f.config.Meta, "incarnation", jobqueue.NewID()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	meta()
	lost := do(p, context.Background(), "x", time.Minute)
	f.fetch(c, 1)
	if err := rdb.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	meta()
	if got := <-lost; !errors.Is(got.err, jobqueue.ErrUnknown) {
		t.Errorf("a job that was lost: %+v", got)
	}
	if _, err := c.Fetch(context.Background(), 1); err == nil {
		t.Error("a fetch without a group says nothing")
	}
	answers := do(p, context.Background(), "y", time.Minute)
	d := f.fetch(c, 1)[0]
	moved, err := c.Finish(context.Background(), d, "the reply")
	ok(t, moved, err)
	if got := <-answers; got != (answer{"the reply", nil}) {
		t.Errorf("%+v", got)
	}
}

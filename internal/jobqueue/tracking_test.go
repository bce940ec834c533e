package jobqueue_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// tracked is a job that is tracked, with its answer.
type tracked struct {
	reply jobqueue.Reply
	err   error
}

func keyed(scope, payload string) jobqueue.Tracking {
	return jobqueue.Tracking{Keep: time.Hour, Scope: scope, Payload: payload}
}

func doTracked(p *jobqueue.Producer, ctx context.Context, t jobqueue.Tracking, patience jobqueue.Patience) (id string, answers <-chan tracked) {
	c := make(chan tracked, 1)
	job := jobqueue.Job{ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: "the request", Tracking: t}
	go func() {
		reply, err := p.Do(ctx, job, patience)
		c <- tracked{reply, err}
	}()
	return job.ID, c
}

const minute = time.Minute

func (f *fixture) keeping() *fixture {
	f.config.MaxKept = jobqueue.Limit{Jobs: 100, Bytes: 1 << 20}
	return f
}

func (f *fixture) state(job string) (jobqueue.State, jobqueue.Reply, error) {
	return jobqueue.Track(context.Background(), f.config.Client, f.config.Prefix, job)
}

// leftovers are the sizes of what is known of tracked jobs.
func (f *fixture) leftovers() string {
	ctx, q := context.Background(), f.config.Prefix+"q:"
	c := f.config.Client
	return fmt.Sprintf("tracked %d, scopes %d, kept %d, lives %d, waiters %d, bytes %s", c.HLen(ctx, q+"tracked").Val(), c.HLen(ctx, q+"scopes").Val(),
		c.HLen(ctx, q+"kept").Val(), c.ZCard(ctx, q+"lives").Val(), c.HLen(ctx, q+"waiters").Val(), c.HGet(ctx, q+"statistics", "kept").Val())
}

// joined waits until as many callers wait for a job.
func (f *fixture) joined(job string, n int) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		waiting := f.config.Client.HGet(context.Background(), f.config.Prefix+"q:waiters", job).Val()
		if count := len(strings.Fields(waiting)); count == n {
			return
		} else if time.Now().After(deadline) {
			f.t.Fatalf("%d callers wait, not %d: %q", count, n, waiting)
		}
	}
}

func TestOneScopeIsOneJob(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, other, c := f.producer(), f.producer(), f.consumer()
		ctx, patience := context.Background(), jobqueue.Patience{Wait: minute}
		id, first := doTracked(p, ctx, keyed("s", "x"), patience)
		d := f.fetch(c, 10)[0]
		if d.Keep != time.Hour.Milliseconds() || d.ID != id {
			t.Errorf("delivered %+v", d)
		}
		answers := []<-chan tracked{first}
		for _, server := range []*jobqueue.Producer{p, other, other, f.producer()} {
			_, more := doTracked(server, ctx, keyed("s", "x"), patience)
			answers = append(answers, more)
		}
		f.joined(id, 5)
		_, refused := doTracked(other, ctx, keyed("s", "y"), patience)
		if got := <-refused; !errors.Is(got.err, jobqueue.ErrPayload) {
			t.Errorf("another payload: %+v", got)
		}
		if counts := f.counts(); counts.Jobs != 1 {
			t.Errorf("%d jobs", counts.Jobs)
		}
		moved, err := c.Decide(ctx, d, "the reply", "what is owed")
		ok(t, moved, err)
		moved, err = c.Release(ctx, d, "the log")
		ok(t, moved, err)
		for i, answer := range answers {
			got := <-answer
			if got.err != nil || got.reply.Text != "the reply" || got.reply.Log != "the log" || got.reply.Stored {
				t.Errorf("caller %d: %+v", i, got)
			}
		}
		_, again := doTracked(other, ctx, keyed("s", "x"), patience)
		if got := <-again; got.err != nil || got.reply != (jobqueue.Reply{Log: "the log", Text: "the reply", Job: id, Stored: true}) {
			t.Errorf("once more: %+v", got)
		}
		_, refused = doTracked(p, ctx, keyed("s", "y"), patience)
		if got := <-refused; !errors.Is(got.err, jobqueue.ErrPayload) {
			t.Errorf("another payload, after the reply: %+v", got)
		}
		for _, name := range []string{id, id + ".", id + ".-", "." + id} { // only who was told 202 has a name for it
			if _, _, err := f.state(name); !errors.Is(err, jobqueue.ErrUntracked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got, want := f.leftovers(), "tracked 1, scopes 1, kept 1, lives 1, waiters 0, bytes 17"; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	})
}

func TestWithoutScopesEveryCallerHasAJob(t *testing.T) {
	f := newFixture(t, redistest.Shared(t)).keeping()
	f.config.Guards.NoScopes = true
	p, c := f.producer(), f.consumer()
	for range 2 {
		_, answers := doTracked(p, context.Background(), keyed("s", "x"), jobqueue.Patience{Wait: minute})
		moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "the reply")
		ok(t, moved, err)
		if got := <-answers; got.reply.Stored {
			t.Errorf("%+v", got)
		}
	}
}

// A job is withdrawn when the last one who waits for it has left, and its scope is free then.
func TestAJobIsNotWithdrawnWhileOthersWait(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) { f.leave(t, false) })
}

func TestWithoutALookAtTheOthersTheirJobIsWithdrawn(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.Shared(t))
	f.config.Guards.NoOthers = true
	f.leave(t, true)
}

func (f *fixture) leave(t *testing.T, lost bool) {
	f.keeping()
	p, other, c := f.producer(), f.producer(), f.consumer()
	patience := jobqueue.Patience{Wait: minute}
	firstCtx, leave := context.WithCancel(context.Background())
	id, first := doTracked(p, firstCtx, keyed("s", "x"), patience)
	f.joined(id, 1)
	secondCtx, leaveToo := context.WithCancel(context.Background())
	_, second := doTracked(other, secondCtx, keyed("s", "x"), patience)
	f.joined(id, 2)
	leave()
	got := <-first
	if withdrawn := errors.Is(got.err, jobqueue.ErrWithdrawn); withdrawn != lost || !withdrawn && !errors.Is(got.err, jobqueue.ErrShared) {
		t.Fatalf("the first: %+v", got)
	}
	if lost {
		leaveToo()
		<-second
		return
	}
	f.joined(id, 1)
	leaveToo()
	if got := <-second; !errors.Is(got.err, jobqueue.ErrWithdrawn) {
		t.Errorf("the second: %+v", got)
	}
	if got := f.leftovers(); got != "tracked 0, scopes 0, kept 0, lives 0, waiters 0, bytes 0" {
		t.Error(got)
	}
	// The scope is free, for another payload as well.
	_, third := doTracked(p, context.Background(), keyed("s", "y"), patience)
	moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "the reply")
	ok(t, moved, err)
	if got := <-third; got.err != nil || got.reply.Text != "the reply" || got.reply.Stored {
		t.Errorf("the third: %+v", got)
	}
}

func TestAJobThatFreesItsScopeIsRunAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, c := f.producer(), f.consumer()
		ctx, patience := context.Background(), jobqueue.Patience{Wait: minute}
		for _, decided := range []bool{false, true} {
			_, answers := doTracked(p, ctx, keyed("s", "x"), patience)
			d := f.fetch(c, 1)[0]
			d.FreesScope = true
			if decided {
				moved, err := c.Decide(ctx, d, "it failed", "what is owed")
				ok(t, moved, err)
				moved, err = c.Release(ctx, f.mine(c)[0], "")
				ok(t, moved, err)
			} else {
				moved, err := c.Finish(ctx, d, "it failed")
				ok(t, moved, err)
			}
			if got := <-answers; got.err != nil || got.reply.Text != "it failed" {
				t.Errorf("%+v", got)
			}
		}
		if got, want := f.leftovers(), "tracked 0, scopes 0, kept 0, lives 0, waiters 0, bytes 0"; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	})
}

func TestAnAcceptedJobGoesOn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, c := f.producer(), f.consumer()
		ctx := context.Background()
		accept := jobqueue.Patience{Begin: time.Hour, Accept: true}
		id, answers := doTracked(p, ctx, jobqueue.Tracking{Keep: time.Hour}, accept)
		got := <-answers
		name := got.reply.Job
		if !errors.Is(got.err, jobqueue.ErrAccepted) || !strings.HasPrefix(name, id+".") || len(name) != 65 {
			t.Fatalf("%+v", got)
		}
		if state, _, err := f.state(name); state != jobqueue.Queued || err != nil {
			t.Errorf("state %v, %v", state, err)
		}
		d := f.fetch(c, 1)[0]
		if state, _, err := f.state(name); state != jobqueue.Running || err != nil {
			t.Errorf("state %v, %v", state, err)
		}
		if left := time.Duration(d.Deadline-c.Now()) * time.Microsecond; left < 59*time.Minute {
			t.Errorf("%v are left until the deadline", left)
		}
		moved, err := c.Bury(ctx, d, "it died", "its worker died", true)
		ok(t, moved, err)
		if state, reply, err := f.state(name); state != jobqueue.Answered || reply.Text != "it died" || err != nil {
			t.Errorf("state %v, %+v, %v", state, reply, err)
		}
		// One of a scope is told the job that is under way.
		_, answers = doTracked(p, ctx, keyed("s", "x"), accept)
		first := <-answers
		for range 3 {
			_, answers = doTracked(p, ctx, keyed("s", "x"), accept)
			if got := <-answers; !errors.Is(got.err, jobqueue.ErrAccepted) || got.reply.Job != first.reply.Job {
				t.Errorf("%+v, not %+v", got, first)
			}
		}
		f.joined(strings.Split(first.reply.Job, ".")[0], 0)
	})
}

func TestWhatIsKeptIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, c := f.producer(), f.consumer()
		ctx := context.Background()
		short := jobqueue.Tracking{Keep: time.Millisecond, Scope: "s", Payload: "x"}
		id, answers := doTracked(p, ctx, short, jobqueue.Patience{Wait: minute})
		d := f.fetch(c, 1)[0]
		// What has no reply yet is not forgotten, however long that takes: it is put off when its time has come.
		lives := func() float64 { return f.config.Client.ZScore(ctx, f.config.Prefix+"q:lives", id).Val() }
		for before := lives(); lives() == before; {
			if _, err := c.Beat(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.leftovers(); !strings.HasPrefix(got, "tracked 1, scopes 1, kept 0, lives 1, waiters 1") {
			t.Error(got)
		}
		moved, err := c.Finish(ctx, d, "the reply")
		ok(t, moved, err)
		<-answers
		for deadline := time.Now().Add(20 * time.Second); ; {
			if _, err := c.Beat(ctx); err != nil {
				t.Fatal(err)
			}
			if got := f.leftovers(); got == "tracked 0, scopes 0, kept 0, lives 0, waiters 0, bytes 0" {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(got)
			}
		}
	})
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.config.MaxKept = jobqueue.Limit{Jobs: 2, Bytes: 1000}
		p, c := f.producer(), f.consumer()
		ctx, accept := context.Background(), jobqueue.Patience{Begin: time.Hour, Accept: true}
		send := func(scope string) error {
			_, answers := doTracked(p, ctx, keyed(scope, "x"), accept)
			return (<-answers).err
		}
		for scope, want := range map[string]error{"a": jobqueue.ErrAccepted, "b": jobqueue.ErrAccepted} {
			if err := send(scope); !errors.Is(err, want) {
				t.Errorf("%s: %v", scope, err)
			}
		}
		if err := send("c"); !errors.Is(err, jobqueue.ErrCrowded) {
			t.Errorf("a third job: %v", err)
		}
		if err := send("a"); !errors.Is(err, jobqueue.ErrAccepted) {
			t.Errorf("one that is known: %v", err)
		}
		f.config.MaxKept = jobqueue.Limit{Jobs: 100, Bytes: 30}
		wide := f.producer()
		for _, d := range f.fetch(c, 2) {
			moved, err := c.Finish(ctx, d, "a reply of many bytes")
			ok(t, moved, err)
		}
		_, answers := doTracked(wide, ctx, keyed("c", "x"), accept)
		if got := <-answers; !errors.Is(got.err, jobqueue.ErrCrowded) {
			t.Errorf("after many bytes: %+v", got)
		}
	})
}

// doubler is a hook of go-redis: every script is executed twice, as it is if a connection breaks before the answer comes.
type doubler struct{ refuser }

func (d *doubler) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.ToLower(cmd.Name()) == "evalsha" {
			if err := next(ctx, cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

// A settle that is sent twice finds the second time that the job is nobody's any more; it has told everybody the first time.
func TestEveryStepOfATrackedJobMayHappenTwice(t *testing.T) {
	f := newFixture(t, redistest.Shared(t)).keeping()
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	f.config.Client.AddHook(&doubler{})
	ctx, patience := context.Background(), jobqueue.Patience{Wait: minute}
	for round := range 3 { // the first has Redis learn the scripts
		scope := fmt.Sprint(round)
		id, first := doTracked(p, ctx, keyed(scope, "x"), patience)
		d := f.fetch(c, 10)
		if len(d) != 1 {
			t.Fatalf("%d jobs", len(d))
		}
		_, second := doTracked(p, ctx, keyed(scope, "x"), patience)
		f.joined(id, 2)
		leaving, leave := context.WithCancel(ctx)
		_, third := doTracked(p, leaving, keyed(scope, "x"), patience)
		f.joined(id, 3)
		leave()
		if got := <-third; !errors.Is(got.err, jobqueue.ErrRunning) {
			t.Errorf("who left: %+v", got)
		}
		_, fourth := doTracked(p, ctx, keyed(scope, "x"), jobqueue.Patience{Accept: true, Begin: time.Hour})
		accepted := <-fourth
		if !errors.Is(accepted.err, jobqueue.ErrAccepted) {
			t.Errorf("who does not wait: %+v", accepted)
		}
		f.joined(id, 2)
		if _, err := c.Finish(ctx, d[0], "the reply"); err != nil {
			t.Fatal(err)
		}
		for _, answers := range []<-chan tracked{first, second} {
			if got := <-answers; got.err != nil || got.reply.Text != "the reply" {
				t.Errorf("%+v", got)
			}
		}
		if state, reply, err := f.state(accepted.reply.Job); state != jobqueue.Answered || reply.Text != "the reply" || err != nil {
			t.Errorf("state %v, %+v, %v", state, reply, err)
		}
	}
	if got, want := f.leftovers(), "tracked 3, scopes 3, kept 3, lives 3, waiters 0, bytes 30"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// The last one who leaves withdraws the job. Who has left before, with the same call or an earlier one, and whose call is sent
// again, is told so, and does not wait for a reply that never comes.
func TestAWithdrawalThatIsSentTwiceTellsAllThatTheJobNeverRuns(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, other := f.producer(), f.producer()
		f.consumer()
		var callers []jobqueue.Withdrawal
		for _, server := range []*jobqueue.Producer{p, p, other} {
			job := jobqueue.Job{ID: jobqueue.NewID(), Request: "the request", Deadline: 1, Tracking: keyed("s", "x")}
			enqueued, err := server.Enqueue(job)
			if err != nil || enqueued[0].Err != nil {
				t.Fatal(enqueued, err)
			}
			callers = append(callers, jobqueue.Withdrawal{ID: job.ID, At: enqueued[0].At, Job: cmp.Or(enqueued[0].Joined, job.ID)})
		}
		for _, step := range []struct {
			server  *jobqueue.Producer
			callers []jobqueue.Withdrawal
			want    string
		}{
			{p, callers[:2], "[shared shared]"},
			{other, callers[2:], "[withdrawn]"},
			{other, callers[2:], "[withdrawn]"},
			{p, callers[:2], "[withdrawn withdrawn]"},
		} {
			if got, err := step.server.Withdraw(step.callers...); err != nil || fmt.Sprint(got) != step.want {
				t.Errorf("%v, %v, not %s", got, err, step.want)
			}
		}
	})
}

// An enqueue that got no answer is looked into, also for who does not wait for a reply.
func TestAnEnqueueWithoutAnAnswerIsLookedIntoBeforeItIsAccepted(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.Shared(t)).keeping()
	f.config.Timeout = time.Second
	f.incarnate()
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	broken := &refuser{"the request", true, errors.New("connection reset by peer")}
	f.config.Client.AddHook(broken)
	accept := jobqueue.Patience{Begin: time.Hour, Accept: true}
	_, answers := doTracked(p, context.Background(), keyed("s", "x"), accept)
	if got := <-answers; !errors.Is(got.err, jobqueue.ErrAccepted) {
		t.Errorf("one that Redis got: %+v", got)
	}
	broken.executed = false
	_, answers = doTracked(p, context.Background(), keyed("t", "x"), accept)
	if got := <-answers; !errors.Is(got.err, jobqueue.ErrUnavailable) {
		t.Errorf("one that Redis never got: %+v", got)
	}
}

// More callers than may join, and more than one record of replies can have.
func TestManyCallersOfManyJobs(t *testing.T) {
	const jobs, callers = 30, 220
	f := newFixture(t, redistest.Shared(t)).keeping()
	p, c := f.producer(), f.consumer()
	ctx := context.Background()
	var all, crowded atomic.Int64
	var waiting sync.WaitGroup
	for i := range jobs * callers {
		waiting.Go(func() {
			job := jobqueue.Job{ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: "r", Tracking: keyed(fmt.Sprint(i%jobs), "x")}
			reply, err := p.Do(ctx, job, jobqueue.Patience{Wait: minute})
			switch {
			case errors.Is(err, jobqueue.ErrShared):
				crowded.Add(1)
			case err != nil || reply.Text != "the reply":
				t.Errorf("%+v, %v", reply, err)
			}
			all.Add(1)
		})
	}
	var deliveries []*jobqueue.Delivery
	for len(deliveries) < jobs {
		deliveries = append(deliveries, f.fetch(c, jobs)...)
	}
	for deadline := time.Now().Add(time.Minute); crowded.Load() < jobs && time.Now().Before(deadline); runtime.Gosched() {
		// Until all jobs have as many callers as they may.
	}
	var settling sync.WaitGroup
	for _, d := range deliveries {
		settling.Go(func() {
			moved, err := c.Finish(ctx, d, "the reply")
			if !moved || err != nil {
				t.Errorf("%t, %v", moved, err)
			}
		})
	}
	settling.Wait()
	waiting.Wait()
	if crowded.Load() == 0 || all.Load() != jobs*callers {
		t.Errorf("%d of %d were too many", crowded.Load(), all.Load())
	}
}

func TestAJobExpiresWhenTheLastOneDoes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, c := f.producer(), f.consumer()
		ctx := context.Background()
		id, first := doTracked(p, ctx, keyed("s", "x"), jobqueue.Patience{Wait: 100 * time.Millisecond})
		f.joined(id, 1)
		_, second := doTracked(p, ctx, keyed("s", "x"), jobqueue.Patience{Wait: minute})
		if got := <-first; !errors.Is(got.err, jobqueue.ErrShared) {
			t.Errorf("the first: %+v", got)
		}
		d := f.fetch(c, 1)[0]
		moved, err := c.Expire(ctx, d, "too late")
		if moved || err != nil || !d.Extended() {
			t.Errorf("%t, %v, %t", moved, err, d.Extended())
		}
		// Who takes it over knows.
		if loaded := f.mine(c)[0]; loaded.Deadline-d.Deadline < 50_000_000 {
			t.Errorf("loaded with the deadline %d, fetched with %d", loaded.Deadline, d.Deadline)
		}
		moved, err = c.Finish(ctx, d, "the reply")
		ok(t, moved, err)
		if got := <-second; got.err != nil || got.reply.Text != "the reply" {
			t.Errorf("the second: %+v", got)
		}
		// Without another one it expires, and its scope is free.
		_, third := doTracked(p, ctx, jobqueue.Tracking{Keep: time.Hour, Scope: "t", Payload: "x"}, jobqueue.Patience{Wait: 100 * time.Millisecond})
		d = f.fetch(c, 1)[0]
		d.FreesScope = true
		<-third
		for c.Now() <= d.Deadline {
			if _, err := c.Beat(ctx); err != nil {
				t.Fatal(err)
			}
		}
		moved, err = c.Expire(ctx, d, "too late")
		ok(t, moved, err)
		if d.Extended() {
			t.Error("it was extended")
		}
		if got, want := f.leftovers(), "tracked 1, scopes 1, kept 1, lives 1, waiters 0, bytes 10"; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	})
}

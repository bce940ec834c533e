package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// ordered sends a job of an order, and returns when it is in the queue.
func (f *fixture) ordered(p *jobqueue.Producer, ctx context.Context, order, request string, patience jobqueue.Patience, t jobqueue.Tracking) <-chan tracked {
	f.t.Helper()
	before := f.counts().Enqueued
	answers := make(chan tracked, 1)
	job := jobqueue.Job{ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.9:1", Request: request, Order: order, Tracking: t}
	go func() {
		reply, err := p.Do(ctx, job, patience)
		answers <- tracked{reply, err}
	}()
	await.Until(f.t, "the job is there", func() bool { return f.counts().Enqueued > before })
	return answers
}

func (f *fixture) inOrder(p *jobqueue.Producer, order, request string) <-chan tracked {
	f.t.Helper()
	return f.ordered(p, context.Background(), order, request, jobqueue.Patience{Wait: minute}, jobqueue.Tracking{})
}

// finish finishes a job with its request as the reply.
func (f *fixture) finish(c *jobqueue.Consumer, d *jobqueue.Delivery) {
	f.t.Helper()
	moved, err := c.Finish(context.Background(), d, d.Request)
	ok(f.t, moved, err)
}

// fetched are the requests of all jobs that can be fetched now.
func (f *fixture) fetched(c *jobqueue.Consumer) (all []*jobqueue.Delivery, requests []string) {
	f.t.Helper()
	for {
		deliveries, err := c.Fetch(context.Background(), 100)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(deliveries) == 0 {
			return all, requests
		}
		for _, d := range deliveries {
			all, requests = append(all, d), append(requests, d.Request)
		}
	}
}

// ordersGone expects that nothing is left of any order.
func (f *fixture) ordersGone() {
	f.t.Helper()
	ctx, q := context.Background(), f.config.Prefix+"q:"
	if n := f.config.Client.HLen(ctx, q+"lanes").Val(); n != 0 {
		f.t.Errorf("%d orders have a turn", n)
	}
	for _, order := range []string{"a", "b"} {
		if f.config.Client.Exists(ctx, q+"lanes:"+order).Val() != 0 {
			f.t.Errorf("the lane of %s is left", order)
		}
	}
	if counts := f.counts(); counts.Jobs != 0 || counts.Parked != 0 {
		f.t.Errorf("%+v", counts)
	}
}

func answeredWith(t *testing.T, answers <-chan tracked, text string) {
	t.Helper()
	if got := <-answers; got.err != nil || got.reply.Text != text {
		t.Errorf("%+v, %v, want %q", got.reply, got.err, text)
	}
}

func TestJobsOfAnOrderRunOneAfterTheOther(t *testing.T) {
	t.Parallel() // most of it is waiting
	each(t, func(t *testing.T, f *fixture) {
		p, other, c := f.producer(), f.producer(), f.consumer()
		var answers []<-chan tracked
		for i := range 4 {
			answers = append(answers, f.inOrder([]*jobqueue.Producer{p, other}[i%2], "a", fmt.Sprint("a", i)))
		}
		b := f.inOrder(p, "b", "b0")
		none := f.inOrder(p, "", "none")
		if counts := f.counts(); counts.Jobs != 6 || counts.Parked != 3 {
			t.Errorf("%+v", counts)
		}
		deliveries, requests := f.fetched(c)
		if !slices.Equal(requests, []string{"a0", "b0", "none"}) {
			t.Fatalf("fetched at first: %v", requests)
		}
		f.finish(c, deliveries[1])
		answeredWith(t, b, "b0")
		f.finish(c, deliveries[2])
		answeredWith(t, none, "none")
		for i := range 4 {
			d := deliveries[0]
			if d.Request != fmt.Sprint("a", i) || len(deliveries) != 1 && i > 0 {
				t.Fatalf("fetched %d jobs as number %d, the first is %s", len(deliveries), i, d.Request)
			}
			moved, err := c.Decide(context.Background(), d, d.Request, "what is owed")
			ok(t, moved, err)
			if i == 0 {
				if more, requests := f.fetched(c); len(more) > 0 {
					t.Fatalf("before it was released: %v", requests)
				}
			}
			for range 2 { // every step may happen twice
				_, err = c.Release(context.Background(), d, "")
				ok(t, true, err)
			}
			answeredWith(t, answers[i], d.Request)
			if i < 3 {
				deliveries = f.fetch(c, 10)
			}
		}
		f.ordersGone()
	})
}

func TestWithoutTheGuardJobsOfAnOrderRunAtOnce(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	f.config.Guards.NoOrder = true
	p, c := f.producer(), f.consumer()
	answers := []<-chan tracked{f.inOrder(p, "a", "a0"), f.inOrder(p, "a", "a1")}
	deliveries, requests := f.fetched(c)
	if len(deliveries) != 2 {
		t.Errorf("fetched at first: %v", requests)
	}
	for i, d := range deliveries {
		f.finish(c, d)
		<-answers[i]
	}
}

func TestAJobThatWaitsForItsTurnIsWithdrawn(t *testing.T) {
	t.Parallel() // most of it is waiting
	each(t, func(t *testing.T, f *fixture) {
		p, c := f.producer(), f.consumer()
		patience := jobqueue.Patience{Wait: minute}
		leaving, leave := context.WithCancel(context.Background())
		first := f.ordered(p, leaving, "a", "a0", patience, jobqueue.Tracking{})
		ctx, cancel := context.WithCancel(context.Background())
		second := f.ordered(p, ctx, "a", "a1", patience, jobqueue.Tracking{})
		third := f.inOrder(p, "a", "a2")
		cancel()
		if got := <-second; !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Errorf("one that waits for its turn: %v", got.err)
		}
		leave() // the turn passes on
		if got := <-first; !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Errorf("one that has the turn: %v", got.err)
		}
		if counts := f.counts(); counts.Withdrawn != 2 || counts.Jobs != 1 || counts.Parked != 0 {
			t.Errorf("%+v", counts)
		}
		d := f.fetch(c, 10)[0]
		if d.Request != "a2" {
			t.Errorf("fetched %s", d.Request)
		}
		ctx, cancel = context.WithCancel(context.Background())
		fourth := f.ordered(p, ctx, "a", "a3", patience, jobqueue.Tracking{})
		f.finish(c, d)
		answeredWith(t, third, "a2")
		d = f.fetch(c, 10)[0]
		cancel() // its turn has come, and a worker has it
		if got := <-fourth; !errors.Is(got.err, jobqueue.ErrRunning) {
			t.Errorf("one that runs: %v", got.err)
		}
		f.finish(c, d)
		f.ordersGone()
	})
}

func TestATrackedJobWaitsForItsTurn(t *testing.T) {
	t.Parallel() // most of it is waiting
	each(t, func(t *testing.T, f *fixture) {
		f.keeping()
		p, other, c := f.producer(), f.producer(), f.consumer()
		ctx, patience := context.Background(), jobqueue.Patience{Wait: minute}
		first := f.inOrder(p, "a", "a0")
		accepted := <-f.ordered(p, ctx, "a", "a1", jobqueue.Patience{Begin: minute, Accept: true}, jobqueue.Tracking{Keep: time.Hour})
		if !errors.Is(accepted.err, jobqueue.ErrAccepted) {
			t.Fatal(accepted.err)
		}
		name := accepted.reply.Job
		if state, _, err := f.state(name); state != jobqueue.Queued || err != nil {
			t.Errorf("one that waits for its turn: %v, %v", state, err)
		}
		keyedOne := f.ordered(p, ctx, "a", "a2", patience, keyed("s", "x"))
		leaving, leave := context.WithCancel(ctx)
		_, joined := doTracked(other, leaving, keyed("s", "x"), patience)
		id := f.config.Client.HGet(ctx, f.config.Prefix+"q:scopes", "s").Val()[:32]
		f.joined(id, 2)
		leave()
		if got := <-joined; !errors.Is(got.err, jobqueue.ErrShared) {
			t.Errorf("one that had joined: %v", got.err)
		}
		f.finish(c, f.fetch(c, 10)[0])
		answeredWith(t, first, "a0")
		d := f.fetch(c, 10)[0]
		if state, _, err := f.state(name); state != jobqueue.Running || err != nil {
			t.Errorf("one that runs: %v, %v", state, err)
		}
		f.finish(c, d)
		if state, reply, err := f.state(name); state != jobqueue.Answered || reply.Text != "a1" || err != nil {
			t.Errorf("one that is answered: %v, %v, %v", state, reply, err)
		}
		f.finish(c, f.fetch(c, 10)[0])
		answeredWith(t, keyedOne, "a2")
		f.ordersGone()
	})
}

func TestTheTurnOutlivesAWorker(t *testing.T) {
	t.Parallel() // most of it is waiting
	each(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		p, dead, c := f.producer(), f.consumer(), f.consumer()
		first, second := f.inOrder(p, "a", "a0"), f.inOrder(p, "a", "a1")
		f.fetch(dead, 10)
		begin := time.Now()
		for i, doubt := 0, false; !doubt; i++ {
			var err error
			if doubt, err = c.BeatAt(ctx, begin.Add(time.Duration(i)*20*time.Second)); err != nil || i > 10 {
				t.Fatalf("the worker is not taken for dead: %v", err)
			}
		}
		if counts := f.counts(); counts.TakenOver != 1 {
			t.Errorf("%+v", counts)
		}
		d := f.mine(c)[0]
		if d.Request != "a0" || d.Order != "a" {
			t.Fatalf("taken over: %+v", d)
		}
		moved, err := c.Bury(ctx, d, "sorry", "its worker died", true)
		ok(t, moved, err)
		answeredWith(t, first, "sorry")
		running := f.fetch(c, 10)[0] // the next one, and what is replayed waits behind it
		letters, err := jobqueue.DeadLetters(ctx, f.config.Client, f.config.Prefix, "", "+", 10)
		if err != nil || len(letters) != 1 {
			t.Fatalf("%v, %v", letters, err)
		}
		if err := jobqueue.Replay(ctx, f.config.Client, f.config.Prefix, letters[0].ID, minute, 10); err != nil {
			t.Fatal(err)
		}
		if more, requests := f.fetched(c); len(more) > 0 {
			t.Errorf("fetched beside the one that has the turn: %v", requests)
		}
		f.finish(c, running)
		answeredWith(t, second, "a1")
		d = f.fetch(c, 10)[0]
		if d.Request != "a0" || !d.Unattended() {
			t.Errorf("replayed: %+v", d)
		}
		f.finish(c, d)
		f.ordersGone()
	})
}

// What an operator deletes by hand does not stop the others of its order.
func TestTheTurnPassesOnFromAJobThatIsGone(t *testing.T) {
	t.Parallel() // most of it is waiting
	each(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		p, c := f.producer(), f.consumer()
		leaving, leave := context.WithCancel(ctx)
		gone := f.ordered(p, leaving, "a", "a0", jobqueue.Patience{Wait: minute}, jobqueue.Tracking{})
		second := f.inOrder(p, "a", "a1")
		if err := f.config.Client.XTrimMaxLen(ctx, f.config.Prefix+"q:jobs", 0).Err(); err != nil {
			t.Fatal(err)
		}
		third := f.inOrder(p, "a", "a2")
		for i, answers := range []<-chan tracked{second, third} {
			d := f.fetch(c, 10)[0]
			if want := fmt.Sprint("a", i+1); d.Request != want {
				t.Errorf("fetched %s, want %s", d.Request, want)
			}
			f.finish(c, d)
			answeredWith(t, answers, d.Request)
		}
		leave()
		<-gone
		f.ordersGone()
	})
}

// Nor does one that has as many as may wait.
func TestTheTurnPassesOnInAFullLane(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.StartEmbedded(t).Client(t)).keeping()
	f.config.MaxQueue = 20
	ctx := context.Background()
	p, c := f.producer(), f.consumer()
	for i := range 3 {
		accepted := <-f.ordered(p, ctx, "a", fmt.Sprint("a", i), jobqueue.Patience{Begin: minute, Accept: true}, jobqueue.Tracking{Keep: time.Hour})
		if !errors.Is(accepted.err, jobqueue.ErrAccepted) {
			t.Fatal(accepted.err)
		}
	}
	if err := f.config.Client.XTrimMaxLen(ctx, f.config.Prefix+"q:jobs", 0).Err(); err != nil {
		t.Fatal(err)
	}
	last := f.inOrder(p, "a", "a3")
	for i := range 3 {
		d := f.fetch(c, 10)[0]
		if want := fmt.Sprint("a", i+1); d.Request != want {
			t.Errorf("fetched %s, want %s", d.Request, want)
		}
		f.finish(c, d)
	}
	answeredWith(t, last, "a3")
	f.ordersGone()
}

// One order keeps no others out.
func TestALaneHasALimit(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	f.config.MaxQueue = 20
	p, c := f.producer(), f.consumer()
	var answers []<-chan tracked
	for i := range 3 { // one has the turn, and a tenth of the queue waits
		answers = append(answers, f.inOrder(p, "a", fmt.Sprint("a", i)))
	}
	_, err := p.Do(context.Background(), jobqueue.Job{ID: jobqueue.NewID(), Request: "x", Order: "a"}, jobqueue.Patience{Wait: minute})
	if !errors.Is(err, jobqueue.ErrOrderFull) {
		t.Errorf("one more: %v", err)
	}
	other := f.inOrder(p, "b", "b0")
	for range 2 {
		for _, d := range f.fetch(c, 1) {
			f.finish(c, d)
		}
	}
	answeredWith(t, answers[0], "a0")
	answeredWith(t, other, "b0")
	for i := range 2 {
		f.finish(c, f.fetch(c, 1)[0])
		answeredWith(t, answers[i+1], fmt.Sprint("a", i+1))
	}
	f.ordersGone()
}

func TestJobsThatWaitForTheirTurnFillTheQueue(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	f.config.MaxQueue = 2
	p, c := f.producer(), f.consumer()
	answers := []<-chan tracked{f.inOrder(p, "a", "a0"), f.inOrder(p, "a", "a1")}
	for _, order := range []string{"a", "b", ""} {
		_, err := p.Do(context.Background(), jobqueue.Job{ID: jobqueue.NewID(), Request: "x", Order: order}, jobqueue.Patience{Wait: minute})
		if !errors.Is(err, jobqueue.ErrFull) {
			t.Errorf("a job of %q beside two: %v", order, err)
		}
	}
	for i := range answers {
		f.finish(c, f.fetch(c, 10)[0])
		answeredWith(t, answers[i], fmt.Sprint("a", i))
	}
	f.ordersGone()
}

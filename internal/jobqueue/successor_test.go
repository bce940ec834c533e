package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// worker is a consumer that is known.
func (f *fixture) worker(lease time.Duration, slots int) *jobqueue.Consumer {
	f.t.Helper()
	c := jobqueue.NewConsumer(f.config, lease, slots)
	if err := c.Join(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// retire has a consumer leave, as workers do.
func (f *fixture) retire(c *jobqueue.Consumer) {
	f.t.Helper()
	c.Drain()
	_, beat := c.Beat(context.Background())
	left, leave := c.Leave(context.Background())
	if err := errors.Join(beat, leave); err != nil || !left {
		f.t.Fatal(err, left)
	}
}

// admits returns whether jobs are admitted that have so much time, as long as they are and at most for a while.
func (f *fixture) admits(wait, during time.Duration) error {
	f.t.Helper()
	p := f.producer()
	next := time.NewTicker(10 * time.Millisecond)
	defer next.Stop()
	for begin := time.Now(); time.Since(begin) < during; <-next.C {
		if err := p.Admit(context.Background(), jobqueue.Patience{Wait: wait}); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(begin), err)
		}
	}
	return nil
}

func TestJobsWaitForTheSuccessorOfTheOnlyWorker(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.retire(f.worker(time.Minute, 1))
		answers := do(f.producer(), context.Background(), "x", time.Minute)
		await.Until(t, "the job is there", func() bool { return f.counts().Jobs == 1 })
		c := f.consumer()
		moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "done")
		ok(t, moved, err)
		if got := <-answers; got.err != nil || got.reply != "done" {
			t.Errorf("%+v", got)
		}
	})
}

func TestIfJobsWaitedForNoSuccessorTheyWouldBeRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.config.Guards.NoSuccessor = true
		f.retire(f.worker(time.Minute, 1))
		if got := <-do(f.producer(), context.Background(), "x", time.Minute); !errors.Is(got.err, jobqueue.ErrNoWorker) {
			t.Errorf("%+v", got)
		}
	})
}

// Nobody follows: jobs are refused when a worker has been gone for three times the interval of its heartbeats.
func TestJobsDoNotWaitForeverForASuccessor(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		t.Parallel() // most of it is waiting
		c := f.worker(4*time.Second, 1)
		before := time.Now()
		f.retire(c)
		after := time.Now()
		if err := f.admits(time.Minute, 30*time.Second); !errors.Is(err, jobqueue.ErrNoWorker) {
			t.Fatal(err)
		}
		refused, window := time.Now(), 3*c.BeatInterval()
		const known, slack = 500 * time.Millisecond, 2 * time.Second
		if refused.Sub(before) < window || refused.Sub(after) > window+known+slack {
			t.Errorf("refused after %v, which should be %v", refused.Sub(after), window)
		}
	})
}

// While the only worker drains, it has no successor yet.
func TestJobsWaitForTheSuccessorOfADrainingWorker(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	c := f.worker(4*time.Second, 1)
	c.Drain()
	admitted := make(chan error)
	go func() { admitted <- f.admits(time.Minute, 4*time.Second) }()
	beat := time.NewTicker(c.BeatInterval() / 4)
	defer beat.Stop()
	for {
		select {
		case err := <-admitted:
			if err != nil {
				t.Error(err)
			}
			return
		case <-beat.C:
			if _, err := c.Beat(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
}

// Each worker that has left counts for as long as its own heartbeats say.
func TestASuccessorMayFollowWhoeverHasLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	slow, quick := f.worker(time.Minute, 1), f.worker(400*time.Millisecond, 1)
	f.retire(slow)
	f.retire(quick)
	if err := f.admits(time.Minute, 2*time.Second); err != nil {
		t.Error(err)
	}
}

// As many jobs as all of them had slots for may wait for their successors, also where nothing says how fast these will be.
func TestWhoHasLeftHadSlots(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	var workers []*jobqueue.Consumer
	for range 4 {
		workers = append(workers, f.worker(time.Minute, 2))
	}
	for _, c := range workers {
		f.retire(c)
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	p := f.producer()
	for range 2 {
		do(p, ctx, "x", time.Minute)
	}
	await.Until(t, "both jobs wait", func() bool { return f.counts().Jobs == 2 })
	if err := f.admits(4*time.Second, 3*time.Second); err != nil {
		t.Error(err)
	}
}

// Redis's clock may be set back, or a replica with another clock take over.
func TestWhoLeavesInTheFutureIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	ctx, left := context.Background(), f.config.Prefix+"q:left"
	record := fmt.Sprintf("1 %d 1000000 1 leaving", time.Now().Add(time.Hour).UnixMicro())
	if err := f.config.Client.HSet(ctx, left, "somebody", record).Err(); err != nil {
		t.Fatal(err)
	}
	if err := f.admits(time.Minute, time.Second); !errors.Is(err, jobqueue.ErrNoWorker) {
		t.Error(err)
	}
	f.retire(f.worker(time.Minute, 1))
	if n := f.config.Client.HLen(ctx, left).Val(); n != 1 {
		t.Errorf("%d workers are remembered", n)
	}
}

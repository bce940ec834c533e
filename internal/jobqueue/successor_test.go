package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

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

// waitingFor has workers of two slots leave, and two jobs wait for their successors.
func waitingFor(t *testing.T, workers int) *fixture {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	var leaving []*jobqueue.Consumer
	for range workers {
		leaving = append(leaving, f.worker(time.Minute, 2))
	}
	for _, c := range leaving {
		f.retire(c)
	}
	ctx, leave := context.WithCancel(context.Background())
	p := f.producer()
	t.Cleanup(leave) // before the producer is closed
	for range 2 {
		do(p, ctx, "x", time.Minute)
	}
	await.Until(t, "both jobs wait", func() bool { return f.counts().Jobs == 2 })
	return f
}

// As many jobs as all of them had slots for may wait for their successors, also where nothing says how fast these will be.
func TestWhoHasLeftHadSlots(t *testing.T) {
	if err := waitingFor(t, 4).admits(time.Second, 4*time.Second); err != nil {
		t.Error(err)
	}
}

func TestNoMoreJobsWaitForASuccessorThanItHasSlots(t *testing.T) {
	if err := waitingFor(t, 1).admits(time.Second, 30*time.Second); !errors.Is(err, jobqueue.ErrBusy) {
		t.Error(err)
	}
}

// Redis's clock may be set back, or a replica with another clock take over.
func TestWhoLeavesInTheFutureIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartEmbedded(t).Client(t))
	record := fmt.Sprintf("0 %d 1000000 1 leaving", time.Now().Add(time.Hour).UnixMicro())
	if err := f.config.Client.HSet(context.Background(), f.config.Prefix+"q:left", "somebody", record).Err(); err != nil {
		t.Fatal(err)
	}
	if err := f.admits(time.Minute, time.Second); !errors.Is(err, jobqueue.ErrNoWorker) {
		t.Error(err)
	}
}

// Who has left needs no successor if there is somebody who takes jobs: when that one dies, nothing else counts.
func TestWhoHasLeftWhileOthersStayNeedsNoSuccessor(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		t.Parallel()
		stays := f.worker(400*time.Millisecond, 1)
		f.retire(f.worker(time.Hour, 1))
		if err := f.admits(time.Minute, 100*time.Millisecond); err != nil {
			t.Error(err)
		}
		if _, err := stays.Beat(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := f.admits(time.Minute, 20*time.Second); !errors.Is(err, jobqueue.ErrNoWorker) {
			t.Error(err)
		}
	})
}

// A worker that drains goes on to say so when Redis has lost everything, and leaves only once if it says so twice.
func TestWhoLeavesSaysSoAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ctx, client, c := context.Background(), f.config.Client, f.worker(time.Minute, 3)
		record := func(hash string) string {
			all := client.HVals(ctx, f.config.Prefix+"q:"+hash).Val()
			if len(all) != 1 {
				t.Fatalf("%s: %q", hash, all)
			}
			return all[0]
		}
		c.Drain()
		if err := client.Del(ctx, f.config.Prefix+"q:workers").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Beat(ctx); err != nil || !strings.HasSuffix(record("workers"), " 3 leaving") {
			t.Errorf("%v, %q", err, record("workers"))
		}
		for range 2 {
			if left, err := c.Leave(ctx); err != nil || !left || !strings.HasSuffix(record("left"), " 15000000 3 leaving") {
				t.Errorf("%v, %v, %q", left, err, record("left"))
			}
		}
	})
}

// The latest heartbeat may be that of a worker that drains, too.
func TestNothingIsHandedToAWorkerThatDrains(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ctx, owner := context.Background(), f.worker(time.Minute, 1)
		answers := do(f.producer(), ctx, "x", time.Minute)
		job := f.fetch(owner, 1)[0]
		stays, leaving := f.worker(time.Minute, 1), f.worker(time.Minute, 1)
		leaving.Drain()
		if _, err := leaving.Beat(ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := owner.HandOver(ctx, map[string]int64{job.StreamID: job.Deliveries}); n != 1 || err != nil {
			t.Fatalf("%d jobs were handed over: %v", n, err)
		}
		mine := f.mine(stays)
		if len(mine) != 1 {
			t.Fatalf("the worker that stays has %d jobs", len(mine))
		}
		moved, err := stays.Finish(ctx, mine[0], "done")
		ok(t, moved, err)
		<-answers
	})
}

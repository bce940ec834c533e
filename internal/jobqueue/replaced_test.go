package jobqueue_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// Redis executes an enqueue, a worker takes the job, and then Redis comes back with what it had before: nobody may say that
// the job never runs.
func TestWhatARestartedRedisDoesNotKnowIsUnknown(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	f := newFixture(t, redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true, MaxRetries: -1}))
	t.Cleanup(func() { _ = f.config.Client.Close() })
	f.config.Timeout = time.Second
	f.incarnate()
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	if err := server.Client(t).Save(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	f.config.Client.AddHook(&refuser{"the request", true, errors.New("connection reset by peer")})
	answers := do(p, context.Background(), "the request", 20*time.Second)
	if d := f.fetch(c, 1)[0]; d.Request != "the request" {
		t.Fatalf("fetched %+v", d)
	}
	server.Kill()
	server.Restart()
	if got := <-answers; !errors.Is(got.err, jobqueue.ErrUnknown) {
		t.Errorf("%+v: a worker has had the job", got)
	}
}

// A Redis that has lost that a job has ended has it in the queue again.
func TestAJobThatIsAnsweredAgainIsNoticed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ctx, log := context.Background(), new(safeBuffer)
		f.config.Logger = slog.New(slog.NewTextHandler(log, nil))
		p, c := f.producer(), f.consumer()
		again := func(d *jobqueue.Delivery) {
			t.Helper()
			if err := f.config.Client.XAdd(ctx, &redis.XAddArgs{Stream: f.config.Prefix + "q:jobs", Values: []any{
				"id", d.ID, "server", d.Server, "deadline", d.Deadline, "request", d.Request,
			}}).Err(); err != nil {
				t.Fatal(err)
			}
			moved, err := c.Finish(ctx, f.fetch(c, 1)[0], "")
			ok(t, moved, err)
			await.Until(t, "that is logged", func() bool {
				return strings.Contains(log.String(), "answered once more") && strings.Contains(log.String(), d.ID)
			})
		}
		first := do(p, ctx, "first", time.Minute)
		d := f.fetch(c, 1)[0]
		moved, err := c.Finish(ctx, d, "")
		ok(t, moved, err)
		if got := <-first; got.err != nil {
			t.Fatal(got.err)
		}
		if log.String() != "" {
			t.Errorf("before anything was lost: %s", log)
		}
		again(d)
		leaving, leave := context.WithCancel(ctx)
		second := do(p, leaving, "second", time.Minute)
		await.Until(t, "the job is there", func() bool { return f.counts().Jobs > 0 })
		record := f.config.Client.XRange(ctx, f.config.Prefix+"q:jobs", "-", "+").Val()[0].Values
		leave()
		if got := <-second; !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Fatal(got.err)
		}
		again(&jobqueue.Delivery{Server: d.Server, Job: jobqueue.Job{ID: record["id"].(string), Deadline: d.Deadline, Request: "second"}})
	})
}

// safeBuffer is written and read at once.
type safeBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

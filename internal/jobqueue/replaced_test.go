package jobqueue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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

package jobqueue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// refuser is a hook of go-redis: calls that carry the text are answered with an error of Redis. executed says whether
// Redis executes them before, as it does if a call is sent twice and the second time is refused.
type refuser struct {
	text     string
	executed bool
	refusal  error
}

func (r *refuser) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *refuser) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *refuser) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		refused := false
		for _, arg := range cmd.Args() {
			text, _ := arg.(string)
			refused = refused || text == r.text
		}
		if !refused || strings.ToLower(cmd.Name()) != "evalsha" {
			return next(ctx, cmd)
		}
		if r.executed {
			if err := next(ctx, cmd); err != nil {
				return err
			}
		}
		cmd.SetErr(r.refusal)
		return r.refusal
	}
}

func TestAnEnqueueThatRedisRefusesSaysWhatBecameOfTheJobs(t *testing.T) {
	for _, test := range []struct {
		name     string
		executed bool
	}{
		{"the first time", false}, {"when it is sent again", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			each(t, func(t *testing.T, f *fixture) {
				p, c := f.producer(), f.consumer()
				f.roundTrip(p, c)
				f.config.Client.AddHook(&refuser{"the request", test.executed, f.refusal()})
				answers := do(p, context.Background(), "the request", time.Minute)
				if test.executed {
					moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "the reply")
					ok(t, moved, err)
					if got := <-answers; got != (answer{"the reply", nil}) {
						t.Errorf("%+v", got)
					}
				} else if got := <-answers; !errors.Is(got.err, jobqueue.ErrUnavailable) {
					t.Errorf("%+v", got)
				}
				if counts := f.counts(); counts.Jobs != 0 {
					t.Errorf("left over: %+v", counts)
				}
			})
		})
	}
}

func TestAnEnqueueWithoutAnAnswerIsLookedInto(t *testing.T) {
	t.Parallel() // most of it is waiting
	broken := errors.New("connection reset by peer")
	each(t, func(t *testing.T, f *fixture) {
		f.config.Timeout = time.Second
		f.incarnate()
		p, c := f.producer(), f.consumer()
		f.roundTrip(p, c)
		f.config.Client.AddHook(&refuser{"lost on its way", false, broken})
		f.config.Client.AddHook(&refuser{"answer lost", true, broken})
		f.config.Client.AddHook(&refuser{"nobody takes it", true, broken})

		if got := <-do(p, context.Background(), "lost on its way", time.Minute); !errors.Is(got.err, jobqueue.ErrUnavailable) {
			t.Errorf("a job that Redis never got: %v", got.err)
		}
		answers := do(p, context.Background(), "answer lost", time.Minute)
		moved, err := c.Finish(context.Background(), f.fetch(c, 1)[0], "the reply")
		ok(t, moved, err)
		if got := <-answers; got != (answer{"the reply", nil}) {
			t.Errorf("a job that Redis got: %+v", got)
		}
		if got := <-do(p, context.Background(), "nobody takes it", 4*time.Second); !errors.Is(got.err, jobqueue.ErrWithdrawn) {
			t.Errorf("a job that Redis got and no worker took: %+v", got)
		}
		if counts := f.counts(); counts.Jobs != 0 {
			t.Errorf("left over: %+v", counts)
		}
	})
}

func TestWithoutALookAnEnqueueWithoutAnAnswerStaysUnknown(t *testing.T) {
	t.Parallel() // most of it is waiting
	f := newFixture(t, redistest.Shared(t))
	f.config.Timeout, f.config.Guards.NoRecall = time.Second, true
	f.incarnate()
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	f.config.Client.AddHook(&refuser{"lost on its way", false, errors.New("connection reset by peer")})
	if got := <-do(p, context.Background(), "lost on its way", 3*time.Second); !errors.Is(got.err, jobqueue.ErrUnknown) {
		t.Errorf("%+v", got)
	}
}

// incarnate has the queue's partition in Redis, as it always is beside a worker.
func (f *fixture) incarnate() {
	f.t.Helper()
	if err := f.config.Client.HSet(context.Background(), f.config.Meta, "incarnation", "0123456789abcdef").Err(); err != nil {
		f.t.Fatal(err)
	}
}

// refusal returns an error that Redis has answered with.
func (f *fixture) refusal() error {
	f.t.Helper()
	err := f.config.Client.HSet(context.Background(), f.config.Prefix+"q:jobs", "a stream", "is no hash").Err()
	var refusal redis.Error
	if !errors.As(err, &refusal) {
		f.t.Fatalf("%v is not an answer of Redis", err)
	}
	return err
}

func TestRepliesThatWereReadAreForgotten(t *testing.T) {
	rdb := redistest.Shared(t)
	f := newFixture(t, rdb)
	p, c := f.producer(), f.consumer()
	f.roundTrip(p, c)
	keys, err := rdb.Keys(context.Background(), f.config.Prefix+"q:replies:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("streams of replies: %v, %v", keys, err)
	}
	// Each round trip adds a record. They are not trimmed every time, but without any trim all of them stay.
	for trips := int64(2); trips < 10_000; trips++ {
		f.roundTrip(p, c)
		if rdb.XLen(context.Background(), keys[0]).Val() < trips {
			return
		}
	}
	t.Error("10,000 replies are kept after they were read")
}

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

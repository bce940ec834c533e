package jobqueue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// BeatAt is BeatAndTakeOver at another time of the process's monotonic clock. It reports whether a lease had expired.
func (c *Consumer) BeatAt(ctx context.Context, now time.Time) (bool, error) {
	_, err := c.beatAndTakeOver(ctx, now)
	return c.Doubt(), err
}

// LoadScripts has Redis know the scripts.
func LoadScripts(ctx context.Context, client *redis.Client, guards Guards) error {
	s := compile(guards)
	for _, script := range []*redis.Script{s.enqueue, s.recall, s.withdraw, s.status, s.beat, s.takeOver, s.handOver, s.load, s.settle, s.leave, replay, track} {
		if err := script.Load(ctx, client).Err(); err != nil {
			return err
		}
	}
	return nil
}

// A Settlement is one step of a job. Kind is one of those of settleScript.
type Settlement struct {
	Kind, First, Second string
	Delivery            *Delivery
}

// Settle takes steps together, and at once.
func (c *Consumer) Settle(settlements ...Settlement) ([]bool, error) {
	steps := make([]settle, len(settlements))
	for i, s := range settlements {
		steps[i] = settle{s.Kind, s.First, s.Second, s.Delivery}
	}
	return c.sendSettles(steps)
}

// Server returns the id of the producer, which names its stream of replies.
func (p *Producer) Server() string { return p.server }

// Enqueued is what an enqueue has said of one job: where it is and, if it is another one of its scope, which; whose reply is
// kept; or why it was refused.
type Enqueued struct {
	At, Joined, Kept string
	Err              error
}

// Enqueue enqueues jobs with one call, whatever Admit says, and with the deadlines that they have.
func (p *Producer) Enqueue(jobs ...Job) ([]Enqueued, error) {
	for i := range jobs {
		jobs[i].most = int64(p.config.MaxQueue)
	}
	results, err := p.sendEnqueues(jobs)
	all := make([]Enqueued, len(results))
	for i, r := range results {
		all[i] = Enqueued{r.id, r.joined, r.kept, r.err}
	}
	return all, err
}

// A Withdrawal is a caller that waits no longer; see withdrawal.
type Withdrawal struct{ ID, At, Job, Token string }

// Withdraw withdraws the jobs of callers with one call, or has them go on.
func (p *Producer) Withdraw(callers ...Withdrawal) ([]string, error) {
	all := make([]withdrawal, len(callers))
	for i, c := range callers {
		all[i] = withdrawal{c.ID, c.At, c.Job, c.Token}
	}
	return p.sendWithdrawals(all)
}

// A Caller waits for the outcome of a job.
type Caller struct {
	producer *Producer
	id       string
	waiter   *waiter
}

// Register makes a caller known. Replies are read by ReadReplies alone.
func (p *Producer) Register(id string) (*Caller, error) {
	p.mu.Lock()
	p.reading = true // by somebody else
	p.mu.Unlock()
	w, err := p.register(id)
	return &Caller{p, id, w}, err
}

// Outcome returns what the caller was told, if it was told something since it was asked last.
func (c *Caller) Outcome(ctx context.Context) (reply Reply, told bool, err error) {
	select {
	case o := <-c.waiter.outcomes:
		reply, err = c.producer.open(ctx, o)
		return reply, true, err
	default:
		return Reply{}, false, nil
	}
}

// Leave has the caller wait no longer.
func (c *Caller) Leave() { c.producer.forget(c.id) }

// ReadReplies hands the replies that are there to their callers, and returns the ids of those that the records name.
func (p *Producer) ReadReplies(ctx context.Context) (ids []string, err error) {
	streams, err := p.config.Client.XRead(ctx, &redis.XReadArgs{Streams: []string{p.keys.replies, p.read}, Block: -1}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	for _, stream := range streams {
		for _, message := range stream.Messages {
			for id := range message.Values {
				ids = append(ids, id)
			}
		}
		p.deliver(stream.Messages)
	}
	return ids, err
}

// ClearExtended has a delivery be one that is not extended, as Expire does.
func (d *Delivery) ClearExtended() { d.extended.Store(false) }

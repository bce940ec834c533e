package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/outage"
)

// ours is the queue of Scales with one server's end and one worker's, set up as the root package does it.
//
// The worker does what package shift does with a job, but for the HTTP: it takes jobs for free slots, takes each in hand,
// looks whether it may run and is still ours, runs it in a goroutine of its own, gives the slot back, and settles it.
type ours struct {
	rdb      redis.UniversalClient
	prefix   string
	producer *jobqueue.Producer
	consumer *jobqueue.Consumer

	slots  chan struct{} // one for each job that runs
	inHand sync.WaitGroup
	loops  sync.WaitGroup
	stop   context.CancelFunc
	failed chan error

	mu   sync.Mutex
	jobs map[string]hand // the jobs in hand, by stream id
}

// hand is under which name, and for the how-manieth time, a job in hand was delivered.
type hand struct {
	consumer   string
	deliveries int64
}

func newOurs(ctx context.Context, rdb redis.UniversalClient, slots int) (*ours, error) {
	const lease = 5 * time.Second
	prefix := "{bench-" + jobqueue.NewID() + ":0}:"
	config := jobqueue.Config{
		Client: rdb, Prefix: prefix, Meta: prefix + "meta", Timeout: time.Second, MaxQueue: 10_000, MaxDead: 10_000,
		Retention: time.Minute, Logger: slog.Default(), Reading: outage.Reading(slog.Default()), Writing: outage.Writing(slog.Default()),
	}
	o := &ours{
		rdb: rdb, prefix: prefix, producer: jobqueue.NewProducer(config), consumer: jobqueue.NewConsumer(config, lease, slots),
		slots: make(chan struct{}, slots), failed: make(chan error, 1), jobs: make(map[string]hand),
	}
	if err := o.consumer.Join(ctx); err != nil {
		return nil, err
	}
	ctx, o.stop = context.WithCancel(context.WithoutCancel(ctx))
	o.loops.Go(func() { o.take(ctx) })
	o.loops.Go(func() { o.beat(ctx) })
	return o, nil
}

func (o *ours) do(ctx context.Context, request string) (string, error) {
	job := jobqueue.Job{ID: jobqueue.NewID(), Scheme: "http", Remote: "192.0.2.1:40000", Request: request}
	reply, err := o.producer.Do(ctx, job, jobqueue.Patience{Wait: callTimeout})
	if err != nil {
		select {
		case failed := <-o.failed:
			err = errors.Join(err, failed)
		default:
		}
	}
	return reply.Text, err
}

// take fetches jobs for free slots.
func (o *ours) take(ctx context.Context) {
	for {
		free := o.reserve(ctx)
		if free == 0 {
			return
		}
		fetched, err := o.consumer.Fetch(ctx, free)
		for range free - len(fetched) {
			<-o.slots
		}
		for _, d := range fetched {
			if o.begin(d) {
				go o.serve(ctx, d)
			} else {
				<-o.slots
			}
		}
		if err != nil && ctx.Err() == nil {
			o.fail(fmt.Errorf("fetch: %w", err))
			return
		}
	}
}

func (o *ours) fail(err error) {
	select {
	case o.failed <- err:
	default:
	}
}

// reserve takes all slots that are free, at least one.
func (o *ours) reserve(ctx context.Context) (n int) {
	select {
	case o.slots <- struct{}{}:
		n++
	case <-ctx.Done():
		return 0
	}
	for {
		select {
		case o.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
}

func (o *ours) begin(d *jobqueue.Delivery) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.jobs[d.StreamID]; ok {
		return false
	}
	o.jobs[d.StreamID] = hand{d.Consumer, d.Deliveries}
	o.inHand.Add(1)
	return true
}

func (o *ours) end(d *jobqueue.Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.jobs, d.StreamID)
	o.inHand.Done()
}

func (o *ours) serve(ctx context.Context, d *jobqueue.Delivery) {
	defer o.end(d)
	release := sync.OnceFunc(func() { <-o.slots })
	defer release()
	if d.Broken != nil || !d.First() || o.consumer.Now() > d.Deadline || !o.stillOurs(ctx, d) {
		o.fail(fmt.Errorf("job %s is not one to run: %+v", d.StreamID, d))
		return
	}
	reply := answer(d.Request)
	release()
	settled, err := o.consumer.Finish(context.WithoutCancel(ctx), d, reply)
	if err != nil || !settled {
		o.fail(fmt.Errorf("job %s was not settled: %t, %w", d.StreamID, settled, err))
	}
}

// stillOurs reports whether nobody has taken the job over before it runs.
func (o *ours) stillOurs(ctx context.Context, d *jobqueue.Delivery) bool {
	if o.consumer.Keeps(d) {
		return true
	}
	owns, err := o.consumer.Owns(ctx, d)
	return err == nil && owns
}

// beat keeps the lease.
func (o *ours) beat(ctx context.Context) {
	ticker := time.NewTicker(o.consumer.BeatInterval())
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if _, err := o.consumer.BeatAndTakeOver(ctx); err != nil && ctx.Err() == nil {
			o.fail(fmt.Errorf("heartbeat: %w", err))
		}
	}
}

// close also checks that every job was acknowledged: a queue that keeps what it has answered is not measured.
func (o *ours) close(ctx context.Context) error {
	err := o.producer.Close(ctx)
	o.stop()
	o.loops.Wait()
	o.inHand.Wait()
	counts, countErr := jobqueue.ReadStats(ctx, o.rdb, o.prefix)
	if counts.Jobs != 0 || counts.Held != 0 || counts.Dead != 0 {
		countErr = fmt.Errorf("jobs were left over: %+v", counts)
	}
	_, leaveErr := o.consumer.Leave(ctx)
	return errors.Join(err, countErr, leaveErr, removeAll(ctx, o.rdb, o.prefix))
}

// removeAll deletes the keys with the prefix.
func removeAll(ctx context.Context, rdb redis.UniversalClient, prefix string) error {
	keys, err := rdb.Keys(ctx, prefix+"*").Result() // the Redis of a benchmark holds little else
	if err != nil || len(keys) == 0 {
		return err
	}
	return rdb.Unlink(ctx, keys...).Err()
}

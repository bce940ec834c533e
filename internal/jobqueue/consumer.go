package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/batch"
	"github.com/itscales/scales/internal/streamid"
)

// fetchBlock is how long a fetch waits for jobs, and so how long a drain waits for a fetch.
const fetchBlock = 500 * time.Millisecond

// mineCount is how many jobs of its own a consumer lists at once.
const mineCount = 100

// A Delivery is a job in the hands of a consumer.
type Delivery struct {
	Job
	Server string // whose stream of replies the answer goes to

	StreamID   string
	Deliveries int64
	Consumer   string

	// Decided is true for a job of a dead worker whose application had answered. Owed is what it left to do.
	Decided bool
	Owed    string

	// Broken says why the record cannot be a job. It is to be buried.
	Broken error
}

// First reports whether nobody had the job before.
func (d *Delivery) First() bool { return d.Deliveries <= 1 && !d.Decided }

// A Consumer owns jobs and settles them. It is safe for concurrent use, but for Fetch, which has one caller.
type Consumer struct {
	config  Config
	keys    keys
	scripts scripts
	lease   time.Duration
	slots   int
	clock   redisClock
	settles *batch.Batcher[settle, bool]

	mu    sync.Mutex
	id    string // changes when the worker was taken for dead
	doubt bool   // a fetch may have delivered jobs that never arrived

	observations map[string]observation // of the beat loop only
	lookedAt     time.Time
}

type observation struct {
	record string
	since  time.Time
}

type settle struct {
	kind, first, second string
	delivery            *Delivery
}

// NewConsumer returns a consumer; it does no I/O. lease is how long its heartbeat may stand still before others take its
// jobs over; slots is told to the others.
func NewConsumer(config Config, lease time.Duration, slots int) *Consumer {
	c := &Consumer{
		config: config, keys: newKeys(config.Prefix), scripts: compile(config.Guards), lease: lease, slots: slots,
		id: NewID(), observations: make(map[string]observation),
	}
	c.settles = batch.New(batch.Config[settle, bool]{
		Send: c.sendSettles, Flights: 2, Patience: config.Timeout, Weight: func(s settle) int { return len(s.first) + len(s.second) },
	})
	return c
}

// ID returns the name of the consumer in the group.
func (c *Consumer) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Now returns a time that Redis's clock has surely reached, in µs.
func (c *Consumer) Now() int64 {
	now, _ := c.clock.now()
	return now
}

// BeatInterval is how often Beat is to be called.
func (c *Consumer) BeatInterval() time.Duration { return c.lease / 4 }

// Join makes the consumer known. It is called before the first Fetch, and again by Beat where the consumer is forgotten.
func (c *Consumer) Join(ctx context.Context) error {
	_, err := c.beat(ctx, true)
	return err
}

// Beat says that the consumer lives, and takes over jobs of consumers whose lease has expired. It reports whether there
// are such jobs now; the caller finds them with Mine.
func (c *Consumer) Beat(ctx context.Context) (took bool, err error) {
	return c.beatAt(ctx, time.Now())
}

func (c *Consumer) beatAt(ctx context.Context, now time.Time) (took bool, err error) {
	others, err := c.beat(ctx, false)
	if err != nil {
		return false, err
	}
	for _, dead := range c.expired(others, now) {
		n, err := c.takeOver(ctx, dead, others[dead])
		if err != nil {
			return took, err
		}
		took = took || n > 0
	}
	return took, nil
}

// beat returns the records of the other consumers, "" for one that has jobs but no record.
func (c *Consumer) beat(ctx context.Context, join bool) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	flag := ""
	if join {
		flag = "1"
	}
	id := c.ID()
	args := []any{id, c.BeatInterval().Microseconds(), c.slots, flag}
	reply, err := run(ctx, c.config.Client, c.scripts.beat, []string{c.keys.workers, c.keys.jobs}, args)
	if err != nil {
		return nil, err
	}
	if err := expect(reply, 4, "beat"); err != nil {
		return nil, err
	}
	c.clock.learn(time.Now(), number(reply[0]))
	if number(reply[1]) == 0 {
		c.mu.Lock()
		c.id = NewID() // what the old id owned is no longer ours
		c.mu.Unlock()
		c.config.Logger.Warn("scales: this worker was taken for dead, or Redis has lost its state; it goes on as a new one", "worker", id)
		return c.beat(ctx, true)
	}
	others := make(map[string]string)
	records, _ := reply[2].([]any)
	for i := 0; i+1 < len(records); i += 2 {
		others[text(records[i])] = text(records[i+1])
	}
	consumers, _ := reply[3].([]any)
	for _, consumer := range consumers {
		if _, ok := others[text(consumer)]; !ok {
			others[text(consumer)] = ""
		}
	}
	delete(others, id)
	return others, nil
}

// expired returns the consumers whose record has not changed for a whole lease of this process's monotonic clock. Where
// we have not looked for a while, Redis may have been away for them too: everything counts from anew.
func (c *Consumer) expired(others map[string]string, now time.Time) []string {
	if now.Sub(c.lookedAt) > c.lease/2 {
		clear(c.observations)
	}
	c.lookedAt = now
	var dead []string
	for id, record := range others {
		seen, ok := c.observations[id]
		switch {
		case !ok || seen.record != record:
			c.observations[id] = observation{record, now}
		case now.Sub(seen.since) >= c.lease:
			dead = append(dead, id)
		}
	}
	for id := range c.observations {
		if _, ok := others[id]; !ok {
			delete(c.observations, id)
		}
	}
	return dead
}

func (c *Consumer) takeOver(ctx context.Context, dead, record string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	reply, err := run(ctx, c.config.Client, c.scripts.takeOver, []string{c.keys.workers, c.keys.jobs}, []any{dead, record, c.ID(), mineCount})
	if err != nil {
		return 0, err
	}
	n := number(reply[0])
	if n >= 0 {
		c.config.Logger.Warn("scales: a worker's lease has expired; its jobs are taken over", "worker", dead, "jobs", n)
	}
	return n, nil
}

// Fetch waits for up to n jobs that nobody had. It returns none after a while without any.
func (c *Consumer) Fetch(ctx context.Context, n int) ([]*Delivery, error) {
	id := c.ID()
	streams, err := c.config.Client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: group, Consumer: id, Streams: []string{c.keys.jobs, ">"}, Count: int64(n), Block: fetchBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		c.SetDoubt()
		if strings.Contains(err.Error(), "NOGROUP") {
			return nil, errors.Join(err, c.Join(ctx))
		}
		return nil, err
	}
	var deliveries []*Delivery
	for _, stream := range streams {
		for _, m := range stream.Messages {
			d := &Delivery{StreamID: m.ID, Deliveries: 1, Consumer: id}
			d.fill(func(name string) string { return text(m.Values[name]) })
			deliveries = append(deliveries, d)
		}
	}
	return deliveries, nil
}

// Doubt reports, once, whether a fetch has failed, so that jobs may be ours that never arrived.
func (c *Consumer) Doubt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	doubt := c.doubt
	c.doubt = false
	return doubt
}

// SetDoubt makes the next call of Doubt report true.
func (c *Consumer) SetDoubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubt = true
}

// fill reads the fields of a job's record.
func (d *Delivery) fill(field func(string) string) {
	d.ID, d.Server, d.Scheme, d.Remote, d.Request = field("id"), field("server"), field("scheme"), field("remote"), field("request")
	d.Deadline = number(field("deadline"))
	switch {
	case d.ID == "" || d.Request == "" || d.Deadline <= 0:
		d.Broken = errors.New("the record lacks a field of a job")
	case d.Server == "" || strings.ContainsAny(d.Server, ":{}"):
		d.Broken = errors.New("the record names no server")
		d.Server = "nobody"
	}
}

// Mine lists all jobs that the consumer owns, decided or not, in the order of the queue.
func (c *Consumer) Mine(ctx context.Context) ([]*Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	id := c.ID()
	var all []*Delivery
	for after := "-"; ; {
		keys := []string{c.keys.jobs, c.keys.held, c.keys.owed}
		reply, err := run(ctx, c.config.Client, c.scripts.mine, keys, []any{id, after, mineCount})
		if err != nil {
			return all, err
		}
		for _, item := range reply {
			job, _ := item.([]any)
			if len(job) != 5 {
				return all, fmt.Errorf("mine script: %d values for a job", len(job))
			}
			fields := make(map[string]string)
			pairs, _ := job[2].([]any)
			for i := 0; i+1 < len(pairs); i += 2 {
				fields[text(pairs[i])] = text(pairs[i+1])
			}
			d := &Delivery{StreamID: text(job[0]), Deliveries: number(job[1]), Consumer: id}
			d.fill(func(name string) string { return fields[name] })
			_, d.Decided = job[3].(string)
			d.Owed = text(job[4])
			all = append(all, d)
			after = "(" + d.StreamID
		}
		if len(reply) < mineCount {
			return all, nil
		}
	}
}

// Decide records that the application has answered: the reply is held, owed is what is left to do before it is released.
// False means that the job is somebody else's by now. The same holds for the following steps.
func (c *Consumer) Decide(ctx context.Context, d *Delivery, reply, owed string) (bool, error) {
	return c.settles.Do(ctx, settle{"decide", reply, owed, d})
}

// Release sends the held reply and acknowledges the job.
func (c *Consumer) Release(ctx context.Context, d *Delivery) (bool, error) {
	return c.settles.Do(ctx, settle{"release", "", "", d})
}

// Finish sends the reply of a job that owes nothing and acknowledges the job.
func (c *Consumer) Finish(ctx context.Context, d *Delivery, reply string) (bool, error) {
	return c.settles.Do(ctx, settle{"finish", reply, "", d})
}

// Bury makes the job a dead letter and answers it with the reply.
func (c *Consumer) Bury(ctx context.Context, d *Delivery, reply, reason string) (bool, error) {
	return c.settles.Do(ctx, settle{"bury", reply, reason, d})
}

// sendSettles sends steps of one consumer id together; a worker that was taken for dead has jobs under several.
func (c *Consumer) sendSettles(steps []settle) ([]bool, error) {
	results := make([]bool, len(steps))
	byConsumer := make(map[string][]int)
	for i, s := range steps {
		byConsumer[s.delivery.Consumer] = append(byConsumer[s.delivery.Consumer], i)
	}
	for consumer, indexes := range byConsumer {
		if err := c.sendSettlesOf(consumer, steps, indexes, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (c *Consumer) sendSettlesOf(consumer string, steps []settle, indexes []int, results []bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.config.Timeout)
	defer cancel()
	keys := []string{c.keys.jobs, c.keys.held, c.keys.owed, c.keys.dead, c.keys.statistics}
	streams := make(map[string]int)
	args := make([]any, 0, 5+7*len(indexes))
	args = append(args, consumer, c.config.Retention.Milliseconds(), c.config.MaxDead, "", "")
	oldest, newest := steps[indexes[0]].delivery.StreamID, steps[indexes[0]].delivery.StreamID
	for _, i := range indexes {
		s := &steps[i]
		at, ok := streams[s.delivery.Server]
		if !ok {
			keys = append(keys, c.keys.replies+s.delivery.Server)
			at = len(keys)
			streams[s.delivery.Server] = at
		}
		if streamid.Less(s.delivery.StreamID, oldest) {
			oldest = s.delivery.StreamID
		} else if streamid.Less(newest, s.delivery.StreamID) {
			newest = s.delivery.StreamID
		}
		args = append(args, s.kind, s.delivery.StreamID, s.delivery.Deliveries, s.delivery.ID, at, s.first, s.second)
	}
	args[3], args[4] = oldest, newest
	gone, err := run(ctx, c.config.Client, c.scripts.settle, keys, args)
	if err != nil {
		return err
	}
	for _, i := range indexes {
		results[i] = true
	}
	for _, n := range gone {
		if at := number(n); at < 0 || at >= int64(len(indexes)) {
			return fmt.Errorf("settle script: job %d of %d", at, len(indexes))
		} else {
			results[indexes[at]] = false
		}
	}
	return nil
}

// Leave removes the consumer if it owns nothing.
func (c *Consumer) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	_, err := run(ctx, c.config.Client, c.scripts.leave, []string{c.keys.workers, c.keys.jobs}, []any{c.ID()})
	return err
}

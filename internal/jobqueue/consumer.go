package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/batch"
	"github.com/itscales/scales/internal/streamid"
)

// FetchBlock is how long a fetch waits for jobs, and so how long a drain waits for a fetch.
const FetchBlock = 500 * time.Millisecond

// A Delivery is a job in the hands of a consumer.
type Delivery struct {
	Job
	Server string // whose stream of replies the answer goes to
	Keep   int64  // how long the reply is kept, in ms; 0 for a job that is not tracked

	StreamID   string
	Deliveries int64
	Consumer   string
	asked      time.Time // when the call was sent that brought it

	// FreesScope is set by who settles a tracked job that was not carried out: the next one of its scope is a new job.
	FreesScope bool

	extended atomic.Bool // see Extended

	// Decided is true for a job of a dead worker whose application had answered. Owed is what it left to do.
	Decided bool
	Owed    string

	// Broken says why the record cannot be a job. It is to be buried.
	Broken error
}

// Unattended reports whether nobody waits for a reply.
func (d *Delivery) Unattended() bool { return d.Server == Nobody }

// Extended reports whether Expire has found that the job does not expire yet, because somebody who has joined waits longer.
func (d *Delivery) Extended() bool { return d.extended.Load() }

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

	draining atomic.Bool // it takes no more jobs

	mu     sync.Mutex
	id     string    // changes when the worker was taken for dead
	doubt  bool      // jobs may be ours that are not in hand
	beatAt time.Time // when the latest heartbeat that arrived was sent
	steady time.Time // since when heartbeats have followed each other within a lease, under the present id

	observations map[string]observation // of the beat loop only
	lookedAt     time.Time
}

type settle struct {
	kind, first, second string
	delivery            *Delivery
}

// keep is what the script is told.
func (d *Delivery) keep() string {
	switch {
	case d.Keep <= 0:
		return ""
	case d.FreesScope:
		return strconv.FormatInt(d.Keep, 10) + " free"
	}
	return strconv.FormatInt(d.Keep, 10)
}

// NewConsumer returns a consumer; it does no I/O. lease is how long its heartbeat may stand still before others take its
// jobs over; slots is told to the others.
func NewConsumer(config Config, lease time.Duration, slots int) *Consumer {
	c := &Consumer{
		config: config, keys: newKeys(config.Prefix), scripts: compile(config.Guards), lease: lease, slots: slots,
		id: NewID(), observations: make(map[string]observation),
	}
	c.settles = batch.New(batch.Config[settle, bool]{
		Send: c.sendSettles, FullFlights: 1, Patience: config.Timeout, Weight: func(s settle) int { return len(s.first) + len(s.second) },
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

// Fetch waits for up to n jobs that nobody had. It returns none after a while without any.
func (c *Consumer) Fetch(ctx context.Context, n int) ([]*Delivery, error) {
	id, asked := c.ID(), time.Now()
	// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
	ctx, cancel := context.WithTimeout(ctx, FetchBlock+c.config.Timeout)
	defer cancel()
	streams, err := c.config.Client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: group, Consumer: id, Streams: []string{c.keys.jobs, ">"}, Count: int64(n), Block: FetchBlock,
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
			d := &Delivery{StreamID: m.ID, Deliveries: 1, Consumer: id, asked: asked}
			d.fill(func(name string) string { return text(m.Values[name]) })
			deliveries = append(deliveries, d)
		}
	}
	return deliveries, nil
}

// fill reads the fields of a job's record.
func (d *Delivery) fill(field func(string) string) {
	d.ID, d.Server, d.Scheme, d.Remote, d.Request = field("id"), field("server"), field("scheme"), field("remote"), field("request")
	d.Deadline, d.Keep, d.Order = number(field("deadline")), number(field("keep")), field("order")
	if d.ID == "" || d.Request == "" || d.Deadline <= 0 {
		d.Broken = errors.New("the record lacks a field of a job")
	}
	if d.Server == "" || strings.ContainsAny(d.Server, ":{}") {
		d.Broken, d.Server = errors.New("the record names no server"), Nobody
	}
	if err := validOrder(d.Order); err != nil {
		d.Broken, d.Order = err, ""
	}
}

// Decide records that the application has answered: the reply is held, owed is what is left to do before it is released.
// False means that the job is somebody else's by now. The same holds for the following steps.
func (c *Consumer) Decide(ctx context.Context, d *Delivery, reply, owed string) (bool, error) {
	return c.settles.Do(ctx, settle{"decide", reply, owed, d})
}

// Release sends the held reply and acknowledges the job. log is what the reply says of the change logs; see Reply.
func (c *Consumer) Release(ctx context.Context, d *Delivery, log string) (bool, error) {
	return c.settles.Do(ctx, settle{"release", log, "", d})
}

// Finish sends the reply of a job that owes nothing and acknowledges the job.
func (c *Consumer) Finish(ctx context.Context, d *Delivery, reply string) (bool, error) {
	return c.settles.Do(ctx, settle{"finish", Reply{Text: reply}.record(), "", d})
}

// Expire is Finish for a job that is begun too late. It may find it to be Extended instead.
func (c *Consumer) Expire(ctx context.Context, d *Delivery, reply string) (bool, error) {
	d.extended.Store(false) // a call that has failed before may have said so, and it may be over since
	return c.settles.Do(ctx, settle{"expire", Reply{Text: reply}.record(), "", d})
}

// Bury makes the job a dead letter and answers it with the reply, unless that is empty. drift marks one that may have been carried out, so that
// the cache may have drifted from the application.
func (c *Consumer) Bury(ctx context.Context, d *Delivery, reply, reason string, drift bool) (bool, error) {
	kind := "bury"
	if drift {
		kind = "lose"
	}
	if reply != "" {
		reply = Reply{Text: reply}.record()
	}
	return c.settles.Do(ctx, settle{kind, reply, reason, d})
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

// A tracked job may be waited for at servers that its record does not name. Whoever settles it learns of them by trying, and
// tries again with their streams of replies, so that reply and acknowledgement are one atomic step.
func (c *Consumer) sendSettlesOf(consumer string, steps []settle, indexes []int, results []bool) error {
	var servers []string
	for range maxServers {
		again, missing, err := c.trySettlesOf(consumer, steps, indexes, results, servers)
		if err != nil || len(again) == 0 {
			return err
		}
		indexes, servers = again, append(servers, missing...)
		slices.Sort(servers)
		servers = slices.Compact(servers)
	}
	return fmt.Errorf("settle script: jobs are waited for at over %d servers", maxServers)
}

// maxServers is how often at most the servers that wait for a job are found to be more.
const maxServers = 1000

// trySettlesOf returns the steps that were not taken because there are servers missing.
func (c *Consumer) trySettlesOf(
	consumer string, steps []settle, indexes []int, results []bool, servers []string,
) (again []int, missing []string, err error) {
	// Replies may have many megabytes; giving up too early would mean to send them again and again.
	ctx, cancel := context.WithTimeout(context.Background(), 10*c.config.Timeout)
	defer cancel()
	keys := keyList{keys: append(append([]string{c.keys.jobs, c.keys.held, c.keys.owed, c.keys.dead}, c.keys.tracking()...), c.keys.lanes)}
	for _, server := range servers {
		keys.add(c.keys.replies + server)
	}
	args := make([]any, 0, 5+9*len(indexes))
	args = append(args, consumer, c.config.Retention.Milliseconds(), c.config.MaxDead, "", "")
	oldest, newest := steps[indexes[0]].delivery.StreamID, steps[indexes[0]].delivery.StreamID
	for _, i := range indexes {
		s := &steps[i]
		replies, lane := 0, 0
		if !s.delivery.Unattended() {
			replies = keys.add(c.keys.replies + s.delivery.Server)
		}
		if s.delivery.Order != "" {
			lane = keys.add(c.keys.lane(s.delivery.Order))
		}
		if streamid.Less(s.delivery.StreamID, oldest) {
			oldest = s.delivery.StreamID
		} else if streamid.Less(newest, s.delivery.StreamID) {
			newest = s.delivery.StreamID
		}
		args = append(args, s.kind, s.delivery.StreamID, s.delivery.Deliveries, s.delivery.ID, replies, lane,
			s.delivery.keep(), s.first, s.second)
	}
	args[3], args[4] = oldest, newest
	gone, err := run(ctx, c.config.Client, c.scripts.settle, keys.keys, args)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range indexes {
		results[i] = true
	}
	for _, n := range gone {
		of := strings.Fields(fmt.Sprint(n))
		at, err := strconv.Atoi(of[0])
		if err != nil || at < 0 || at >= len(indexes) {
			return nil, nil, fmt.Errorf("settle script: job %q of %d", of[0], len(indexes))
		}
		results[indexes[at]] = false
		if len(of) > 1 && of[1] == "+" {
			steps[indexes[at]].delivery.extended.Store(true)
		} else if len(of) > 1 {
			again, missing = append(again, indexes[at]), append(missing, of[1:]...)
		}
	}
	return again, missing, nil
}

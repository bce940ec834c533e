package jobqueue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// takeOverCount is how many jobs of a dead worker are taken over at once.
	takeOverCount = 100
	// listCount is how many jobs are listed, and loadCount how many are loaded, with one call.
	listCount, loadCount = 1000, 8
)

type observation struct {
	record string
	since  time.Time
}

// BeatInterval is how often Beat is to be called.
func (c *Consumer) BeatInterval() time.Duration { return c.lease / 4 }

// Join makes the consumer known. It is called before the first Fetch, and again by Beat where the consumer is forgotten.
func (c *Consumer) Join(ctx context.Context) error {
	_, _, err := c.beat(ctx, true)
	return err
}

// Beat says that the consumer lives. It returns how many jobs it owns.
func (c *Consumer) Beat(ctx context.Context) (owned int, err error) {
	_, owned, err = c.beat(ctx, false)
	return owned, err
}

// BeatAndTakeOver is Beat, and takes over the jobs of consumers whose lease has expired. They are not in hand then: the
// consumer is in doubt.
func (c *Consumer) BeatAndTakeOver(ctx context.Context) (owned int, err error) {
	return c.beatAndTakeOver(ctx, time.Now())
}

func (c *Consumer) beatAndTakeOver(ctx context.Context, now time.Time) (owned int, err error) {
	others, owned, err := c.beat(ctx, false)
	if err != nil {
		return 0, err
	}
	for _, dead := range c.expired(others, now) {
		c.SetDoubt() // before the call: its answer may get lost
		if err := c.takeOver(ctx, dead, others[dead]); err != nil {
			return owned, err
		}
	}
	return owned, nil
}

// Keeps reports whether a job is surely still the consumer's: since it was asked for, the consumer has the same name, and
// its heartbeats have followed each other so closely that nobody can have seen them stand still for a lease.
func (c *Consumer) Keeps(d *Delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.Consumer == c.id && !d.asked.Before(c.steady) && time.Since(c.beatAt) < c.steadiness()
}

// steadiness is how long after a heartbeat was sent nobody takes jobs over; clocks may run at different speeds.
func (c *Consumer) steadiness() time.Duration { return c.lease * 3 / 4 }

// beat returns the records of the other consumers, "" for one that has jobs but no record, and how many jobs we own.
func (c *Consumer) beat(ctx context.Context, join bool) (others map[string]string, owned int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	flag := ""
	if join {
		flag = "1"
	}
	id, sent, slots := c.ID(), time.Now(), strconv.Itoa(c.slots)
	if c.draining.Load() {
		slots += " leaving"
	}
	args := []any{id, c.BeatInterval().Microseconds(), slots, flag}
	keys := append([]string{c.keys.workers, c.keys.jobs, c.keys.samples}, c.keys.tracking()...)
	reply, err := run(ctx, c.config.Client, c.scripts.beat, append(keys, c.keys.left), args)
	if err != nil {
		return nil, 0, err
	}
	if err := expect(reply, 5, "beat"); err != nil {
		return nil, 0, err
	}
	c.clock.learn(time.Now(), number(reply[0]))
	if number(reply[1]) == 0 {
		c.mu.Lock()
		c.id = NewID() // what the old id owned is no longer ours
		c.mu.Unlock()
		c.config.Logger.Warn("scales: this worker was taken for dead, or Redis has lost its state; it goes on as a new one", "worker", id)
		return c.beat(ctx, true)
	}
	c.mu.Lock()
	if join || time.Since(c.beatAt) >= c.steadiness() {
		c.steady = sent
	}
	c.beatAt = sent
	c.mu.Unlock()
	others = make(map[string]string)
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
	return others, int(number(reply[4])), nil
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

func (c *Consumer) takeOver(ctx context.Context, dead, record string) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	reply, err := run(ctx, c.config.Client, c.scripts.takeOver, []string{c.keys.workers, c.keys.jobs, c.keys.statistics}, []any{dead, record, c.ID(), takeOverCount})
	if err != nil {
		return err
	}
	if n := number(reply[0]); n >= 0 {
		c.config.Logger.Warn("scales: a worker's lease has expired; its jobs are taken over", "worker", dead, "jobs", n)
	}
	return nil
}

// HandOver gives jobs of the consumer that were never begun to another worker, which finds them with its heartbeats: stream ids, and
// how often each was delivered. It returns how many it has given; none if there is no other.
func (c *Consumer) HandOver(ctx context.Context, jobs map[string]int64) (int, error) {
	if len(jobs) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	args := []any{c.ID()}
	for id, deliveries := range jobs {
		args = append(args, id, deliveries)
	}
	reply, err := run(ctx, c.config.Client, c.scripts.handOver, []string{c.keys.workers, c.keys.jobs}, args)
	if err != nil {
		return 0, err
	}
	return int(number(reply[0])), nil
}

// Doubt reports, once, whether jobs may be ours that are not in hand: a fetch has failed, or jobs were taken over.
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

// Owned lists the jobs that the consumer owns: their stream ids and how often they were delivered. Whether one is still
// owned when it is worked on says Load.
func (c *Consumer) Owned(ctx context.Context) (map[string]int64, error) {
	id := c.ID()
	owned := make(map[string]int64)
	for start := "-"; ; {
		page, err := c.ownedPage(ctx, id, start)
		if err != nil {
			return owned, err
		}
		for _, job := range page {
			owned[job.ID] = job.RetryCount
			start = "(" + job.ID
		}
		if len(page) < listCount {
			return owned, nil
		}
	}
}

func (c *Consumer) ownedPage(ctx context.Context, id, start string) ([]redis.XPendingExt, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	return c.config.Client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: c.keys.jobs, Group: group, Start: start, End: "+", Count: listCount, Consumer: id,
	}).Result()
}

// Load reads jobs by their stream ids, as they are now: nil for one that the consumer does not own.
func (c *Consumer) Load(ctx context.Context, ids ...string) ([]*Delivery, error) {
	var all []*Delivery
	for len(ids) > 0 {
		n := min(len(ids), loadCount)
		page, err := c.loadPage(ctx, c.ID(), ids[:n])
		if err != nil {
			return nil, err
		}
		all, ids = append(all, page...), ids[n:]
	}
	return all, nil
}

// Owns reports whether a job is owned now as it was delivered, under the name that the consumer had then.
func (c *Consumer) Owns(ctx context.Context, d *Delivery) (bool, error) {
	loaded, err := c.loadPage(ctx, d.Consumer, []string{d.StreamID})
	return err == nil && loaded[0] != nil && loaded[0].Deliveries == d.Deliveries, err
}

func (c *Consumer) loadPage(ctx context.Context, consumer string, ids []string) ([]*Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	asked := time.Now()
	args := []any{consumer}
	for _, id := range ids {
		args = append(args, id)
	}
	reply, err := run(ctx, c.config.Client, c.scripts.load, []string{c.keys.jobs, c.keys.held, c.keys.owed, c.keys.tracked}, args)
	if err != nil {
		return nil, err
	}
	if err := expect(reply, len(ids), "load"); err != nil {
		return nil, err
	}
	page := make([]*Delivery, len(ids))
	for i, item := range reply {
		job, ok := item.([]any)
		if !ok {
			continue
		}
		if len(job) != 5 {
			return nil, fmt.Errorf("load script: %d values for a job", len(job))
		}
		fields := make(map[string]string)
		pairs, _ := job[1].([]any)
		for i := 0; i+1 < len(pairs); i += 2 {
			fields[text(pairs[i])] = text(pairs[i+1])
		}
		d := &Delivery{StreamID: ids[i], Deliveries: number(job[0]), Consumer: consumer, asked: asked}
		d.fill(func(name string) string { return fields[name] })
		d.Decided, d.Owed = number(job[2]) == 1, text(job[3])
		d.Deadline = max(d.Deadline, number(job[4]))
		page[i] = d
	}
	return page, nil
}

// Drain has the heartbeats from the next one on say that the consumer takes no more jobs. Producers count on it only if no other takes jobs.
func (c *Consumer) Drain() { c.draining.Store(true) }

// Leave removes the consumer if it owns nothing, and reports whether it did. Producers count on its successor for a while.
func (c *Consumer) Leave(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	args := []any{c.ID(), c.BeatInterval().Microseconds(), c.slots}
	reply, err := run(ctx, c.config.Client, c.scripts.leave, []string{c.keys.workers, c.keys.jobs, c.keys.left}, args)
	return err == nil && number(reply[0]) == 1, err
}

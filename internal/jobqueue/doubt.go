package jobqueue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// longestTimeout is the longest Timeout that a server may have, in µs: one that enqueues forgets the calls of two spans ago
// by its own clock.
const longestTimeout = 5_000_000

// identity names the process of Redis that has the queue, and the history of its data: what a Redis with another one does not
// know may have happened all the same, and be lost. It is "" where Redis does not say.
func (p *Producer) identity(ctx context.Context) string {
	node := redis.Cmdable(p.config.Client)
	if cluster, ok := p.config.Client.(*redis.ClusterClient); ok {
		master, err := cluster.MasterForKey(ctx, p.keys.jobs)
		if err != nil {
			return ""
		}
		node = master
	}
	info, err := node.Info(ctx, "server", "replication").Result()
	if err != nil {
		return ""
	}
	var parts []string
	for _, name := range [...]string{"run_id:", "master_replid:"} {
		_, value, _ := strings.Cut(info, name)
		value, _, _ = strings.Cut(value, "\n")
		parts = append(parts, strings.TrimSpace(value))
	}
	return strings.Join(parts, " ")
}

// recentIdentity is identity as it was at most half a second ago. An old one makes more unknown, not less.
func (p *Producer) recentIdentity(ctx context.Context) string {
	p.mu.Lock()
	identity, asked := p.last.redis, p.identified
	p.mu.Unlock()
	if time.Since(asked) < fresh {
		return identity
	}
	identity = p.identity(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.identified = time.Now()
	return identity
}

// doubtRetry is how long to wait between two questions what became of an enqueue.
const doubtRetry = 50 * time.Millisecond

// A call is a round trip that enqueues.
type call struct {
	name        string // no other call ever has it
	admitBy     int64  // arriving later it changes nothing; in µs of Redis's clock
	incarnation string // of the queue when it left, as far as that was known
	redis       string // the process of Redis that was asked last before it left; see identity
}

// span is the time span whose calls are remembered together with this one.
func (c call) span() int64 { return c.admitBy / seenSpan }

// seen returns the name of the hash that remembers the calls of a span.
func (p *Producer) seen(span int64) string { return p.keys.seen + strconv.FormatInt(span, 10) }

// doubt has it found out what became of an enqueue that got no answer.
func (p *Producer) doubt(c call, jobs []Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Err() != nil || p.config.Guards.NoRecall {
		return
	}
	ids := make([]string, len(jobs)) // who waits may leave, and the requests with them
	for i := range jobs {
		ids[i] = jobs[i].ID
	}
	p.resolving.Go(func() { p.resolve(c, ids) })
}

// resolve finds out what became of an enqueue that got no answer, and tells those who wait for its jobs, so that they
// need not wait for replies that will never come. Redis remembers what it has enqueued; once it is too late for the call
// to be admitted, a call that it does not remember surely has no effect and will have none:
//
//	server: sends an enqueue; the connection breaks, or there is no answer in time
//	Redis:  has executed it, or finds it in a buffer later, or never sees it
//	server: after the time at which it could have been admitted: is it known? No: 503, nothing runs
//
// What Redis has lost or forgotten it cannot tell. A Redis that was restarted or replaced by another may have lost it while a
// worker has it: that is unknown, too.
func (p *Producer) resolve(c call, jobs []string) {
	ctx, cancel := context.WithTimeout(p.closing, 2*seenSpan*time.Microsecond)
	defer cancel()
	for ctx.Err() == nil && p.waitsForAny(jobs) {
		redisTime, _ := p.clock.now()
		pause := max(doubtRetry, time.Duration(c.admitBy-redisTime)*time.Microsecond)
		select {
		case <-time.After(min(pause, 2*p.config.Timeout)):
		case <-ctx.Done():
			return
		}
		outcomes, known, err := p.outcomes(ctx, c, len(jobs))
		if err != nil || !known {
			continue
		}
		p.mu.Lock()
		for i, o := range outcomes {
			p.noteEnqueued(jobs[i], o)
		}
		p.mu.Unlock()
		return
	}
}

func (p *Producer) waitsForAny(jobs []string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, job := range jobs {
		if _, ok := p.waiting[job]; ok {
			return true
		}
	}
	return false
}

// outcomes asks Redis what it knows of a call of n jobs. It is not known while the call may still arrive.
func (p *Producer) outcomes(ctx context.Context, c call, n int) (results []enqueued, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	reply, err := run(ctx, p.config.Client, p.scripts.recall, []string{p.seen(c.span()), p.config.Meta}, []any{c.name})
	if err != nil {
		return nil, false, err
	}
	if err := expect(reply, 3, "recall"); err != nil {
		return nil, false, err
	}
	now, incarnation, said := number(reply[0]), text(reply[1]), strings.Fields(text(reply[2]))
	redisNow := p.identity(ctx)
	results = make([]enqueued, n)
	for i := range results {
		switch {
		case len(said) == n:
			results[i] = enqueuedOf(said[i])
			results[i].now, results[i].incarnation = now, incarnation
		case now <= c.admitBy:
			return nil, false, nil
		case incarnation != c.incarnation || incarnation == "":
			results[i].err = fmt.Errorf("%w: Redis lost the queue", ErrUnknown)
		case redisNow != c.redis:
			results[i].err = fmt.Errorf("%w: Redis was restarted or replaced, and may have lost it", ErrUnknown)
		case now >= (c.span()+2)*seenSpan-longestTimeout:
			results[i].err = fmt.Errorf("%w: Redis was asked too late", ErrUnknown) // the span may be forgotten
		default:
			results[i].err = fmt.Errorf("%w: Redis did not take it", ErrUnavailable)
		}
	}
	return results, true, nil
}

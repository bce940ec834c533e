package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// quiet is how long ago Redis may have answered last for a round trip that enqueues to be sent without a look
	// at Redis before. A look that fails proves that nothing was enqueued.
	quiet = 20 * time.Millisecond

	// seenSpan is the time span whose calls are remembered together, in µs.
	seenSpan = 10_000_000

	// trimInterval is how often replies that were read are removed from Redis.
	trimInterval = 10 * time.Millisecond
)

// enqueued is what became of a job that was to be enqueued: it has an id in the stream, or there is a reply to one of its
// scope, or an error.
type enqueued struct {
	id          string
	joined      string // the job of its scope that has that id, if it is not the job itself
	kept        string // the job of its scope whose reply is kept
	err         error
	incarnation string
	redis       string
	now         int64
}

// sendEnqueues enqueues jobs. Who waits for the reply to one that was not enqueued is told so.
func (p *Producer) sendEnqueues(jobs []Job) ([]enqueued, error) {
	results, err := p.tryEnqueues(jobs)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, result := range results {
		p.noteEnqueued(jobs[i].ID, result)
	}
	return results, err
}

// noteEnqueued notes what became of a job that somebody may wait for. The caller holds mu.
func (p *Producer) noteEnqueued(id string, result enqueued) {
	switch w, ok := p.waiting[id]; {
	case result.err != nil:
		p.tell(id, outcome{err: result.err})
	case result.kept != "":
		p.tell(id, outcome{kept: result.kept})
	case ok:
		if w.at == "" && result.id != "" {
			close(w.taken)
		}
		w.at, w.joined = result.id, result.joined
		w.incarnation, w.redis, w.since = result.incarnation, result.redis, result.now
	}
}

func (p *Producer) tryEnqueues(jobs []Job) ([]enqueued, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	results := make([]enqueued, len(jobs))
	if _, age := p.clock.now(); age > quiet {
		// What waited behind a look that failed need not wait for another one.
		err := error(ErrUnavailable)
		if time.Now().UnixNano()-p.blind.Load() > int64(fresh) {
			limit := p.config.Timeout
			if age > fresh {
				// These jobs were admitted on knowledge that was fresh: they have waited for a call without an answer.
				limit /= 2
			}
			_, err = p.look(context.Background(), limit)
		}
		if err != nil {
			for i := range results {
				results[i].err = err
			}
			return results, nil
		}
	}
	c := p.newCall()
	args := make([]any, 0, 7+8*len(jobs))
	args = append(args, c.admitBy, p.config.MaxQueue, p.trim(), p.server, c.name, p.config.MaxKept.Jobs, p.config.MaxKept.Bytes)
	keys := keyList{keys: []string{p.keys.jobs, p.seen(c.span()), p.seen(c.span() - 2), p.keys.replies, p.config.Meta}}
	keys.keys = append(append(keys.keys, p.keys.tracking()...), p.keys.lanes)
	for i := range jobs {
		job, lane := &jobs[i], 0
		if job.Order != "" && !p.config.Guards.NoOrder {
			lane = keys.add(p.keys.lane(job.Order))
		}
		args = append(args, job.ID, job.Deadline, job.most, job.Scheme, job.Remote, job.Request, job.Tracking.argument(), lane)
	}
	reply, err := run(ctx, p.config.Client, p.scripts.enqueue, keys.keys, args)
	p.config.Writing.Note(p.closing, err)
	var refusal redis.Error
	if errors.As(err, &refusal) {
		results, err = p.refused(ctx, c, len(jobs), err)
		if err == nil {
			return results, nil
		}
	}
	if err != nil {
		p.doubt(c, jobs)
		return nil, err
	}
	if err := expect(reply, 5+len(jobs), "enqueue"); err != nil {
		return nil, err
	}
	p.clock.learn(time.Now(), number(reply[0]))
	p.see(number(reply[0]), number(reply[4]), number(reply[2]), number(reply[3]))
	for i := range results {
		results[i] = enqueuedOf(text(reply[5+i]))
		results[i].now, results[i].incarnation, results[i].redis = number(reply[0]), text(reply[1]), c.redis
	}
	return results, nil
}

// enqueuedOf reads what the script says of one job.
func enqueuedOf(said string) enqueued {
	switch said {
	case "full":
		return enqueued{err: ErrFull}
	case "busy":
		return enqueued{err: ErrBusy}
	case "order-full":
		return enqueued{err: ErrOrderFull}
	case "late":
		return enqueued{err: fmt.Errorf("%w: Redis answered too late", ErrUnavailable)}
	case "other":
		return enqueued{err: ErrPayload}
	case "crowded":
		return enqueued{err: ErrCrowded}
	case "many":
		return enqueued{err: fmt.Errorf("%w, as many as may", ErrShared)}
	}
	if e, ok := trackedOf(said); ok {
		return e
	}
	return enqueued{id: said}
}

// newCall names a round trip that enqueues.
func (p *Producer) newCall() call {
	redisTime, _ := p.clock.now()
	p.mu.Lock()
	incarnation, identity := p.last.incarnation, p.last.redis
	p.mu.Unlock()
	return call{
		name:        p.server + ":" + strconv.FormatInt(p.calls.Add(1), 10),
		admitBy:     redisTime + p.config.Timeout.Microseconds(),
		incarnation: incarnation,
		redis:       identity,
	}
}

// trim returns the id up to which replies were read and may be forgotten, or "" where the latest trim is recent: it is not
// worth the while for every reply.
func (p *Producer) trim() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read == "0" || time.Since(p.trimmed) < trimInterval {
		return ""
	}
	p.trimmed = time.Now()
	return p.read
}

// refused finds out what became of n jobs where Redis has answered with an error: it is out of memory, or loading, or a
// replica. The call may have been sent twice, and the error be the answer to the second time.
func (p *Producer) refused(ctx context.Context, c call, n int, refusal error) ([]enqueued, error) {
	known, err := p.config.Client.HGet(ctx, p.seen(c.span()), c.name).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, errors.Join(refusal, err)
	}
	results := make([]enqueued, n)
	outcomes := strings.Fields(known)
	if len(outcomes) != n && p.identity(ctx) != c.redis {
		return nil, refusal // another Redis, which may have lost what the first one took
	}
	for i := range results {
		if len(outcomes) == n {
			results[i] = enqueuedOf(outcomes[i])
		} else {
			results[i].err = fmt.Errorf("%w: %w", ErrUnavailable, refusal)
		}
	}
	return results, nil
}

// A withdrawal is a caller that waits no longer: its id, the stream id of the job, the job's id where that is tracked, and a
// token if the job is to go on.
type withdrawal struct{ id, at, job, token string }

func (p *Producer) sendWithdrawals(callers []withdrawal) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	keys := keyList{keys: append(append([]string{p.keys.jobs, p.keys.withdrawn}, p.keys.tracking()...), p.keys.lanes)}
	args := []any{p.server}
	for _, c := range callers {
		args = append(args, c.id, c.at, c.job, c.token, keys.add(p.keys.laneOf(c.at)))
	}
	reply, err := run(ctx, p.config.Client, p.scripts.withdraw, keys.keys, args)
	if err != nil {
		return nil, err
	}
	if err := expect(reply, len(callers), "withdraw"); err != nil {
		return nil, err
	}
	outcomes := make([]string, len(callers))
	for i := range outcomes {
		outcomes[i] = text(reply[i])
	}
	return outcomes, nil
}

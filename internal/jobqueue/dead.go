package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/itscales/scales/internal/streamid"
	"github.com/redis/go-redis/v9"
)

// Nobody is the server of a job whose reply nobody waits for.
const Nobody = "nobody"

var (
	// ErrNoDeadLetter means that there is no dead letter with that id (any more).
	ErrNoDeadLetter = errors.New("there is no such dead letter")
	// ErrNoJob means that a dead letter is no job that could be run.
	ErrNoJob = errors.New("the dead letter is no job that could be run")
)

// A DeadLetter is a job that will not be run (again).
type DeadLetter struct {
	ID, Queued                     string // where it is in the stream of dead letters, and where it was in that of jobs
	JobID, Reason, Scheme, Request string
	Cause                          string // the reason of the first time, if it was replayed
	Remote                         string
	Drift                          bool
	Replays                        int64 // how often it was replayed before
}

// DeadLetters lists up to n dead letters that follow after the given one ("" for the first), until the one with the id last.
func DeadLetters(ctx context.Context, client redis.UniversalClient, prefix, after, last string, n int64) ([]DeadLetter, error) {
	return deadLetters(ctx, client, prefix, behind(after), last, n)
}

func behind(id string) string {
	if id == "" {
		return "-"
	}
	return "(" + id
}

// LastDeadLetter returns the id of the newest dead letter, "" if there is none.
func LastDeadLetter(ctx context.Context, client redis.UniversalClient, prefix string) (string, error) {
	_, newest, err := span(ctx, client, newKeys(prefix).dead)
	return newest, err
}

// A Drift is a dead letter that may have been carried out.
type Drift struct {
	ID   string
	Died int64 // when it first became a dead letter after it may have been carried out, in µs
}

// Drifts lists the dead letters that may have been carried out.
func Drifts(ctx context.Context, client redis.UniversalClient, prefix string) ([]Drift, error) {
	const page = 1000
	var all []Drift
	for after := ""; ; {
		reply, err := run(ctx, client, drifts, []string{newKeys(prefix).dead}, []any{behind(after), page})
		if err != nil {
			return nil, err
		}
		if len(reply)%3 != 0 {
			return nil, fmt.Errorf("drifts script: %d values", len(reply))
		}
		for i := 0; i < len(reply); i += 3 {
			after = text(reply[i])
			if text(reply[i+1]) == "1" {
				died := after
				if since := text(reply[i+2]); streamid.Valid(since) {
					died = since
				}
				all = append(all, Drift{after, streamid.Time(died)})
			}
		}
		if len(reply) < 3*page {
			return all, nil
		}
	}
}

// drifts lists dead letters without their requests, which may be large.
//
//	KEYS[1] dead   ARGV[1] where the list begins   ARGV[2] how many at most
//	returns for each: id, drift, since when or ''
var drifts = redis.NewScript(prelude + `
local reply = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  local letter = fields_of(entry)
  reply[#reply + 1] = entry[1]
  reply[#reply + 1] = letter.drift or ''
  reply[#reply + 1] = letter.since or ''
end
return reply
`)

// FindDeadLetter returns one dead letter, or ErrNoDeadLetter.
func FindDeadLetter(ctx context.Context, client redis.UniversalClient, prefix, id string) (DeadLetter, error) {
	if !streamid.Valid(id) {
		return DeadLetter{}, fmt.Errorf("%w: %q is no id", ErrNoDeadLetter, id)
	}
	letters, err := deadLetters(ctx, client, prefix, id, id, 1)
	switch {
	case err != nil:
		return DeadLetter{}, err
	case len(letters) == 0:
		return DeadLetter{}, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	}
	return letters[0], nil
}

func deadLetters(ctx context.Context, client redis.UniversalClient, prefix, from, to string, n int64) ([]DeadLetter, error) {
	messages, err := client.XRangeN(ctx, newKeys(prefix).dead, from, to, n).Result()
	if err != nil {
		return nil, err
	}
	letters := make([]DeadLetter, len(messages))
	for i, m := range messages {
		field := func(name string) string { return text(m.Values[name]) }
		letters[i] = DeadLetter{
			ID: m.ID, Queued: field("queued"), JobID: field("id"), Reason: field("reason"), Cause: field("cause"), Scheme: field("scheme"),
			Remote: field("remote"), Request: field("request"), Drift: field("drift") == "1", Replays: number(field("replays")),
		}
	}
	return letters, nil
}

// DropDeadLetters deletes dead letters and returns how many there were of them.
func DropDeadLetters(ctx context.Context, client redis.UniversalClient, prefix string, ids ...string) (int64, error) {
	for _, id := range ids {
		if !streamid.Valid(id) {
			return 0, fmt.Errorf("%w: %q is no id", ErrNoDeadLetter, id)
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return client.XDel(ctx, newKeys(prefix).dead, ids...).Result()
}

// Replay makes a job of a dead letter again, in one atomic step. Nobody waits for its reply; patience is how long it may wait
// for a worker. room is how many jobs may be in the queue before; else it is ErrFull. A call that is sent again does nothing.
func Replay(ctx context.Context, client redis.UniversalClient, prefix, id string, patience time.Duration, room int) error {
	if !streamid.Valid(id) {
		return fmt.Errorf("%w: %q is no id", ErrNoDeadLetter, id)
	}
	k := newKeys(prefix)
	keys := []string{k.dead, k.jobs, k.replayed, k.statistics, k.lanes}
	for range 2 {
		reply, err := run(ctx, client, replay, keys, []any{id, patience.Microseconds(), Nobody, room})
		if err != nil {
			return err
		}
		if err := expect(reply, 1, "replay"); err != nil {
			return err
		}
		said := text(reply[0])
		if order, ok := strings.CutPrefix(said, "order:"); ok && validOrder(order) == nil {
			keys = append(keys[:5], k.lane(order))
			continue
		}
		switch said {
		case "done":
			return nil
		case "full":
			return ErrFull
		case "none":
			return fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
		}
		break
	}
	return fmt.Errorf("%w: %s", ErrNoJob, id)
}

// replay makes a job of a dead letter. What it says of its past, and how often it was replayed, goes with it; see bury in
// settleScript.
//
//	KEYS[1] dead   KEYS[2] jobs   KEYS[3] replayed (sorted set: id of the dead letter by time in µs)   KEYS[4] statistics
//	KEYS[5] lanes   KEYS[6] the lane of the job, if it is known to have an order; see ordering
//	ARGV[1] id of the dead letter   ARGV[2] patience in µs   ARGV[3] the server that stands for nobody
//	ARGV[4] how many jobs may be in the queue before
//	returns {'done', also for one that was replayed before; 'none'; 'full'; 'broken' for what is no job; or 'order:<order>' if that
//	is the order of the job and KEYS[6] is another}
//
// What was replayed is remembered, for a call that is sent again: for an hour, unless ten thousand others were since.
var replay = redis.NewScript(prelude + clock + "local statistics, LANES = KEYS[4], 5\n" + ordering + `
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return {redis.call('ZSCORE', KEYS[3], ARGV[1]) and 'done' or 'none'} end
local job = fields_of(entry)
if (job.id or '') == '' or (job.request or '') == '' then return {'broken'} end
local lane = KEYS[6]
if job.order and (not lane or order_of(lane) ~= job.order) then return {'order:' .. job.order} end
if redis.call('XLEN', KEYS[2]) + tonumber(redis.call('HGET', statistics, 'parked') or '0') >= tonumber(ARGV[4]) then return {'full'} end
redis.call('ZADD', KEYS[3], time, ARGV[1])
redis.call('HINCRBY', statistics, 'enqueued', 1)
local record = {'server', ARGV[3], 'deadline', string.format('%.0f', now + tonumber(ARGV[2])),
  'scheme', job.scheme or '', 'remote', job.remote or '', 'request', job.request,
  'replays', string.format('%d', (tonumber(job.replays) or 0) + 1), 'queued', job.queued or '', 'drift', job.drift or '0',
  'since', job.since or ARGV[1], 'cause', job.cause or job.reason or ''}
if job.order then
  add_in_order(KEYS[2], lane, job.id, 'order', job.order, unpack(record))
else
  redis.call('XADD', KEYS[2], '*', 'id', job.id, unpack(record))
end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now - 3600000000))
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -10001)
redis.call('PEXPIRE', KEYS[3], 3600000)
return {'done'}
`)

package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/itscales/scales/internal/streamid"
	"github.com/redis/go-redis/v9"
)

// Nobody is the server of a job whose reply nobody waits for.
const Nobody = "nobody"

// ErrNoDeadLetter means that there is no dead letter with that id, or that it cannot be replayed because it is no job.
var ErrNoDeadLetter = errors.New("there is no such dead letter")

// A DeadLetter is a job that will not be run (again).
type DeadLetter struct {
	ID, Queued                     string // where it is in the stream of dead letters, and where it was in that of jobs
	JobID, Reason, Scheme, Request string
	Remote                         string
	Drift                          bool
	Replays                        int64 // how often it was replayed before
}

// DeadLetters lists up to n dead letters that follow after the given one ("" for the first).
func DeadLetters(ctx context.Context, client redis.UniversalClient, prefix, after string, n int64) ([]DeadLetter, error) {
	from := "-"
	if after != "" {
		from = "(" + after
	}
	return deadLetters(ctx, client, prefix, from, "+", n)
}

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
			ID: m.ID, Queued: field("queued"), JobID: field("id"), Reason: field("reason"), Scheme: field("scheme"),
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
// for a worker, and be repeated. A call that is sent again does nothing. It returns the stream id of the job. ErrNoDeadLetter
// is also returned for what is no job.
func Replay(ctx context.Context, client redis.UniversalClient, prefix, id string, patience time.Duration) (string, error) {
	if !streamid.Valid(id) {
		return "", fmt.Errorf("%w: %q is no id", ErrNoDeadLetter, id)
	}
	k := newKeys(prefix)
	reply, err := run(ctx, client, replay, []string{k.dead, k.jobs, k.replayed}, []any{id, patience.Microseconds(), Nobody})
	if err != nil {
		return "", err
	}
	if err := expect(reply, 1, "replay"); err != nil {
		return "", err
	}
	at := text(reply[0])
	switch at {
	case "":
		return "", fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
	case "broken":
		return "", fmt.Errorf("%w: %s is no job that could be run", ErrNoDeadLetter, id)
	}
	return at, nil
}

// replay makes a job of a dead letter.
//
//	KEYS[1] dead   KEYS[2] jobs   KEYS[3] replayed (hash: id of the dead letter to stream id of the job)
//	ARGV[1] id of the dead letter   ARGV[2] patience in µs   ARGV[3] the server that stands for nobody
//	returns {stream id of the job; '' if there is no such dead letter, 'broken' if it is no job}
//
// What was replayed is remembered, for a call that is sent again: until a thousand others were, or for an hour.
var replay = redis.NewScript(clock + `
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return {redis.call('HGET', KEYS[3], ARGV[1]) or ''} end
local job = {}
for i = 1, #entry[2], 2 do job[entry[2][i]] = entry[2][i + 1] end
if (job.id or '') == '' or (job.request or '') == '' then return {'broken'} end
local deadline = string.format('%.0f', now + tonumber(ARGV[2]))
local at = redis.call('XADD', KEYS[2], '*', 'id', job.id, 'server', ARGV[3], 'deadline', deadline,
  'scheme', job.scheme or '', 'remote', job.remote or '', 'request', job.request,
  'replays', tostring(tonumber(job.replays or '0') + 1))
redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('HLEN', KEYS[3]) >= 1000 then redis.call('DEL', KEYS[3]) end
redis.call('HSET', KEYS[3], ARGV[1], at)
redis.call('PEXPIRE', KEYS[3], 3600000)
return {at}
`)

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

// What became of a job that is tracked and has no reply.
var (
	// ErrPayload means that another payload came under the same scope before; nothing was enqueued.
	ErrPayload = errors.New("another payload came under this key")
	// ErrCrowded means that as many jobs are tracked as may; nothing was enqueued.
	ErrCrowded = errors.New("as many jobs are tracked as may be")
	// ErrShared means that the job is under way, and that others wait for it; this caller does not (any more).
	ErrShared = errors.New("others wait for the job")
	// ErrAccepted means that the job goes on, though nobody waits any more; see Patience.
	ErrAccepted = errors.New("the job was accepted")
	// ErrForgotten means that the reply was there and is no longer kept.
	ErrForgotten = errors.New("the reply is no longer kept")
	// ErrUntracked means that there is no such job, or none that is tracked (any more).
	ErrUntracked = errors.New("there is no such job")
)

// Tracking says for which job more is kept than its record, and how long: the reply, and where there is a scope, that no other
// job of that scope is enqueued. The zero value stands for none.
type Tracking struct {
	Keep    time.Duration // of the reply, from when it is there; a whole number of milliseconds
	Scope   string        // a text without white space, "" for none: jobs of one scope are one job
	Payload string        // likewise: what they have to have in common to be that
}

// A Limit bounds what is kept of tracked jobs.
type Limit struct {
	Jobs  int   // that are tracked
	Bytes int64 // of the replies that are kept
}

// argument is what the scripts are told.
func (t Tracking) argument() string {
	if t.Keep <= 0 {
		return ""
	}
	scope, payload := t.Scope, t.Payload
	if scope == "" {
		scope, payload = "-", "-"
	}
	return strconv.FormatInt(t.Keep.Milliseconds(), 10) + " " + scope + " " + payload
}

// tracking are the keys of what is known of tracked jobs, in the order in which all scripts have them.
func (k keys) tracking() []string {
	return []string{k.statistics, k.tracked, k.scopes, k.kept, k.lives, k.waiters}
}

// A State is how far a tracked job has come.
type State int

const (
	Queued   State = iota + 1 // no worker has it
	Running                   // a worker has it
	Answered                  // its reply is there
)

// Track returns how far a job has come, by the name that came with ErrAccepted, and its reply where that is there, or
// ErrUntracked.
func Track(ctx context.Context, client redis.UniversalClient, prefix, name string) (State, Reply, error) {
	k := newKeys(prefix)
	job, token, _ := strings.Cut(name, ".")
	said, err := run(ctx, client, track, []string{k.jobs, k.tracked, k.kept, k.waiters, k.lanes}, []any{job, token})
	if err != nil {
		return 0, Reply{}, err
	}
	if err := expect(said, 2, "track"); err != nil {
		return 0, Reply{}, err
	}
	switch text(said[0]) {
	case "queued":
		return Queued, Reply{}, nil
	case "running":
		return Running, Reply{}, nil
	case "answered":
		return Answered, storedReply(job, text(said[1])), nil
	}
	return 0, Reply{}, ErrUntracked
}

// fetchKept returns a reply that is kept.
func (p *Producer) fetchKept(ctx context.Context, job string) (Reply, error) {
	// It may have many megabytes.
	ctx, cancel := context.WithTimeout(ctx, 10*p.config.Timeout)
	defer cancel()
	record, err := p.config.Client.HGet(ctx, p.keys.kept, job).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return Reply{}, ErrForgotten
	case err != nil:
		return Reply{}, fmt.Errorf("%w: the reply that is kept could not be read: %w", ErrUnknown, err)
	}
	return storedReply(job, record), nil
}

func storedReply(job, record string) Reply {
	reply := parseReply(record)
	reply.Job, reply.Stored = job, true
	return reply
}

// findKept returns the reply of a scope that is kept, or the error with which a job of it was refused.
func (p *Producer) findKept(ctx context.Context, t Tracking, refusal error) (Reply, error) {
	limited, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	record, err := p.config.Client.HGet(limited, p.keys.scopes, t.Scope).Result()
	job, payload, _ := strings.Cut(record, " ")
	switch {
	case errors.Is(err, redis.Nil):
		return Reply{}, refusal
	case err != nil:
		return Reply{}, fmt.Errorf("%w: it was not to be found out whether there is a reply: %w", ErrUnknown, err)
	case payload != t.Payload:
		return Reply{}, ErrPayload
	}
	reply, err := p.fetchKept(ctx, job)
	if errors.Is(err, ErrForgotten) { // it is under way
		return Reply{}, fmt.Errorf("%w: it is under way, and its reply is not there yet", ErrUnknown)
	}
	return reply, err
}

// trackedOf reads what the enqueue script says of a job of a scope that is known: "kept:<job>" or "joined:<job>:<at>".
func trackedOf(said string) (enqueued, bool) {
	kind, rest, _ := strings.Cut(said, ":")
	job, at, _ := strings.Cut(rest, ":")
	switch kind {
	case "kept":
		return enqueued{kept: job}, true
	case "joined":
		return enqueued{id: at, joined: job}, true
	}
	return enqueued{}, false
}

// maxWaiters is how long the list of those who wait for one tracked job may be, in bytes: two hundred callers.
const maxWaiters = 13_200

// tracking is what scripts do with tracked jobs. It needs their keys in KEYS from the one with the index TRACKING on:
//
//	statistics (hash): kept: the bytes of all tracked jobs
//	tracked (hash): job id to "<stream id, or <order>/<id>> <scope or -> <deadline> <token or -> <bytes>"; the token is what a caller was told
//	who was answered before there was a reply, the deadline the latest of those who wait, the bytes are those of the request,
//	then those of the reply
//	scopes (hash): scope to "<job id> <payload>"
//	kept (hash): job id to the record of the reply
//	lives (sorted set): job id by the time until which all this is kept, in µs
//	waiters (hash): job id to "<server>:<id> …", those to whom the reply goes, each under an id of its own
const tracking = `
local statistics, tracked, scopes = KEYS[TRACKING], KEYS[TRACKING + 1], KEYS[TRACKING + 2]
local kept, lives, waiters = KEYS[TRACKING + 3], KEYS[TRACKING + 4], KEYS[TRACKING + 5]
local function load_tracked(job)
  local at, scope, deadline, token, bytes = string.match(redis.call('HGET', tracked, job) or '', '^(%S+) (%S+) (%S+) (%S+) (%d+)$')
  return at and {at = at, scope = scope, deadline = deadline, token = token, bytes = tonumber(bytes)}
end
local function save_tracked(job, r)
  redis.call('HSET', tracked, job, r.at .. ' ' .. r.scope .. ' ' .. r.deadline .. ' ' .. r.token .. ' ' .. string.format('%d', r.bytes))
end
local function count_bytes(job, r, bytes)
  if bytes ~= r.bytes then redis.call('HINCRBY', statistics, 'kept', string.format('%d', bytes - r.bytes)) end
  r.bytes = bytes
end
local function free(job)
  local r = load_tracked(job)
  if not r or r.scope == '-' then return end
  if string.match(redis.call('HGET', scopes, r.scope) or '', '^%S+') == job then redis.call('HDEL', scopes, r.scope) end
  r.scope = '-'
  save_tracked(job, r)
end
local function forget(job)
  free(job)
  local r = load_tracked(job)
  if r then count_bytes(job, r, 0) end
  redis.call('HDEL', kept, job)
  redis.call('HDEL', tracked, job)
  redis.call('HDEL', waiters, job)
  redis.call('ZREM', lives, job)
end
-- The reply is there. Without a scope or a token nobody can ask for it again.
local function keep(job, reply, now, ms)
  local r = load_tracked(job)
  if not r or r.scope == '-' and r.token == '-' then return forget(job) end
  count_bytes(job, r, #reply)
  save_tracked(job, r)
  redis.call('HSET', kept, job, reply)
  redis.call('HDEL', waiters, job)
  redis.call('ZADD', lives, string.format('%.0f', now + tonumber(ms) * 1000), job)
end
`

// sweeping forgets what has lived its time, n jobs at most. It is for scripts with tracking and clock, and needs jobs.
const sweeping = `
local function sweep(jobs, n)
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', lives, '-inf', time, 'LIMIT', 0, n)) do
    local r = load_tracked(job)
    local under_way = false
    if r and string.find(r.at, '/') then
      -- It may be in a lane, or have its turn. Where somebody has deleted it nobody waits for it an hour after its deadline.
      under_way = redis.call('HEXISTS', waiters, job) == 1 and now < tonumber(r.deadline) + 3600000000
    elseif r then
      under_way = #list(redis.pcall('XRANGE', jobs, r.at, r.at)) > 0
    end
    if under_way then
      redis.call('ZADD', lives, string.format('%.0f', now + 60000000), job) -- it waits, or runs
    else
      forget(job)
    end
  end
end
`

// track tells how far a tracked job has come, to who knows its token.
//
//	KEYS[1] jobs   KEYS[2] tracked   KEYS[3] kept   KEYS[4] waiters   KEYS[5] lanes
//	ARGV[1] the job   ARGV[2] the token
//	returns {'queued', ''}, {'running', ''}, {'answered', the record of the reply}, or {'', ''} for one that is not known
var track = redis.NewScript(prelude + `
local at, token = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%S+) %S+ %S+ (%S+)')
if not at or token == '-' or token ~= ARGV[2] then return {'', ''} end
local reply = redis.call('HGET', KEYS[3], ARGV[1])
if reply then return {'answered', reply} end
local order = string.match(at, '^([^/]+)/')
if order then
  local where, whose = string.match(redis.call('HGET', KEYS[5], order) or '', '^(%S+) (%S+)$')
  if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then return {'', ''} end
  if whose ~= ARGV[1] then return {'queued', ''} end
  at = where
end
if #list(redis.pcall('XRANGE', KEYS[1], at, at)) == 0 then return {'', ''} end
return {owner_of(KEYS[1], at) and 'running' or 'queued', ''}
`)

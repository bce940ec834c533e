package jobqueue

import (
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// group is the name of the consumer group on the stream of jobs.
const group = "workers"

// Guards switches single safeguards off. Only tests do that, to see the violation that the safeguard prevents.
type Guards struct {
	// NoLeaseToken lets a worker settle a job that another has taken over.
	NoLeaseToken bool

	// NoIdempotentEnqueue lets a job that is sent twice be enqueued twice.
	NoIdempotentEnqueue bool

	// NoDecided has a job that was decided look as if it was not, so that who takes it over begins it again.
	NoDecided bool

	// NoScopes enqueues a job although another one of its scope is known.
	NoScopes bool

	// NoOthers withdraws a job although others wait for it.
	NoOthers bool

	// NoOrder runs jobs of one order at once.
	NoOrder bool

	// NoPace admits jobs although those before them keep the workers busy for too long.
	NoPace bool

	// NoRecall leaves those who wait behind an enqueue that got no answer waiting until their deadline.
	NoRecall bool
}

type scripts struct {
	enqueue, recall, withdraw, status, beat, takeOver, handOver, load, settle, leave *redis.Script
}

func compile(g Guards) scripts {
	guards := "local CHECK_TOKEN = " + strconv.FormatBool(!g.NoLeaseToken) +
		"\nlocal CHECK_SEEN = " + strconv.FormatBool(!g.NoIdempotentEnqueue) +
		"\nlocal CHECK_DECIDED = " + strconv.FormatBool(!g.NoDecided) +
		"\nlocal CHECK_SCOPES = " + strconv.FormatBool(!g.NoScopes) +
		"\nlocal CHECK_OTHERS = " + strconv.FormatBool(!g.NoOthers) + "\n"
	script := func(parts ...string) *redis.Script {
		return redis.NewScript(guards + prelude + strings.Join(parts, ""))
	}
	trackingAt := func(key int) string {
		return "local TRACKING = " + strconv.Itoa(key) + "\nlocal MOST_WAITERS = " + strconv.Itoa(maxWaiters) + tracking
	}
	orderingAt := func(key int) string { return "local LANES = " + strconv.Itoa(key) + ordering }
	return scripts{
		enqueue:  script(clock, trackingAt(6), orderingAt(12), sweeping, enqueueScript),
		recall:   script(clock, recallScript),
		withdraw: script(clock, trackingAt(3), orderingAt(9), withdrawScript),
		status:   script(clock, statusScript),
		beat:     script(clock, trackingAt(4), sweeping, beatScript),
		takeOver: script(takeOverScript),
		handOver: script(clock, handOverScript),
		load:     script(loadScript),
		settle:   script(trackingAt(5), orderingAt(11), settleScript),
		leave:    script(leaveScript),
	}
}

// prelude is what all scripts share.
const prelude = `
local group = 'workers'
local function list(reply)
  if type(reply) ~= 'table' or reply.err then return {} end
  return reply
end
local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return fields
end
local function owner_of(jobs, id)
  return list(redis.pcall('XPENDING', jobs, group, id, id, 1))[1]
end
`

// clock reads Redis's clock in µs, as a number and as text, for the scripts that need it. (To format a number of sixteen
// digits takes longer than to read the clock.)
const clock = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local time = t[1] .. string.sub('00000' .. t[2], -6)
`

// enqueueScript adds jobs to the queue. A call that is sent again adds nothing, and returns what it returned.
//
//	KEYS[1] jobs (stream)   KEYS[2] seen (hash: call to outcomes, of this time span)   KEYS[3] seen, two spans ago
//	KEYS[4] replies of the server (stream)   KEYS[5] meta of the queue's partition   KEYS[6…11] see tracking
//	KEYS[12] lanes   KEYS[13…] the lanes of jobs that have an order, see ordering
//	ARGV[1] admit by (µs)   ARGV[2] longest queue   ARGV[3] id before which replies were read, or ''
//	ARGV[4] the server   ARGV[5] the call: a name that no other call ever has
//	ARGV[6] how many jobs at most are tracked   ARGV[7] how many bytes of replies at most are kept when one more is
//	ARGV[8…] for each job: id, deadline in µs, how many may be before it, scheme, remote address, request, '' or, for one that is
//	tracked, "<how long its reply is kept, in ms> <scope or -> <payload or ->", and the index in KEYS of its lane or 0
//
// A call that arrives after "admit by" changes nothing, so that calls need to be remembered only until then.
//
//	returns {now in µs, incarnation or '', how many jobs were before, without those that wait for their turn, how many were
//	finished ever, then for each job: its stream id or "<order>/<id>", 'full', 'busy' or 'late'}; for one that is tracked also
//	'kept:<job>' (there is a reply of this scope), 'joined:<job>:<stream id>' (one of this scope is under way, whose reply goes
//	to this caller, too), 'other' (another payload), 'many' (so many wait for the one under way that this caller cannot), or 'crowded'
const enqueueScript = `
local jobs, seen, replies, server, call = KEYS[1], KEYS[2], KEYS[4], ARGV[4], ARGV[5]
local length = redis.call('XLEN', jobs)
local reply = {time, redis.call('HGET', KEYS[5], 'incarnation') or '', length, redis.call('HGET', statistics, 'finished') or '0'}
local first, size = 8, 8 -- of the jobs in ARGV
local outcomes = CHECK_SEEN and redis.call('HGET', seen, call)
if outcomes then
  for outcome in string.gmatch(outcomes, '%S+') do reply[#reply + 1] = outcome end
  return reply
end
if now > tonumber(ARGV[1]) then
  for _ = first, #ARGV, size do reply[#reply + 1] = 'late' end
  return reply
end
local added, room = 0, tonumber(ARGV[2]) - length - tonumber(redis.call('HGET', statistics, 'parked') or '0')
local function add(a, ...)
  local lane = KEYS[tonumber(ARGV[a + 7])]
  if added >= room then return 'full' end
  if length + added >= tonumber(ARGV[a + 2]) and not (lane and taken(jobs, lane)) then return 'busy' end
  added = added + 1
  local record = {'server', server, 'deadline', ARGV[a + 1], 'scheme', ARGV[a + 3], 'remote', ARGV[a + 4], 'request', ARGV[a + 5], ...}
  if lane then return add_in_order(jobs, lane, ARGV[a], 'order', order_of(lane), unpack(record)) end
  return redis.call('XADD', jobs, '*', 'id', ARGV[a], unpack(record))
end
local function known(id, deadline, scope, payload)
  local record = CHECK_SCOPES and scope ~= '-' and redis.call('HGET', scopes, scope)
  if not record then return end
  local job, was = string.match(record, '^(%S+) (%S+)$')
  if was ~= payload then return 'other' end
  local r = load_tracked(job)
  if not r then return end
  if redis.call('HEXISTS', kept, job) == 1 then return 'kept:' .. job end
  local waiting = redis.call('HGET', waiters, job) or ''
  if #waiting > MOST_WAITERS then return 'many' end
  redis.call('HSET', waiters, job, waiting .. ' ' .. server .. ':' .. id)
  if tonumber(deadline) > tonumber(r.deadline) then
    r.deadline = deadline
    save_tracked(job, r)
  end
  return 'joined:' .. job .. ':' .. r.at
end
local function add_tracked(a)
  local id = ARGV[a]
  local ms, scope, payload = string.match(ARGV[a + 6], '^(%d+) (%S+) (%S+)$')
  sweep(jobs, 5)
  local outcome = known(id, ARGV[a + 1], scope, payload)
  if outcome then return outcome end
  if redis.call('ZCARD', lives) >= tonumber(ARGV[6]) or
    tonumber(redis.call('HGET', statistics, 'kept') or '0') >= tonumber(ARGV[7]) then return 'crowded' end
  outcome = add(a, 'keep', ms)
  if outcome ~= 'full' and outcome ~= 'busy' then
    local r = {at = outcome, scope = scope, deadline = ARGV[a + 1], token = '-', bytes = 0}
    count_bytes(id, r, #ARGV[a + 5])
    save_tracked(id, r)
    redis.call('HSET', waiters, id, server .. ':' .. id)
    redis.call('ZADD', lives, string.format('%.0f', now + tonumber(ms) * 1000), id)
    if scope ~= '-' then redis.call('HSET', scopes, scope, id .. ' ' .. payload) end
  end
  return outcome
end
for a = first, #ARGV, size do reply[#reply + 1] = (ARGV[a + 6] == '' and add or add_tracked)(a) end
if added > 0 then redis.call('HINCRBY', statistics, 'enqueued', added) end
redis.call('HSET', seen, call, table.concat(reply, ' ', 5))
if redis.call('HLEN', seen) == 1 then -- the first call of this time span
  redis.call('PEXPIRE', seen, 60000)
  redis.call('UNLINK', KEYS[3])
end
if ARGV[3] ~= '' then redis.call('XTRIM', replies, 'MINID', ARGV[3]) end
return reply
`

// recallScript tells what came of a call of enqueueScript.
//
//	KEYS[1] seen, of the time span of the call   KEYS[2] meta of the queue's partition   ARGV[1] the call
//	returns {now in µs, incarnation or '', the outcomes or '' if the call is not known}
const recallScript = `
return {time, redis.call('HGET', KEYS[2], 'incarnation') or '', redis.call('HGET', KEYS[1], ARGV[1]) or ''}
`

// withdrawScript deletes jobs that were never delivered, and for which nobody else waits.
//
//	KEYS[1] jobs   KEYS[2] withdrawn (sorted set: ids of the job and of the caller by time in µs)   KEYS[3…8] see tracking
//	KEYS[9] lanes   KEYS[10…] the lanes of jobs that have an order, see ordering
//	ARGV[1] the server
//	ARGV[2…] for each caller: its id, the stream id or "<order>/<id>" of the job it waits for, where that is tracked the id of the
//	job, else '', '' or, if the job is to go on, a token that the caller is told, and the index in KEYS of its lane or 0
//	returns for each: 'withdrawn'; 'started' if a worker has the job; 'shared' if others wait for it; 'gone' if it is finished or
//	lost; 'accepted:<token>' if it goes on, or its reply is kept for who knows that token
const withdrawScript = `
local reply = {}
local function others_wait(job, id)
  local waiting = job ~= '' and redis.call('HGET', waiters, job)
  if not waiting then return false end
  local rest = {}
  for one in string.gmatch(waiting, '%S+') do
    if one ~= ARGV[1] .. ':' .. id then rest[#rest + 1] = one end
  end
  redis.call('HSET', waiters, job, table.concat(rest, ' '))
  local r = load_tracked(job)
  return CHECK_OTHERS and (#rest > 0 or r and r.token ~= '-')
end
local function accept(id, there, job, token)
  local r = load_tracked(job)
  if not r or not there and r.token == '-' then return 'gone' end
  if r.token == '-' then r.token = token end
  save_tracked(job, r)
  if there then others_wait(job, id) end
  return 'accepted:' .. r.token
end
for a = 2, #ARGV, 5 do
  local id, at, job, token, lane = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], KEYS[tonumber(ARGV[a + 4])]
  local stream = KEYS[1]
  if lane then
    stream, at = place(KEYS[1], lane, at, job ~= '' and job or id)
  elseif #list(redis.pcall('XRANGE', KEYS[1], at, at)) == 0 then
    stream = nil
  end
  if redis.call('ZSCORE', KEYS[2], id) or job ~= '' and redis.call('ZSCORE', KEYS[2], job) then
    reply[#reply + 1] = 'withdrawn'
  elseif token ~= '' then
    reply[#reply + 1] = accept(id, stream, job, token)
  elseif not stream then
    reply[#reply + 1] = 'gone'
  elseif stream == KEYS[1] and owner_of(stream, at) then
    others_wait(job, id)
    reply[#reply + 1] = 'started'
  elseif others_wait(job, id) then
    reply[#reply + 1] = 'shared'
  else
    if stream == lane then
      unpark(lane, at)
    else
      redis.call('XDEL', stream, at)
      if lane then advance(stream, lane) end
    end
    redis.call('ZADD', KEYS[2], time, id)
    redis.call('HINCRBY', statistics, 'withdrawn', 1)
    if job ~= '' then
      redis.call('ZADD', KEYS[2], time, job) -- for a call that is sent again of who has left before
      forget(job)
    end
    reply[#reply + 1] = 'withdrawn'
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -10001)
return reply
`

// statusScript tells a server what it needs to admit jobs, and notes that the server lives.
//
//	KEYS[1] workers   KEYS[2] jobs   KEYS[3] replies of the server   KEYS[4] meta of the queue's partition
//	KEYS[5] servers (sorted set: server by time in µs)   KEYS[6] statistics   ARGV[1] the server
//	returns {now in µs, workers alive, their slots, length of the queue, how many jobs wait for their turn besides, how many were
//	finished ever, last id of the replies or '', incarnation or ''}
const statusScript = liveliness + `
local alive, slots = live_workers(KEYS[1])
local last = ''
local entries = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
if entries[1] then last = entries[1][1] end
redis.pcall('ZADD', KEYS[5], time, ARGV[1]) -- a Redis that takes no writes is for the enqueue to find out
redis.pcall('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', now - 60000000))
local counts = redis.call('HMGET', KEYS[6], 'parked', 'finished')
return {time, alive, slots, redis.call('XLEN', KEYS[2]), counts[1] or '0', counts[2] or '0', last,
  redis.call('HGET', KEYS[4], 'incarnation') or ''}
`

// liveliness counts the workers whose latest heartbeat is less than three intervals ago, and their slots. It is for scripts with
// clock.
const liveliness = `
local function live_workers(key)
  local alive, all = 0, 0
  for _, record in ipairs(redis.call('HVALS', key)) do
    local _, at, interval, slots = string.match(record, '^(%d+) (%d+) (%d+) (%d+)')
    if at and now - tonumber(at) < 3 * tonumber(interval) then
      alive = alive + 1
      all = all + tonumber(slots)
    end
  end
  return alive, all
end
`

// beatScript is the heartbeat of a worker: it says that the worker lives, and shows it the others. It also forgets what was
// kept of tracked jobs long enough, and notes how many jobs there have been.
//
//	KEYS[1] workers (hash: worker id to "beats time interval slots", times in µs)   KEYS[2] jobs
//	KEYS[3] samples (list: "time enqueued finished" of about every second, the newest first)   KEYS[4…9] see tracking
//	ARGV[1] worker id   ARGV[2] interval in µs   ARGV[3] slots   ARGV[4] '1' to begin, '' to go on
//	returns {now in µs, 1 or 0, {worker, record, …}, {consumer with pending jobs, …}, how many jobs the worker owns}; 0 if
//	the worker is not known any more: another has taken over its jobs, or Redis has lost everything
const beatScript = `
redis.pcall('XGROUP', 'CREATE', KEYS[2], group, '0', 'MKSTREAM')
local record = redis.call('HGET', KEYS[1], ARGV[1])
local known = 0
if record or ARGV[4] == '1' then
  known = 1
  local beats = tonumber(string.match(record or '0', '^%d+')) + 1
  redis.call('HSET', KEYS[1], ARGV[1], beats .. ' ' .. time .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
end
local consumers, owned = {}, '0'
for _, consumer in ipairs(list(list(redis.pcall('XPENDING', KEYS[2], group))[4])) do
  consumers[#consumers + 1] = consumer[1]
  if consumer[1] == ARGV[1] then owned = consumer[2] end
end
sweep(KEYS[2], 100)
local latest = string.match(redis.call('LINDEX', KEYS[3], 0) or '0', '^%d+')
if now - tonumber(latest) >= 1000000 then
  local counts = redis.call('HMGET', statistics, 'enqueued', 'finished')
  redis.call('LPUSH', KEYS[3], time .. ' ' .. (counts[1] or '0') .. ' ' .. (counts[2] or '0'))
  redis.call('LTRIM', KEYS[3], 0, 15)
end
return {time, known, redis.call('HGETALL', KEYS[1]), consumers, owned}
`

// takeOverScript gives the jobs of a worker that has died to another one.
//
//	KEYS[1] workers   KEYS[2] jobs   KEYS[3] statistics
//	ARGV[1] the dead worker   ARGV[2] its record as it was observed ('' if it has none)   ARGV[3] the new owner
//	ARGV[4] how many jobs at most
//	returns how many jobs changed hands; -1 if the worker lives. A worker that owns nothing any more is forgotten.
const takeOverScript = `
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return -1 end
local pending = list(redis.pcall('XPENDING', KEYS[2], group, '-', '+', ARGV[4], ARGV[1]))
for _, job in ipairs(pending) do
  redis.call('XCLAIM', KEYS[2], group, ARGV[3], 0, job[1])
end
if #pending > 0 then redis.call('HINCRBY', KEYS[3], 'taken over', #pending) end
if #list(redis.pcall('XPENDING', KEYS[2], group, '-', '+', 1, ARGV[1])) == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.pcall('XGROUP', 'DELCONSUMER', KEYS[2], group, ARGV[1])
end
return #pending
`

// handOverScript gives jobs that were never begun to the worker whose heartbeat is the latest one. They were delivered as often as
// before.
//
//	KEYS[1] workers   KEYS[2] jobs   ARGV[1] the owner   ARGV[2…] stream ids and deliveries
//	returns how many changed hands; none if no other worker is alive
const handOverScript = `
local best, latest = nil, 0
local records = redis.call('HGETALL', KEYS[1])
for i = 1, #records, 2 do
  local at, interval = string.match(records[i + 1], '^%d+ (%d+) (%d+)')
  at = tonumber(at or '0')
  if records[i] ~= ARGV[1] and at > latest and now - at < 3 * tonumber(interval) then best, latest = records[i], at end
end
if not best then return 0 end
local handed = 0
for a = 2, #ARGV, 2 do
  local owner = owner_of(KEYS[2], ARGV[a])
  if owner and owner[2] == ARGV[1] and owner[4] == tonumber(ARGV[a + 1]) then
    redis.call('XCLAIM', KEYS[2], group, best, 0, ARGV[a], 'JUSTID')
    handed = handed + 1
  end
end
return handed
`

// leaveScript removes a worker that owns nothing.
//
//	KEYS[1] workers   KEYS[2] jobs   ARGV[1] the worker
//	returns 1 if it was removed
const leaveScript = `
if #list(redis.pcall('XPENDING', KEYS[2], group, '-', '+', 1, ARGV[1])) > 0 then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.pcall('XGROUP', 'DELCONSUMER', KEYS[2], group, ARGV[1])
return 1
`

// loadScript reads jobs that a worker owns.
//
//	KEYS[1] jobs   KEYS[2] held   KEYS[3] owed   KEYS[4] tracked   ARGV[1] the worker   ARGV[2…] stream ids
//	returns for each job: deliveries, fields of the entry, 1 if it is decided, what is owed or false, the latest deadline of
//	those who wait if it is tracked, else ''; or false if the worker does not own it (any more). A job whose entry is gone is
//	acknowledged.
const loadScript = `
local reply = {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local owner = owner_of(KEYS[1], id)
  local job = false
  if owner and owner[2] == ARGV[1] then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      local of, deadline = fields_of(entry), ''
      if of.keep and of.id then deadline = string.match(redis.call('HGET', KEYS[4], of.id) or '', '^%S+ %S+ (%d+)') or '' end
      job = {owner[4], entry[2], CHECK_DECIDED and redis.call('HEXISTS', KEYS[2], id) or 0, redis.call('HGET', KEYS[3], id), deadline}
    else
      redis.call('XACK', KEYS[1], group, id)
      redis.call('HDEL', KEYS[2], id)
      redis.call('HDEL', KEYS[3], id)
    end
  end
  reply[#reply + 1] = job
end
return reply
`

// settleScript moves jobs on. Each is checked for its token: the worker that settles it must own it, in that delivery.
//
//	KEYS[1] jobs   KEYS[2] held (hash: stream id to reply)   KEYS[3] owed (hash: stream id to what is owed)
//	KEYS[4] dead (stream)   KEYS[5…10] see tracking   KEYS[11] lanes   KEYS[12…] streams of replies, and lanes of jobs that have
//	an order, see ordering
//	ARGV[1] the worker   ARGV[2] retention of replies in ms   ARGV[3] how many dead letters are kept
//	ARGV[4] oldest and ARGV[5] newest stream id of the jobs
//	ARGV[6…] for each job: kind, stream id, deliveries, job id, index in KEYS of its stream of replies or 0, and of its lane or
//	0, keep, first, second
//
//	decide    the application has answered: first is the reply, to be held; second is what is owed before its release
//	release   the held reply is sent, the job acknowledged: first is what the reply says of the change logs
//	finish    decide and release in one, for a job that owes nothing: first is the record of the reply
//	expire    the same for one that is begun too late, unless it is tracked and somebody waits longer
//	bury      the job becomes a dead letter: first is the record of the reply or '', second the reason
//	lose      the same for one that may have been carried out: the cache may have drifted from the application
//
// keep is empty but for a job that is tracked: then how long its reply is kept, in ms, with " free" behind it if its scope is
// free again.
//
//	returns the indexes, from 0, of the jobs that the worker does not own (any more); and as a text "<index> <server> …" where
//	nothing was done because the streams of these servers, which wait for the job, are not in KEYS; and "<index> +" for one that
//	does not expire yet
const settleScript = `
local jobs, held, owed, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local worker = ARGV[1]

local owns = {}
local most = (#ARGV - 5) / 9 * 2 + 16
local pending = list(redis.pcall('XPENDING', jobs, group, ARGV[4], ARGV[5], most, worker))
for _, job in ipairs(pending) do owns[job[1]] = job[4] end
local function mine(id, deliveries)
  if owns[id] then return not CHECK_TOKEN or owns[id] == deliveries end
  if CHECK_TOKEN and #pending < most then return false end
  local owner = owner_of(jobs, id)
  if not owner then return false end
  return not CHECK_TOKEN or owner[2] == worker and owner[4] == deliveries
end

local done, acknowledged, decided, answers = {}, {}, {}, {}
local function answer(stream, job, reply)
  local to = answers[stream] or {}
  answers[stream] = to
  to[#to + 1] = job
  to[#to + 1] = reply
end
-- Lua cannot hand on more than some thousand values at once. The answers of one job stay together.
local function flush(stream)
  local to = answers[stream]
  if not to then return end
  answers[stream] = nil
  redis.call('XADD', KEYS[stream], 'MAXLEN', '~', 100000, '*', unpack(to))
  redis.call('PEXPIRE', KEYS[stream], ARGV[2])
end

local streams
local function stream_of(server)
  if not streams then
    streams = {}
    for i = 12, #KEYS do streams[string.match(KEYS[i], '[^:]+$')] = i end
  end
  return streams[server]
end
-- Those who wait for a tracked job, and the servers among them whose streams are not in KEYS.
local function waiting_for(job)
  local all, missing = {}, ''
  for server, id in string.gmatch(redis.call('HGET', waiters, job) or '', '([^%s:]+):(%S+)') do
    local stream = stream_of(server)
    if stream then all[#all + 1] = {stream, id} else missing = missing .. ' ' .. server end
  end
  return all, missing
end
local function answer_all(all, job, ms, reply)
  local first = {}
  for _, caller in ipairs(all) do
    local stream, id = caller[1], caller[2]
    if not first[stream] and answers[stream] and #answers[stream] > 2000 then flush(stream) end
    answer(stream, id, first[stream] and '=' .. first[stream] or reply)
    first[stream] = first[stream] or id
  end
  local t = redis.call('TIME')
  keep(job, reply, tonumber(t[1]) * 1000000 + tonumber(t[2]), ms)
end

local reply_to, lane
local turns = {}
local function acknowledge(id)
  done[id] = true
  acknowledged[#acknowledged + 1] = id
  if lane and turn(order_of(lane)) == id then turns[#turns + 1] = lane end
end

local does = {}
does.decide = function(id, first, second)
  redis.call('HSET', held, id, first)
  redis.call('HSET', owed, id, second)
end
does.release = function(id, first)
  local reply = redis.call('HGET', held, id)
  if reply then reply_to(first .. '\n' .. reply) end
  decided[#decided + 1] = id
  acknowledge(id)
end
does.finish = function(id, first)
  reply_to(first)
  acknowledge(id)
end
local expired = 0
does.expire = function(id, first)
  expired = expired + 1
  does.finish(id, first)
end
local function extended(job)
  local r = load_tracked(job)
  local t = redis.call('TIME')
  return r and tonumber(r.deadline) > tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function bury(id, reply, reason, drift)
  local entry = redis.call('XRANGE', jobs, id, id)[1]
  if entry then
    -- A replay has drifted, or was queued, when the dead letter was; only a run that may have drifted makes it later.
    local letter, was = {'reason', reason}, fields_of(entry)
    for i = 1, #entry[2], 2 do
      local name, value = entry[2][i], entry[2][i + 1]
      if name ~= 'drift' and name ~= 'queued' and name ~= 'since' then
        letter[#letter + 1] = name
        letter[#letter + 1] = value
      end
    end
    local drifted = was.drift == '1' or drift == '1'
    for name, value in pairs({drift = drifted and '1' or '0', queued = was.queued or id, since = drift == '0' and was.since or nil}) do
      letter[#letter + 1] = name
      letter[#letter + 1] = value
    end
    redis.call('XADD', dead, 'MAXLEN', '~', ARGV[3], '*', unpack(letter))
    if not was.replays then redis.call('HINCRBY', statistics, 'dead', 1) end
    if drifted and was.drift ~= '1' then redis.call('HINCRBY', statistics, 'drift', 1) end
  end
  if reply ~= '' then reply_to(reply) end
  acknowledge(id)
end
does.bury = function(id, first, second) bury(id, first, second, '0') end
does.lose = function(id, first, second) bury(id, first, second, '1') end
local gone = {}
for a = 6, #ARGV, 9 do
  lane = KEYS[tonumber(ARGV[a + 5])]
  local kind, id, job, stream = ARGV[a], ARGV[a + 1], ARGV[a + 3], tonumber(ARGV[a + 4])
  local ms, frees = string.match(ARGV[a + 6], '^(%d+)(.*)$')
  local all, missing = nil, ''
  if ms and kind ~= 'decide' then all, missing = waiting_for(job) end
  if done[id] or not mine(id, tonumber(ARGV[a + 2])) then
    gone[#gone + 1] = (a - 6) / 9
  elseif ms and kind == 'expire' and extended(job) then
    gone[#gone + 1] = string.format('%d +', (a - 6) / 9)
  elseif missing ~= '' then
    gone[#gone + 1] = string.format('%d', (a - 6) / 9) .. missing
  else
    reply_to = function(reply)
      if all then answer_all(all, job, ms, reply)
      elseif stream > 0 then answer(stream, job, reply) end -- else nobody waits for it
    end
    if ms and frees ~= '' then free(job) end
    does[kind](id, ARGV[a + 7], ARGV[a + 8])
  end
end

for i = 12, #KEYS do flush(i) end
if #acknowledged > 0 then
  redis.call('XACK', jobs, group, unpack(acknowledged))
  redis.call('XDEL', jobs, unpack(acknowledged))
  for _, lane in ipairs(turns) do advance(jobs, lane) end
  redis.call('HINCRBY', statistics, 'finished', #acknowledged - expired)
  if expired > 0 then redis.call('HINCRBY', statistics, 'expired', expired) end
end
if #decided > 0 then
  redis.call('HDEL', held, unpack(decided))
  redis.call('HDEL', owed, unpack(decided))
end
return gone
`

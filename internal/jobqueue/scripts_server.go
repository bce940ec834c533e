package jobqueue

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
//	returns {now in µs, incarnation or '', how many jobs were before, without those that wait for their turn, how many of these
//	are there besides now, how many were finished ever, then for each job: its stream id or "<order>/<id>", 'full', 'busy',
//	'order-full' or 'late'}; for one that is tracked also
//	'kept:<job>' (there is a reply of this scope), 'joined:<job>:<stream id>' (one of this scope is under way, whose reply goes
//	to this caller, too), 'other' (another payload), 'many' (so many wait for the one under way that this caller cannot), or 'crowded'
const enqueueScript = `
local jobs, seen, replies, server, call = KEYS[1], KEYS[2], KEYS[4], ARGV[4], ARGV[5]
local length = redis.call('XLEN', jobs)
local reply = {time, redis.call('HGET', KEYS[5], 'incarnation') or '', length, 0, redis.call('HGET', statistics, 'finished') or '0'}
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
local added, parked, room = 0, 0, tonumber(ARGV[2]) - length - tonumber(redis.call('HGET', statistics, 'parked') or '0')
-- Returns where the job is, or what refuses it and true.
local function add(a, ...)
  local lane = KEYS[tonumber(ARGV[a + 7])]
  if added >= room then return 'full', true end
  if length + added - parked >= tonumber(ARGV[a + 2]) then return 'busy', true end
  if lane and taken(jobs, lane) and redis.call('XLEN', lane) >= tonumber(ARGV[2]) / LANE_PART then return 'order-full', true end
  added = added + 1
  local record = {'server', server, 'deadline', ARGV[a + 1], 'scheme', ARGV[a + 3], 'remote', ARGV[a + 4], 'request', ARGV[a + 5], ...}
  if lane then
    local at, waits = add_in_order(jobs, lane, ARGV[a], 'order', order_of(lane), unpack(record))
    if waits then parked = parked + 1 end
    return at
  end
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
  local before = known(id, ARGV[a + 1], scope, payload)
  if before then return before end
  if redis.call('ZCARD', lives) >= tonumber(ARGV[6]) or
    tonumber(redis.call('HGET', statistics, 'kept') or '0') >= tonumber(ARGV[7]) then return 'crowded' end
  local outcome, refused = add(a, 'keep', ms)
  if not refused then
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
redis.call('HSET', seen, call, table.concat(reply, ' ', 6))
reply[4] = added - parked
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

// statusScript tells a server what it needs to admit jobs, and notes that the server lives. Where no worker takes jobs those count that
// do not any more, and those that have left, for as long as one that was killed: they may have successors.
//
//	KEYS[1] workers   KEYS[2] jobs   KEYS[3] replies of the server   KEYS[4] meta of the queue's partition
//	KEYS[5] servers (sorted set: server by time in µs)   KEYS[6] statistics   KEYS[7] held   KEYS[8] left
//	ARGV[1] the server
//	returns {now in µs, workers that count, their slots, length of the queue, how many of it are decided, how many jobs wait for their
//	turn besides, how many were finished ever, last id of the replies or '', incarnation or ''}
const statusScript = `
local workers = redis.call('HVALS', KEYS[1])
local alive, slots = live(workers, false)
if CHECK_LEAVING and alive == 0 then
  for _, record in ipairs(redis.call('HVALS', KEYS[8])) do workers[#workers + 1] = record end
  alive, slots = live(workers, true)
end
local last = ''
local entries = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
if entries[1] then last = entries[1][1] end
redis.pcall('ZADD', KEYS[5], time, ARGV[1]) -- a Redis that takes no writes is for the enqueue to find out
redis.pcall('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', now - 60000000))
local counts = redis.call('HMGET', KEYS[6], 'parked', 'finished')
return {time, alive, slots, redis.call('XLEN', KEYS[2]), redis.call('HLEN', KEYS[7]), counts[1] or '0', counts[2] or '0', last,
  redis.call('HGET', KEYS[4], 'incarnation') or ''}
`

package jobqueue

// beatScript is the heartbeat of a worker: it says that the worker lives, and shows it the others. It also forgets what was
// kept of tracked jobs long enough, and notes how many jobs there have been.
//
//	KEYS[1] workers (hash: worker id to "beats time interval slots", times in µs, and " leaving" if it takes no more jobs)
//	KEYS[2] jobs
//	KEYS[3] samples (list: "time enqueued finished" of about every second, the newest first)   KEYS[4…9] see tracking
//	KEYS[10] left, see leaveScript
//	ARGV[1] worker id   ARGV[2] interval in µs   ARGV[3] slots, and " leaving"   ARGV[4] '1' to begin, '' to go on
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
  if not string.find(ARGV[3], 'leaving') then redis.call('DEL', KEYS[10]) end -- who has left needs no successor any more
end
local consumers, owned = {}, '0'
for _, consumer in ipairs(list(list(redis.pcall('XPENDING', KEYS[2], group))[4])) do
  consumers[#consumers + 1] = consumer[1]
  if consumer[1] == ARGV[1] then owned = consumer[2] end
end
sweep(KEYS[2], 100)
local latest = string.match(redis.call('LINDEX', KEYS[3], 0) or '0', '^%d+')
if math.abs(now - tonumber(latest)) >= 1000000 then
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

// handOverScript gives jobs that were never begun to the worker whose heartbeat is the latest one, of those that take jobs. They were
// delivered as often as before.
//
//	KEYS[1] workers   KEYS[2] jobs   ARGV[1] the owner   ARGV[2…] stream ids and deliveries
//	returns how many changed hands; none if no other worker that takes jobs is alive
const handOverScript = `
local best, latest = nil, 0
local records = redis.call('HGETALL', KEYS[1])
for i = 1, #records, 2 do
  local at, interval, rest = string.match(records[i + 1], '^%d+ (%d+) (%d+) %d+(.*)$')
  if at and records[i] ~= ARGV[1] and rest == '' and tonumber(at) > latest and is_alive(at, interval) then best, latest = records[i], tonumber(at) end
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

// leaveScript removes a worker that owns nothing, and notes that it was there until now.
//
//	KEYS[1] workers   KEYS[2] jobs
//	KEYS[3] left (hash: worker id to "0 time interval slots leaving", of those that have left since a worker was there that takes jobs)
//	ARGV[1] the worker   ARGV[2] its interval in µs   ARGV[3] its slots
//	returns 1 if it was removed
const leaveScript = `
if #list(redis.pcall('XPENDING', KEYS[2], group, '-', '+', 1, ARGV[1])) > 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], '0 ' .. time .. ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' leaving')
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

package partition

// commitScript changes entries. All operations of a group happen, or none of them.
//
//	KEYS[2] index (sorted set of the keys that have an entry)   KEYS[3] pending   KEYS[4] running   KEYS[5] claims
//	KEYS[6] failing (hash: key to "ticket count error")         KEYS[7] log (stream)
//	KEYS[8…] the entry of each operation
//	ARGV[4] life of a tombstone in µs   ARGV[5] length of the log   ARGV[6] how many entries, and how many pending keys,
//	        at most   ARGV[7] number of groups; then for each group the number of its operations and for each of them
//	        kind, key, ticket, incarnation, value, limited ('1' or ''), delay in µs
//
// Kinds, by what fixes their place among the writes to the key:
//
//	store destroy refuse  the ticket, taken before the application was asked; the claim with that ticket ends.
//	                      refuse is a destroy of what must not be stored
//	fail                  the same for a render that gave nothing: what is stored stays, the key is pending again after
//	                      delay · 2^(failures-1), at most maxDelay
//	push remove           the ticket is a floor: everything with a lower ticket was seen by whoever pushes. Happens only
//	                      if nothing has a higher one; the key is pending in any case
//	overwrite erase       a ticket taken now; the key is pending, but for a value that is push-only
//	pend                  nothing is written; the key is pending after delay
//
//	returns {incarnation, last id of the log, then for each operation its outcome}
//	  stored destroyed refused failed pending   it happened
//	  superseded   something with a higher ticket is there
//	  done         it had happened before
//	  lost         a failure of a claim that somebody else holds by now
//	  full         there are too many entries or pending keys
//	  incarnation future old   the group was refused: its ticket is of another clock, above the clock, or from before
//	               the oldest tombstone that is sure to live
const commitScript = `
local index, pending, running, claims, failing, log = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local life, log_length, most = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_delay = 60000000
local ceiling, horizon = fixed(math.max(last, now)), fixed(math.max(0, now - life))
local fenced = {store = true, destroy = true, refuse = true, fail = true}

local function misplaced(op)
  if op.incarnation ~= incarnation then return 'incarnation' end
  if op.ticket > ceiling then return 'future' end
  if op.ticket < horizon then return 'old' end
end

-- Check everything before the first write: an error midway rolls nothing back.
local ops, at, key_at = {}, 8, 8
for _ = 1, tonumber(ARGV[7]) do
  local first, refusal = #ops + 1, nil
  local count = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, count do
    local op = {kind = ARGV[at], key = ARGV[at + 1], ticket = ARGV[at + 2], incarnation = ARGV[at + 3],
      value = ARGV[at + 4], limited = ARGV[at + 5] == '1', delay = tonumber(ARGV[at + 6]), entry = KEYS[key_at]}
    ops[#ops + 1] = op
    at, key_at = at + 7, key_at + 1
    if fenced[op.kind] then refusal = refusal or misplaced(op) end
  end
  if refusal then
    for i = first, #ops do ops[i].refusal = refusal end
  end
end

local tail = nil
local function record(op, what)
  tail = redis.call('XADD', log, 'MAXLEN', '~', log_length, '*', 'key', op.key, 'ticket', op.ticket, 'op', what)
end
local function pend(op, due)
  local score = redis.call('ZSCORE', pending, op.key)
  if score then
    if tonumber(score) > due then redis.call('ZADD', pending, fixed(due), op.key) end
    return true
  end
  if redis.call('ZCARD', pending) >= most then return false end
  redis.call('ZADD', pending, fixed(due), op.key)
  return true
end
-- release ends the claim that has the ticket; who waited for its end finds the key due.
local function release(op)
  local holder = redis.call('HGET', claims, op.key)
  if not holder or string.sub(holder, 1, 20) ~= op.ticket then return false end
  redis.call('HDEL', claims, op.key)
  redis.call('ZREM', running, op.key)
  if redis.call('ZSCORE', pending, op.key) then redis.call('ZADD', pending, fixed(now), op.key) end
  return true
end
local function put(op)
  if op.limited and not redis.call('ZSCORE', index, op.key) and redis.call('ZCARD', index) >= most then
    return 'full'
  end
  redis.call('SET', op.entry, op.value)
  redis.call('ZADD', index, 0, op.key)
  record(op, 'store')
  return 'stored'
end
local function bury(op)
  if LEAVE_TOMBSTONES then
    redis.call('SET', op.entry, '{"ticket":"' .. op.ticket .. '","gone":true}\n', 'PX', math.ceil(life / 1000))
  else
    redis.call('DEL', op.entry)
  end
  redis.call('ZREM', index, op.key)
  record(op, 'destroy')
  return 'destroyed'
end

local does = {}
local function splice(op) op.value = string.sub(op.value, 1, 11) .. op.ticket .. string.sub(op.value, 32) end
local function fence(op, write)
  local ticket = head_of(op.entry)
  local claim = op.ticket
  if not EARLY_TICKETS then
    op.ticket = tick()
    splice(op)
  end
  local outcome
  if CHECK_TICKETS and ticket > op.ticket then
    outcome = 'superseded'
  elseif ticket == op.ticket then
    outcome = 'done'
  else
    outcome = write(op)
  end
  redis.call('HDEL', failing, op.key)
  op.ticket = claim
  release(op)
  return outcome
end
does.store = function(op) return fence(op, put) end
does.destroy = function(op) return fence(op, bury) end
does.refuse = function(op)
  local outcome = fence(op, bury)
  if outcome == 'destroyed' then return 'refused' end
  return outcome
end
does.fail = function(op)
  if not release(op) then return 'lost' end
  local failure = redis.call('HGET', failing, op.key) or ''
  local before = string.match(failure, '^%d+ (%d+)')
  local count = tonumber(before or '0') + 1
  if pend(op, now + math.min(op.delay * 2 ^ math.min(count - 1, 30), max_delay)) then
    redis.call('HSET', failing, op.key, op.ticket .. ' ' .. string.format('%.0f', count) .. ' ' .. op.value)
  end
  record(op, 'fail')
  return 'failed'
end
local function floor(op, write)
  local ticket, push_only = head_of(op.entry)
  if push_only then return nil end
  local outcome = 'superseded'
  if not misplaced(op) and ticket < op.ticket then outcome = write(op) end
  if not pend(op, now) then return 'full' end
  return outcome
end
does.overwrite = function(op)
  op.ticket = tick()
  splice(op)
  local outcome = put(op)
  if string.sub(op.value, 32, 48) ~= '","pushOnly":true' then pend(op, now) end
  return outcome
end
does.erase = function(op)
  local _, push_only = head_of(op.entry)
  op.ticket = tick()
  local outcome = bury(op)
  if not push_only then pend(op, now) end
  return outcome
end
does.push = function(op) return floor(op, put) or does.overwrite(op) end
does.remove = function(op) return floor(op, bury) or does.erase(op) end
does.pend = function(op)
  if pend(op, now + op.delay) then return 'pending' end
  return 'full'
end

local reply = {incarnation, ''}
for i, op in ipairs(ops) do
  if op.refusal then
    release(op)
    reply[i + 2] = op.refusal
  else
    reply[i + 2] = does[op.kind](op)
  end
end
if not tail then
  local entries = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if entries[1] then tail = entries[1][1] end
end
reply[2] = tail or '0-0'
return reply
`

package partition

// commitScript changes entries. All operations of a group happen, or none of them.
//
//	KEYS[2] index (sorted set of the keys that have an entry)   KEYS[3] pending   KEYS[4] running   KEYS[5] claims
//	KEYS[6] failing (hash: key to "ticket count error")         KEYS[7] log (stream)
//	KEYS[8] groups   KEYS[9] memberships   KEYS[10] marks (see groups.go)   KEYS[11] wanted
//	KEYS[12…] the entry of each operation
//	ARGV[4] life of a tombstone in µs   ARGV[5] length of the log   ARGV[6] how many entries, and how many pending keys,
//	        at most   ARGV[7] number of groups; then for each group the number of its operations and for each of them
//	        kind, key, ticket, incarnation, value, limited ('1' or ''), delay in µs, the groups that the entry is in,
//	        each followed by a tab, and the cause
//
// Kinds, by what fixes their place among the writes to the key:
//
//	store destroy refuse  the ticket, taken before the application was asked; the claim with that ticket ends.
//	                      refuse is a destroy of what must not be stored
//	fail                  the same for a render that gave nothing: what is stored stays, the key is pending again after
//	                      delay · 2^(failures-1), at most maxDelay
//	push remove           a ticket taken now. The given one is a floor: everything with a lower ticket was seen by
//	                      whoever pushes. Happens only if nothing has a higher one; the key is pending in any case
//	put drop              the ticket, taken by whoever pushes after the change and before its read
//	overwrite erase       the ticket if there is one, so that doing it twice changes nothing, else one taken now; the key is
//	                      pending, but for a value that is push-only
//	pend                  nothing is written; the key is pending after delay, but for one with a ticket if what is there, or
//	                      a render that runs, has a higher ticket
//
//	returns {incarnation, last id of the log, then for each operation its outcome}
//	  stored destroyed refused failed pending   it happened
//	  superseded   something with a higher ticket is there
//	  unseen       the same, but it was pushed by somebody who may not have seen what the operation shows
//	  done         it had happened before
//	  lost         a failure of a claim that somebody else holds by now
//	  full         there are too many entries or pending keys
//	  incarnation future old   the group was refused: its ticket is of another clock, above the clock, or from before
//	               the oldest tombstone that is sure to live
const commitScript = `
local index, pending, running, claims, failing, log = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local groups, memberships, marks, wanted = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local life, log_length, most = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local max_delay = 60000000
local ceiling, horizon = fixed(math.max(last, now)), fixed(math.max(0, last - life, now - life))
local fenced = {store = true, destroy = true, refuse = true, fail = true, put = true, drop = true}

local function misplaced(op)
  if op.incarnation ~= incarnation then return 'incarnation' end
  if op.ticket > ceiling then return 'future' end
  if op.ticket < horizon then return 'old' end
end

-- Check everything before the first write: an error midway rolls nothing back.
local ops, at, key_at = {}, 8, 12
for _ = 1, tonumber(ARGV[7]) do
  local first, refusal = #ops + 1, nil
  local count = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, count do
    local op = {kind = ARGV[at], key = ARGV[at + 1], ticket = ARGV[at + 2], incarnation = ARGV[at + 3],
      value = ARGV[at + 4], limited = ARGV[at + 5] == '1', delay = tonumber(ARGV[at + 6]), groups = ARGV[at + 7],
      cause = ARGV[at + 8], entry = KEYS[key_at]}
    op.origin = string.match(op.value, '^{"ticket":"%d+","gone":true(.*)$') or '}\n' -- of a tombstone: the rest of its line
    ops[#ops + 1] = op
    at, key_at = at + 9, key_at + 1
    if fenced[op.kind] then refusal = refusal or misplaced(op) end
  end
  if refusal then
    for i = first, #ops do ops[i].refusal = refusal end
  end
end

local tail = nil
local function last_record()
  if not tail then
    local there = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    tail = there and there[1] or '0-0'
  end
  return tail
end
local function record(op, what)
  tail = redis.call('XADD', log, 'MAXLEN', '~', log_length, '*',
    'prev', last_record(), 'key', op.key, 'ticket', op.ticket, 'op', what)
end
local function want(op, due, cause)
  redis.call('ZADD', pending, fixed(due), op.key)
  redis.call('HSETNX', wanted, op.key, string.format('%.0f', now) .. ' ' .. cause)
end
-- What the application cannot render is never pending.
local function pend(op, due)
  local _, push_only = head_of(op.entry)
  if push_only then return true end
  local score = redis.call('ZSCORE', pending, op.key)
  if score then
    if tonumber(score) > due then redis.call('ZADD', pending, fixed(due), op.key) end
    return true
  end
  if redis.call('ZCARD', pending) >= most then return false end
  want(op, due, op.cause)
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
-- regroup has a key be in exactly these groups.
local function regroup(op, after)
  local before = redis.call('HGET', memberships, op.key) or ''
  if before == after then return end
  local was, stays = {}, {}
  for group in string.gmatch(before, '([^\t]*)\t') do was[group] = true end
  for group in string.gmatch(after, '([^\t]*)\t') do
    stays[group] = true
    if not was[group] then redis.call('ZADD', groups, 0, group .. '\t' .. op.key) end
  end
  for group in string.gmatch(before, '([^\t]*)\t') do
    if not stays[group] then redis.call('ZREM', groups, group .. '\t' .. op.key) end
  end
  if after == '' then redis.call('HDEL', memberships, op.key) else redis.call('HSET', memberships, op.key, after) end
end
-- changed_since returns one of the groups of an entry that has changed since its ticket was taken; nil if none has.
local function changed_since(op)
  if not CHECK_MARKS or op.groups == '' then return nil end
  local ticket = tonumber(op.ticket)
  if ticket < tonumber(m[6] or '0') then return string.match(op.groups, '([^\t]*)\t') end
  for group in string.gmatch(op.groups, '([^\t]*)\t') do
    local mark = redis.call('ZSCORE', marks, group)
    if mark and tonumber(mark) > ticket then return group end
  end
  return nil
end
local function put(op)
  if op.limited and not redis.call('ZSCORE', index, op.key) and redis.call('ZCARD', index) >= most then
    return 'full'
  end
  redis.call('SET', op.entry, op.value)
  redis.call('ZADD', index, 0, op.key)
  regroup(op, op.groups)
  record(op, 'store')
  local changed = changed_since(op)
  if changed then want(op, now, '- group ' .. changed) end
  return 'stored'
end
-- A tombstone lives until a lower ticket is refused as old; the clock of tickets may be ahead of Redis's.
local function bury(op)
  if LEAVE_TOMBSTONES then
    local rest = life + math.max(0, tonumber(op.ticket) - now)
    redis.call('SET', op.entry, '{"ticket":"' .. op.ticket .. '"' .. (op.floor or '') .. ',"gone":true' .. (op.erased or '') .. op.origin,
      'PX', math.ceil(rest / 1000))
  else
    redis.call('DEL', op.entry)
  end
  redis.call('ZREM', index, op.key)
  regroup(op, '')
  record(op, 'destroy')
  return 'destroyed'
end
-- stamp gives an operation a ticket, of this moment unless another is given, and a floor if it is not exact.
local function stamp(op, floor, ticket)
  op.ticket = ticket or tick()
  if floor then op.floor = ',"floor":"' .. floor .. '"' end
  op.value = '{"ticket":"' .. op.ticket .. '"' .. (op.floor or '') .. string.sub(op.value, 33)
end

local does = {}
local function fence(op, write)
  local ticket, _, floor = head_of(op.entry)
  local claim = op.ticket
  if not EARLY_TICKETS then stamp(op) end
  local outcome
  if CHECK_TICKETS and ticket > op.ticket then
    outcome = floor >= claim and 'superseded' or 'unseen'
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
does.put = function(op) return fence(op, put) end
does.drop = function(op) return fence(op, bury) end
-- A render that began before the key was pushed for good changes nothing.
local function rendered(op, write)
  local _, push_only = head_of(op.entry)
  if not push_only then return fence(op, write) end
  release(op)
  return 'superseded'
end
does.store = function(op) return rendered(op, put) end
does.destroy = function(op) return rendered(op, bury) end
does.refuse = function(op)
  local outcome = rendered(op, bury)
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
-- A push that is not exact gets a ticket of the moment of its commit: what was rendered or pushed before, and comes late,
-- does not replace it. That it may not show what those show is what its floor says: they are told unseen.
--
--   process A: claims k, ticket 7; asks the application, which answers version 1; is slow
--   process B: has seen ticket 5; a job changes k to version 2 and pushes that; ticket 8, floor 5; the job is replied to
--   process A: commits version 1 with ticket 7: unseen, it claims k again
local function push(op, write)
  local ticket, push_only = head_of(op.entry)
  if push_only then return nil end
  local outcome = 'superseded'
  if not misplaced(op) and ticket < op.ticket then
    stamp(op, op.ticket)
    outcome = write(op)
  end
  if not pend(op, now) then return 'full' end
  return outcome
end
local nothing_seen = fixed(0)
-- settled performs a write that comes to stay where it is the last, by the ticket that its sender took for it. For what
-- the application cannot render, only other pushes and destroys count: a render that found nothing says nothing.
local function settled(op, write, floor)
  local ticket = nil
  if op.ticket ~= '' and op.incarnation == incarnation and (op.kind == 'overwrite' or op.kind == 'erase') then
    ticket = op.ticket
    local there, push_only, _, erased = head_of(op.entry)
    if there == ticket then return 'done' end
    if there > ticket then
      if floor or push_only or erased then return 'superseded' end
      ticket = nil
    end
  end
  stamp(op, floor, ticket)
  return write(op)
end
does.overwrite = function(op)
  if string.sub(op.value, 32, 48) == '","pushOnly":true' then
    local outcome = settled(op, put)
    redis.call('ZREM', pending, op.key)
    redis.call('HDEL', wanted, op.key)
    redis.call('HDEL', failing, op.key)
    return outcome
  end
  local outcome = settled(op, put, nothing_seen)
  pend(op, now)
  return outcome
end
does.erase = function(op)
  local _, push_only = head_of(op.entry)
  if push_only then
    op.erased = ',"erased":true'
    return settled(op, bury)
  end
  local outcome = settled(op, bury, nothing_seen)
  pend(op, now)
  return outcome
end
does.push = function(op) return push(op, put) or does.overwrite(op) end
does.remove = function(op) return push(op, bury) or does.erase(op) end
does.pend = function(op)
  if op.ticket ~= '' and op.incarnation == incarnation then
    local _, _, floor = head_of(op.entry)
    local holder = redis.call('HGET', claims, op.key)
    if floor > op.ticket or holder and string.sub(holder, 1, 20) > op.ticket then return 'done' end
  end
  if pend(op, now + op.delay) then
    if op.ticket == '' then -- else whoever walks a group does it again
      op.ticket = fixed(last)
      record(op, 'pend')
    end
    return 'pending'
  end
  return 'full'
end

local reply = {incarnation, ''}
for i, op in ipairs(ops) do
  if op.refusal then
    if release(op) then pend(op, now) end -- whoever held the claim may die before it can say so
    reply[i + 2] = op.refusal
  else
    reply[i + 2] = does[op.kind](op)
  end
end
reply[2] = last_record()
return reply
`

package partition

import (
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Version is the version of the layout in Redis that this package reads and writes. It is recorded in every partition.
const Version = 3

// Guards switches single safeguards off. Only tests do that, to see the violation that the safeguard prevents.
type Guards struct {
	// NoTicketCheck lets a commit overwrite an entry or a tombstone with a higher ticket.
	NoTicketCheck bool

	// NoTombstones lets a destroy leave nothing behind.
	NoTombstones bool

	// NoMarks lets an entry into a group that has changed since the entry was asked for, without a further render.
	NoMarks bool

	// NoPredecessors follows the change log without looking whether a record is missing.
	NoPredecessors bool

	// LateTickets takes the ticket of a render after the application answered instead of before it was asked.
	LateTickets bool
}

// scripts are the Lua scripts of a partition, compiled for one configuration.
//
// Every script begins with the same keys and arguments:
//
//	KEYS[1] meta (hash)
//	ARGV[1] layout version   ARGV[2] number of partitions   ARGV[3] incarnation to use if there is none
//
// A script raises SCALESVERSION or SCALESPARTITIONS, and changes nothing, where the partition was laid out otherwise.
// A script is one atomic step; each may run twice for one call, because go-redis re-sends after a broken connection.
type scripts struct {
	read, claim, next, commit, renew, tick, fill, mark, walk, advance, explain, backlog, misfiled, refile, sure *redis.Script
}

func compile(g Guards) scripts {
	guards := "local CHECK_TICKETS = " + strconv.FormatBool(!g.NoTicketCheck) +
		"\nlocal LEAVE_TOMBSTONES = " + strconv.FormatBool(!g.NoTombstones) +
		"\nlocal CHECK_MARKS = " + strconv.FormatBool(!g.NoMarks) +
		"\nlocal EARLY_TICKETS = " + strconv.FormatBool(!g.LateTickets) + "\n"
	script := func(parts ...string) *redis.Script {
		return redis.NewScript(guards + prelude + strings.Join(parts, ""))
	}
	return scripts{
		read:     script(readScript),
		claim:    script(clock, stored, grant, claimScript),
		next:     script(clock, grant, nextScript),
		commit:   script(clock, stored, commitScript),
		renew:    script(renewScript),
		tick:     script(clock, tickScript),
		fill:     script(clock, fillScript),
		mark:     script(clock, markScript),
		walk:     script(clock, walkScript),
		advance:  script(advanceScript),
		explain:  script(explainScript),
		backlog:  script(backlogScript),
		misfiled: script(misfiledScript),
		refile:   script(refileScript),
		sure:     script(sureScript),
	}
}

// prelude reads the meta hash and refuses a partition that was laid out otherwise.
const prelude = `
local meta = KEYS[1]
local m = redis.call('HMGET', meta, 'version', 'partitions', 'incarnation', 'clock', 'filled', 'unmarked', 'unsure', 'settled')
local incarnation = m[3]
if m[1] and m[1] ~= ARGV[1] then
  return redis.error_reply('SCALESVERSION ' .. m[1])
end
if m[2] and m[2] ~= ARGV[2] then
  return redis.error_reply('SCALESPARTITIONS ' .. m[2])
end
`

// clock makes the clock if there is none, and hands out tickets: max(last+1, TIME in µs), written with 20 digits and
// compared as strings. The arithmetic is exact below 2^53 µs, the year 2255. TIME is Redis's clock.
const clock = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local function fixed(n) return string.format('%020.0f', n) end
if not incarnation then
  incarnation = ARGV[3]
  redis.call('HSET', meta, 'version', ARGV[1], 'partitions', ARGV[2], 'incarnation', incarnation)
end
local last = tonumber(m[4] or '0') or 0
local function tick()
  last = math.max(last + 1, now)
  redis.call('HSET', meta, 'clock', fixed(last))
  return fixed(last)
end
`

// stored reads the head of what is stored under a key. It returns its ticket, empty where nothing is or where it cannot
// be read; whether the application cannot render it; and its floor: whatever happened before that ticket is sure to be shown.
// The floor is the ticket, but for a push that was not exact: see push in commitScript. Last, whether it is the tombstone
// of something that was push-only.
const stored = `
local floor_member = '^,"floor":"(' .. string.rep('%d', 20) .. ')"'
local function head_of(entry)
  local head = redis.pcall('GETRANGE', entry, 0, 62)
  if type(head) ~= 'string' then return '', false, '', false end
  local ticket, rest = string.match(head, '^{"ticket":"(%d+)"(.*)')
  if not ticket or #ticket ~= 20 then return '', false, '', false end
  return ticket, string.sub(rest, 1, 16) == ',"pushOnly":true', string.match(rest, floor_member) or ticket,
    string.sub(rest, 1, 26) == ',"gone":true,"erased":true'
end
`

// grant gives a key to a render until its lease ends.
//
//	KEYS[2] pending (sorted set: key by due time in µs)   KEYS[3] running (sorted set: key by end of lease in µs)
//	KEYS[4] claims (hash: key to "ticket token cause")
//	KEYS[7] wanted (hash: pending key to "since cause": the time in µs since when it is pending, and why)
//
// A cause is "job why", with "-" where there is no job; see Cause.
const grant = `
local pending, running, claims, wanted = KEYS[2], KEYS[3], KEYS[4], KEYS[7]
local function want(key, due, cause)
  redis.call('ZADD', pending, due, key)
  redis.call('HSETNX', wanted, key, string.format('%.0f', now) .. ' ' .. cause)
end
-- A lease that ends much later than one that begins now is from before Redis's clock was put back.
local function runs(until_, lease)
  return until_ and tonumber(until_) > now and tonumber(until_) < now + 100 * lease
end
local function grant(key, token, lease, cause)
  local ticket = tick()
  redis.call('ZADD', running, fixed(now + lease), key)
  redis.call('HSET', claims, key, ticket .. ' ' .. token .. ' ' .. cause)
  redis.call('ZREM', pending, key)
  redis.call('HDEL', wanted, key)
  return ticket
end
`

// readScript reads entries together with what a miss means. It writes nothing, so a replica can be asked as well.
//
//	KEYS[2] index   KEYS[3] log   KEYS[4…] entries
//	ARGV[4…] the keys of the entries
//	returns {filled, last id of the log, then for each entry: its value or false, and 1 if the index has its key}; filled is
//	"1", "0", or "unsure" if it was filled and Redis has lost writes since
const readScript = `
local filled = '0'
if incarnation and m[5] == incarnation then filled = m[7] and 'unsure' or '1' end
local tail = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local reply = {filled, tail and tail[1] or '0-0'}
for i = 4, #KEYS do
  local value = redis.pcall('GET', KEYS[i])
  if type(value) ~= 'string' then value = false end
  local known = 0
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) then known = 1 end
  reply[#reply + 1] = value
  reply[#reply + 1] = known
end
return reply
`

// claimScript claims keys for renders.
//
//	KEYS[2] pending   KEYS[3] running   KEYS[4] claims   KEYS[5] failing   KEYS[6] log   KEYS[7] wanted
//	KEYS[8…] entries
//	ARGV[4] lease in µs   ARGV[5…] for each entry: key, token of this claim, need, cause
//
// need is ” for a new wish, else the ticket that an earlier call returned with "busy": a render with a higher ticket
// has seen what the caller wants to be seen.
//
//	returns {incarnation, last id of the log, then for each entry: outcome, ticket, detail}
//	  claimed   ticket of the render; repeated for the same token
//	  busy      another render runs; the key is pending again; ticket is the need to come back with
//	  done      what is there, with that ticket, shows what the wish wants shown
//	  failed    a render with that ticket failed after the wish; detail is its error
//	  pushed    the entry is push-only: there is nothing to render
const claimScript = `
local failing, log = KEYS[5], KEYS[6]
local lease = tonumber(ARGV[4])
local function claim(entry, key, token, need, cause)
  local ticket, push_only, floor = head_of(entry)
  if push_only then return 'pushed', ticket, '' end
  local holder = redis.call('HGET', claims, key)
  if holder and string.match(holder, '^%d+ (%S+)') == token then return 'claimed', string.sub(holder, 1, 20), '' end
  if need ~= '' then
    if floor > need then return 'done', ticket, '' end
    local failure = redis.call('HGET', failing, key)
    if failure and string.sub(failure, 1, 20) > need then
      return 'failed', string.sub(failure, 1, 20), string.match(failure, '^%d+ %d+ (.*)') or ''
    end
  end
  local until_ = redis.call('ZSCORE', running, key)
  if holder and runs(until_, lease) then
    if need == '' then need = tick() end
    want(key, until_, cause)
    return 'busy', need, ''
  end
  return 'claimed', grant(key, token, lease, cause), ''
end
local reply = {incarnation, '0-0'}
for i = 8, #KEYS do
  local a = 5 + (i - 8) * 4
  local outcome, ticket, detail = claim(KEYS[i], ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3])
  reply[#reply + 1] = outcome
  reply[#reply + 1] = ticket
  reply[#reply + 1] = detail
end
local tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
if tail[1] then reply[2] = tail[1][1] end
return reply
`

// nextScript puts the keys of expired claims back to pending and claims pending keys that are due.
//
//	KEYS[2] pending   KEYS[3] running   KEYS[4] claims   KEYS[5] failing   KEYS[6] walks   KEYS[7] wanted
//	KEYS[8] log
//	ARGV[4] lease in µs   ARGV[5] token: process, '-' and what makes it unique   ARGV[6] how many at most
//	ARGV[7] '1' to see the claims of the process   ARGV[8] ids of records that were in the log, ascending, with spaces between;
//	'' if none is known   ARGV[9] the incarnation at that time
//	returns {incarnation, a ticket of this moment, n, how many groups are walked, last id of the log, '' or the last id up
//	to which the log is as it was, then for each of the n keys that were claimed: key, ticket, token, cause; then the same for
//	each key that the process had claimed before}
//
// Where the log has lost a record that is known, Redis has lost acknowledged writes: in a crash, or in a failover. Then
// nobody can say of a missing key that there is no such resource, and the partition is marked as unsure until a fill or a
// verify has ended.
//
// The last part shows a process the claims that were granted to a call which it had given up, or which was sent twice.
//
// The first time a claim of a key expires, the key is due at once, for somebody may wait for it. After that it backs off,
// by up to sixteen leases: its render may be what ends one process after the other. A key that is due later than any delay
// makes it is from before Redis's clock was put back.
const nextScript = `
local failing = KEYS[5]
local lease, most = tonumber(ARGV[4]), tonumber(ARGV[6])
local reply = {incarnation, tick(), 0, redis.call('HLEN', KEYS[6]), '', ''}
local mine = {}
local function expire(key)
  local before = string.match(redis.call('HGET', failing, key) or '', '^%d+ (%d+)')
  local count = tonumber(before or '0') + 1
  local delay = 0
  if count > 1 then delay = math.min(lease * 2 ^ math.min(count - 2, 4), 60000000) end
  local cause = string.match(redis.call('HGET', claims, key) or '', '^%d+ %S+ (.*)$') or '-'
  redis.call('ZREM', running, key)
  redis.call('HDEL', claims, key)
  want(key, fixed(now + delay), cause)
  redis.call('HSET', failing, key, fixed(0) .. ' ' .. string.format('%.0f', count) .. ' the process that rendered it has gone')
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', running, '-inf', fixed(now), 'LIMIT', 0, 100)) do expire(key) end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', running, fixed(now + 100 * lease), '+inf', 'LIMIT', 0, 100)) do expire(key) end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', pending, fixed(now + 120000000 + 100 * lease), '+inf', 'LIMIT', 0, 100)) do
  redis.call('ZADD', pending, fixed(now), key)
end
local log = KEYS[8]
local function order(id)
  local time, number = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(time or '0'), tonumber(number or '0')
end
local function after(id, other)
  local time, number = order(id)
  local other_time, other_number = order(other)
  return time > other_time or time == other_time and number > other_number
end
local function lost(known)
  -- What was known before a doubt was ended says nothing new.
  if not after(known, m[8] or '') or redis.call('XRANGE', log, known, known, 'COUNT', 1)[1] then return false end
  -- Records are trimmed from the beginning: where one before is there, this one was not trimmed.
  local before = redis.call('XREVRANGE', log, known, '-', 'COUNT', 1)[1]
  if not before and redis.call('XLEN', log) > 0 then return false end
  reply[6] = before and before[1] or '0-0'
  if not m[7] then redis.call('HSET', meta, 'unsure', reply[2]) end
  return true
end
if ARGV[9] == incarnation then
  for known in string.gmatch(ARGV[8], '%S+') do
    if lost(known) then break end
  end
end
local tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if tail then reply[5] = tail[1] end
if ARGV[7] == '1' then
  local process = string.match(ARGV[5], '^.*%-') or ' '
  local held = redis.call('HGETALL', claims)
  for i = 1, #held, 2 do
    local ticket, token, cause = string.match(held[i + 1], '^(%d+) (%S+) ?(.*)$')
    if token and string.sub(token, 1, #process) == process then
      for _, value in ipairs({held[i], ticket, token, cause}) do mine[#mine + 1] = value end
    end
  end
end
if most > 0 then
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', pending, '-inf', fixed(now), 'LIMIT', 0, most)) do
    local until_ = redis.call('ZSCORE', running, key)
    if until_ then
      redis.call('ZADD', pending, until_, key)
    else
      local cause = string.match(redis.call('HGET', wanted, key) or '', '^%d+ (.*)$') or '-'
      reply[3] = reply[3] + 1
      for _, value in ipairs({key, grant(key, ARGV[5], lease, cause), ARGV[5], cause}) do reply[#reply + 1] = value end
    end
  end
end
for _, value in ipairs(mine) do reply[#reply + 1] = value end
return reply
`

// renewScript prolongs the leases of claims that are still held.
//
//	KEYS[2] running   KEYS[3] claims
//	ARGV[4] lease in µs   ARGV[5…] for each claim: key, ticket
//	returns how many were prolonged
const renewScript = `
local t = redis.call('TIME')
local until_ = string.format('%020.0f', tonumber(t[1]) * 1000000 + tonumber(t[2]) + tonumber(ARGV[4]))
local renewed = 0
for a = 5, #ARGV, 2 do
  local holder = redis.call('HGET', KEYS[3], ARGV[a])
  if holder and string.sub(holder, 1, 20) == ARGV[a + 1] then
    redis.call('ZADD', KEYS[2], until_, ARGV[a])
    renewed = renewed + 1
  end
end
return renewed
`

// tickScript takes a ticket.
//
//	returns {incarnation, ticket}
const tickScript = `
return {incarnation, tick()}
`

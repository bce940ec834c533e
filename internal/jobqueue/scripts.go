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

	// NoSuccessor admits no job when the last worker takes no more, although another one may follow at once.
	NoSuccessor bool

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
		"\nlocal CHECK_OTHERS = " + strconv.FormatBool(!g.NoOthers) +
		"\nlocal CHECK_LEAVING = " + strconv.FormatBool(!g.NoSuccessor) + "\n"
	script := func(parts ...string) *redis.Script {
		return redis.NewScript(guards + prelude + strings.Join(parts, ""))
	}
	trackingAt := func(key int) string {
		return "local TRACKING = " + strconv.Itoa(key) + "\nlocal MOST_WAITERS = " + strconv.Itoa(maxWaiters) + tracking
	}
	orderingAt := func(key int) string { return "local LANES = " + strconv.Itoa(key) + ordering }
	return scripts{
		enqueue:  script(clock, trackingAt(6), orderingAt(12), "\nlocal LANE_PART = "+strconv.Itoa(lanePart)+"\n", sweeping, enqueueScript),
		recall:   script(clock, recallScript),
		withdraw: script(clock, trackingAt(3), orderingAt(9), withdrawScript),
		status:   script(clock, liveliness, statusScript),
		beat:     script(clock, trackingAt(4), sweeping, beatScript),
		takeOver: script(takeOverScript),
		handOver: script(clock, liveliness, handOverScript),
		load:     script(loadScript),
		settle:   script(trackingAt(5), orderingAt(11), settleScript),
		leave:    script(clock, leaveScript),
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

// liveliness tells which workers are alive, and how many slots those have that take jobs, or those that are leaving or have left. It is
// for scripts with clock.
const liveliness = `
-- A worker is alive if its latest heartbeat is less than three intervals ago.
local function is_alive(at, interval) return now - tonumber(at) < 3 * tonumber(interval) end
-- The same for one that may send no further heartbeat: it must not go on to count if Redis's clock has gone back.
local function was_alive(at, interval) return is_alive(at, interval) and tonumber(at) - now < tonumber(interval) end
local function live(records, leaving)
  local alive, all = 0, 0
  for _, record in ipairs(records) do
    local at, interval, slots, rest = string.match(record, '^%d+ (%d+) (%d+) (%d+)(.*)$')
    if at and (rest ~= '') == leaving and (leaving and was_alive or is_alive)(at, interval) then
      alive = alive + 1
      all = all + tonumber(slots)
    end
  end
  return alive, all
end
`

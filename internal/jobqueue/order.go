package jobqueue

import (
	"errors"
	"strings"
)

// lanePart: of the longest queue that part may wait in one lane, lest one order keeps all others out.
const lanePart = 10

// MaxLane returns how many jobs of one order may wait behind the one that has the turn.
func MaxLane(maxQueue int) int { return (maxQueue + lanePart - 1) / lanePart }

// lane returns the key of the stream in which jobs of an order wait for their turn.
func (k keys) lane(order string) string { return k.lanes + ":" + order }

// laneOf returns the key of the lane of a job, by where it was enqueued; "" for one without an order.
func (k keys) laneOf(at string) string {
	order, _, ok := strings.Cut(at, "/")
	if !ok {
		return ""
	}
	return k.lane(order)
}

// validOrder reports whether an order can be a part of a key.
func validOrder(order string) error {
	if len(order) > 64 || strings.ContainsAny(order, ":{}/ \t\r\n") {
		return errors.New("the record has an order that cannot be one")
	}
	return nil
}

// keyList is KEYS of a script that is given further keys with its arguments, by their index.
type keyList struct {
	keys  []string
	index map[string]int
}

// add returns the index of a key, from 1; 0 for "".
func (l *keyList) add(key string) int {
	if key == "" {
		return 0
	}
	if at, ok := l.index[key]; ok {
		return at
	}
	if l.index == nil {
		l.index = make(map[string]int)
	}
	l.keys = append(l.keys, key)
	l.index[key] = len(l.keys)
	return len(l.keys)
}

// ordering is what scripts do with jobs that have an order: one of them at a time is in jobs, which has the turn, and the others
// wait in a stream of their own, the lane, whose name ends in the order. Such a job is known to who has enqueued it by
// "<order>/<id>": where it came in, to the lane or to jobs. Scripts need KEYS[LANES], statistics, and as far as they say so the keys
// of lanes:
//
//	lanes (hash): order to "<stream id> <job id>" of the job that has the turn
//	lanes:<order> (stream): the records of those that wait for it
//	statistics: parked: how many wait in all lanes
const ordering = `
local lanes = KEYS[LANES]
local function order_of(lane) return string.match(lane, '[^:]+$') end
local function turn(order) return string.match(redis.call('HGET', lanes, order) or '', '^(%S+) (%S+)$') end
local function unpark(lane, id)
  redis.call('XDEL', lane, id)
  redis.call('HINCRBY', statistics, 'parked', -1)
  if redis.call('XLEN', lane) == 0 then redis.call('DEL', lane) end
end
-- The turn passes to the next.
local function advance(jobs, lane)
  local entry = redis.call('XRANGE', lane, '-', '+', 'COUNT', 1)[1]
  if not entry then
    redis.call('HDEL', lanes, order_of(lane))
    return
  end
  local at = redis.call('XADD', jobs, '*', unpack(entry[2]))
  redis.call('HSET', lanes, order_of(lane), at .. ' ' .. fields_of(entry).id)
  unpark(lane, entry[1])
end
-- Whether a job of that lane would have to wait. Where somebody has deleted the one that had the turn, it passes on.
local function taken(jobs, lane)
  local at = turn(order_of(lane))
  if at and #redis.call('XRANGE', jobs, at, at) > 0 then return true end
  advance(jobs, lane)
  return turn(order_of(lane)) ~= nil
end
local function add_in_order(jobs, lane, job, ...)
  local id
  local waits = taken(jobs, lane)
  if waits then
    id = redis.call('XADD', lane, '*', 'id', job, ...)
    redis.call('HINCRBY', statistics, 'parked', 1)
  else
    id = redis.call('XADD', jobs, '*', 'id', job, ...)
    redis.call('HSET', lanes, order_of(lane), id .. ' ' .. job)
  end
  return order_of(lane) .. '/' .. id, waits
end
-- Where a job is now: the stream, and its id there; nil if it is nowhere.
local function place(jobs, lane, at, job)
  local order, id = string.match(at, '^([^/]+)/(.+)$')
  local entry = redis.call('XRANGE', lane, id, id)[1]
  if entry and fields_of(entry).id == job then return lane, id end
  local where, whose = turn(order)
  if whose == job and #redis.call('XRANGE', jobs, where, where) > 0 then return jobs, where end
end
`

package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Groups are names that entries share which change together (RFC 9875). Which entry is in which group is a part of every
// commit. In Redis, a tab separates what has no tab in it:
//
//	groups       sorted set of "group TAB key", all with score 0, so that the members of a group are a range
//	memberships  hash: key to its groups, each followed by a tab
//	marks        sorted set: group to the ticket at which it changed last
//	walks        hash: group to "ticket since next wrapped cursor stop job", of groups whose members are still to be made pending
//
// A change of a group leaves a mark, and in the same step lists the members. What joins later, with a ticket from before
// the mark, is pending at once:
//
//	A: claims k, ticket 6; asks the application, which answers version 1, not yet in group g; or already in it
//	B: changes what all of g show; marks g with ticket 7; k is not a member, and is not listed
//	A: commits k into g with ticket 6: below the mark, so k is pending
//
// Marks are kept as long as commits with a lower ticket are accepted. If there are too many, the oldest go, and "unmarked"
// in meta, the highest ticket of those, counts for all groups.

// GroupsAtOnce is how many groups a caller marks in one step at most: Redis does nothing else meanwhile.
const GroupsAtOnce = 200

// maxMarks is how many groups have a mark of their own.
const maxMarks = 10_000

// jobOf returns a job as it is in Redis.
func jobOf(id string) string {
	if id == "" {
		return "-"
	}
	return id
}

func joinGroups(groups []string) string {
	if len(groups) == 0 {
		return ""
	}
	return strings.Join(groups, "\t") + "\t"
}

func splitGroups(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(joined, "\t"), "\t")
}

// markScript notes that groups have changed, and returns their members. Members beyond the limit are walked.
//
//	KEYS[2] groups   KEYS[3] marks   KEYS[4] walks   KEYS[5] log
//	ARGV[4] life of a tombstone in µs   ARGV[5] how many marks at most   ARGV[6] length of the log   ARGV[7…] for each change: how many members of
//	its groups together to return at most, how many groups, the job that changed them or '-', the groups
//	returns {incarnation, ticket of the mark, last id of the log, then for each group a list of keys}
//
// A walk that is under way goes on from where it is, around and up to there, with the new ticket: a group that changes
// all the time has all its members rendered, not the first ones again and again. since is when it changed first of the
// changes that not all members have been made pending for, and next when it changed first since the walk was last at the
// beginning, '-' if it has not; at the end of the members, what needed to come up to there has come:
//
//	change 1, since 1; the walk begins, and is at member 10 of 30
//	change 2, next 2; change 3
//	the walk is at the end: members 11 to 30 have seen change 1, so all have; since 2, which 1 to 10 have not seen
//
// With one change after the other since is of the time around before: an age that is too high by less than that.
const markScript = `
local groups, marks, walks = KEYS[2], KEYS[3], KEYS[4]
local life, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local mark = tick()
local there = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
local reply = {incarnation, mark, there and there[1] or '0-0'}
local function change(group, limit, job)
  redis.call('ZADD', marks, mark, group)
  local members = redis.call('ZRANGEBYLEX', groups, '[' .. group .. '\t', '(' .. group .. '\n', 'LIMIT', 0, limit + 1)
  local keys = {}
  for i = 1, math.min(limit, #members) do keys[i] = string.sub(members[i], #group + 2) end
  if #members > limit then
    local walk = redis.call('HGET', walks, group) or ''
    local since, next, cursor = string.match(walk, '^%d+ (%d+) (%S+) %d (%S+)')
    local at = string.format('%.0f', now)
    if since then
      if next == '-' then next = at end
      redis.call('HSET', walks, group, mark .. ' ' .. since .. ' ' .. next .. ' 0 ' .. cursor .. ' ' .. cursor .. ' ' .. job)
    else
      redis.call('HSET', walks, group, mark .. ' ' .. at .. ' - 0 ' .. (keys[#keys] or '-') .. ' - ' .. job)
    end
  end
  reply[#reply + 1] = keys
  reply[3] = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'prev', reply[3], 'group', group, 'ticket', mark, 'op', 'group')
  return #keys
end
local a = 7
while a <= #ARGV do
  local room, count, job = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), ARGV[a + 2]
  for i = a + 3, a + 2 + count do room = room - change(ARGV[i], room, job) end
  a = a + 3 + count
end
redis.call('ZREMRANGEBYSCORE', marks, '-inf', '(' .. fixed(math.max(0, last - life, now - life)))
local excess = redis.call('ZCARD', marks) - most
if excess > 0 then
  local oldest = redis.call('ZRANGE', marks, excess - 1, excess - 1, 'WITHSCORES')
  redis.call('HSET', meta, 'unmarked', fixed(tonumber(oldest[2])))
  redis.call('ZREMRANGEBYRANK', marks, 0, excess - 1)
end
return reply
`

// walkScript reads the next members of one of the groups that are walked.
//
//	KEYS[2] walks   KEYS[3] groups   KEYS[4] pending
//	ARGV[4] how many members at most   ARGV[5] how many keys may be due already
//	returns {} if there is nothing to do now, else {incarnation, group, its walk, its walk after this step or '' if it ends
//	then, ticket of the walk, its job or '-', keys…}
const walkScript = `
if redis.call('ZCOUNT', KEYS[4], '-inf', fixed(now)) >= tonumber(ARGV[5]) then return {} end
local group = redis.call('HRANDFIELD', KEYS[2])
if not group then return {} end
local walk = redis.call('HGET', KEYS[2], group)
local ticket, since, next, wrapped, cursor, stop, job = string.match(walk, '^(%d+) (%d+) (%S+) (%d) (%S+) (%S+) (%S+)$')
if not ticket then return {incarnation, group, walk, '', '', '-'} end
local from, to = '[' .. group .. '\t', '(' .. group .. '\n'
if cursor ~= '-' then from = '(' .. group .. '\t' .. cursor end
if wrapped == '1' then to = '[' .. group .. '\t' .. stop end
local members = redis.call('ZRANGEBYLEX', KEYS[3], from, to, 'LIMIT', 0, ARGV[4])
local reply = {incarnation, group, walk, '', ticket, job}
for _, member in ipairs(members) do reply[#reply + 1] = string.sub(member, #group + 2) end
if #members == tonumber(ARGV[4]) then
  reply[4] = ticket .. ' ' .. since .. ' ' .. next .. ' ' .. wrapped .. ' ' .. reply[#reply] .. ' ' .. stop .. ' ' .. job
elseif wrapped == '0' and stop ~= '-' then
  if next ~= '-' then since = next end
  reply[4] = ticket .. ' ' .. since .. ' - 1 - ' .. stop .. ' ' .. job
end
return reply
`

// advanceScript takes a walk a step further, unless it has changed.
//
//	KEYS[2] walks   ARGV[4] group   ARGV[5] its walk as it was   ARGV[6] its walk now, or '' if it has ended
//	returns 1, or 0 if it has changed
const advanceScript = `
if redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return 0 end
if ARGV[6] == '' then redis.call('HDEL', KEYS[2], ARGV[4]) else redis.call('HSET', KEYS[2], ARGV[4], ARGV[6]) end
return 1
`

// A change is groups that have changed, and how many members of each the caller renders itself.
type change struct {
	groups []string
	limit  int
	job    string
}

// text tells changes apart that need different answers.
func (c change) text() string { return strconv.Itoa(c.limit) + "\n" + joinGroups(c.groups) }

// A Member is a key and a group that it is in.
type Member struct{ Key, Group string }

// GroupWhy returns what a Cause says of a key that is rendered because its group has changed.
func GroupWhy(group string) string { return "group " + group }

// Marked is what a change of groups has found.
type Marked struct {
	Position          // of the change: a render with a higher ticket has seen it
	Members  []Member // up to the limit; each key once, in order
}

// Mark notes that groups have changed. It returns up to limit members of them; those beyond are made pending little by
// little, by whoever calls Walk. There are at most GroupsAtOnce groups. Doing it twice has them rendered twice. job is the id of the job that changed them, if any.
func (p *Partition) Mark(ctx context.Context, groups []string, limit int, job string) (Marked, error) {
	return p.marks.Do(ctx, change{groups, limit, job})
}

// sendMarks marks each group once, however many have changed it.
func (p *Partition) sendMarks(changes []change) ([]Marked, error) {
	ctx, cancel := p.background()
	defer cancel()
	at := make(map[string]int) // the index of the first list of a change in the reply
	next := 3
	args := []any{p.store.config.TombstoneLife.Microseconds(), maxMarks, p.store.config.LogLength}
	for _, c := range changes {
		if _, ok := at[c.text()]; ok {
			continue
		}
		at[c.text()] = next
		next += len(c.groups)
		args = append(args, c.limit, len(c.groups), jobOf(c.job))
		for _, group := range c.groups {
			args = append(args, group)
		}
	}
	keys := []string{p.names.groups, p.names.marks, p.names.walks, p.names.log}
	reply, err := p.run(ctx, p.store.scripts.mark, keys, args...)
	if err != nil {
		return nil, err
	}
	if len(reply) != next {
		return nil, fmt.Errorf("mark script: %d values, not %d", len(reply), next)
	}
	for _, c := range changes {
		p.memory.write(text(reply[0]), text(reply[2]), written{groups: c.groups})
	}
	p.learn(text(reply[0]), text(reply[1]))
	marked := make([]Marked, len(changes))
	for i, c := range changes {
		marked[i].Position = Position{text(reply[0]), text(reply[1])}
		for j, group := range c.groups {
			keys, _ := reply[at[c.text()]+j].([]any)
			for _, key := range keys {
				marked[i].Members = append(marked[i].Members, Member{text(key), group})
			}
		}
		slices.SortStableFunc(marked[i].Members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
		marked[i].Members = slices.CompactFunc(marked[i].Members, func(a, b Member) bool { return a.Key == b.Key })
	}
	return marked, nil
}

// Walk makes up to n members of a group that has changed pending, if fewer than backlog keys are due. It reports
// whether there was anything to do. Several processes may walk at once.
func (p *Partition) Walk(ctx context.Context, n, backlog int) (bool, error) {
	timed, cancel := context.WithTimeout(ctx, p.store.config.Timeout)
	defer cancel()
	reply, err := p.run(timed, p.store.scripts.walk, []string{p.names.walks, p.names.groups, p.names.pending}, n, backlog)
	if err != nil || len(reply) < 6 {
		return false, err
	}
	operations := make([]Operation, 0, len(reply)-6)
	position := Position{text(reply[0]), text(reply[4])}
	cause := Cause{parseCause(text(reply[5])).Job, GroupWhy(text(reply[1]))}
	for _, key := range reply[6:] {
		operations = append(operations, Operation{Kind: OpPend, Key: text(key), Position: position, Cause: cause})
	}
	if len(operations) > 0 {
		commit, err := p.Commit(ctx, operations)
		if err != nil || slices.Contains(commit.Outcomes, Full) {
			return false, err
		}
	}
	// Only now: a process that dies before has the step done again.
	_, err = p.run(timed, p.store.scripts.advance, []string{p.names.walks}, reply[1], reply[2], reply[3])
	return err == nil, err
}

// Groups returns the groups that a key is in.
func (p *Partition) Groups(ctx context.Context, key string) ([]string, error) {
	joined, err := p.store.config.Client.HGet(ctx, p.names.memberships, key).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return splitGroups(joined), err
}

// Members returns up to n keys of a group that follow after in byte order.
func (p *Partition) Members(ctx context.Context, group, after string, n int64) ([]string, error) {
	from := "[" + group + "\t"
	if after != "" {
		from = "(" + group + "\t" + after
	}
	members, err := p.store.config.Client.ZRangeByLex(ctx, p.names.groups, &redis.ZRangeBy{Min: from, Max: "(" + group + "\n", Count: n}).Result()
	for i, member := range members {
		members[i] = member[len(group)+1:]
	}
	return members, err
}

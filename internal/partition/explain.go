package partition

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// explainScript reads everything there is about keys, in one atomic step.
//
//	KEYS[2] index   KEYS[3] pending   KEYS[4] running   KEYS[5] claims   KEYS[6] failing   KEYS[7] wanted
//	KEYS[8] memberships   KEYS[9] groups   KEYS[10] walks   KEYS[11…] entries
//	ARGV[4…] the keys of the entries
//	returns {filled "1" or "0", now in µs, incarnation or '', the last ticket, then for each entry: its value or false, 1 if the index knows
//	its key, its groups, when it is due, since when and why it is wanted, the end of the lease of its claim, that claim, its
//	last failure, each '' where there is none; how many of its groups list it, and how many of them are walked}
const explainScript = `
local t = redis.call('TIME')
local filled = '0'
if incarnation and m[5] == incarnation and not m[7] then filled = '1' end
local reply = {filled, t[1] .. string.sub('00000' .. t[2], -6), incarnation or '', m[4] or '0'}
for i = 11, #KEYS do
  local key = ARGV[i - 7]
  local value = redis.pcall('GET', KEYS[i])
  if type(value) ~= 'string' then value = false end
  local memberships, listed, walked = redis.call('HGET', KEYS[8], key) or '', 0, 0
  for group in string.gmatch(memberships, '([^\t]*)\t') do
    if redis.call('ZSCORE', KEYS[9], group .. '\t' .. key) then listed = listed + 1 end
    walked = walked + redis.call('HEXISTS', KEYS[10], group)
  end
  for _, part in ipairs({
    value, redis.call('ZSCORE', KEYS[2], key) and 1 or 0, memberships,
    redis.call('ZSCORE', KEYS[3], key) or '', redis.call('HGET', KEYS[7], key) or '',
    redis.call('ZSCORE', KEYS[4], key) or '', redis.call('HGET', KEYS[5], key) or '', redis.call('HGET', KEYS[6], key) or '',
    listed, walked,
  }) do reply[#reply + 1] = part end
end
return reply
`

// A Status is everything there is about a key. Times are in µs of Redis's clock.
type Status struct {
	Found
	Incarnation string
	Now         int64
	Clock       int64 // the last ticket, which may be ahead of Now where Redis's clock was put back
	Indexed     bool  // the index has the key, whether there is an entry or not
	Groups      []string
	Listed      int // how many of its groups have it among their members: all, unless somebody has interfered
	Walked      int // how many of its groups have changed and have members that are not pending yet

	Pending bool
	Due     int64 // when it is rendered at the earliest
	Since   int64 // when it became pending
	Cause   Cause // of its being pending

	Running bool
	Claim   Due
	Until   int64 // the end of the lease

	Failures int // in a row, up to the last render
	FailedAt int64
	Error    string
}

// Idle reports whether no render of the key is under way or to come.
func (s *Status) Idle() bool { return !s.Pending && !s.Running && s.Walked == 0 }

// Explain returns everything there is about a key.
func (p *Partition) Explain(ctx context.Context, key string) (Status, error) {
	return p.explains.Do(ctx, key)
}

func (p *Partition) sendExplains(keys []string) ([]Status, error) {
	ctx, cancel := p.background()
	defer cancel()
	names := []string{
		p.names.index, p.names.pending, p.names.running, p.names.claims, p.names.failing, p.names.wanted, p.names.memberships,
		p.names.groups, p.names.walks,
	}
	args := make([]any, len(keys))
	for i, key := range keys {
		names = append(names, p.entry(key))
		args[i] = key
	}
	reply, err := p.run(ctx, p.store.scripts.explain, names, args...)
	if err != nil {
		return nil, err
	}
	const parts = 10
	if len(reply) != 4+parts*len(keys) {
		return nil, fmt.Errorf("explain script: %d values for %d keys", len(reply), len(keys))
	}
	all := make([]Status, len(keys))
	for i, key := range keys {
		all[i] = statusOf(key, text(reply[2]), reply[4+parts*i:][:parts])
		all[i].Filled = text(reply[0]) == "1"
		all[i].Now, all[i].Incarnation, all[i].Clock = Microseconds(text(reply[1])), text(reply[2]), Microseconds(text(reply[3]))
	}
	return all, nil
}

var (
	wantedForm  = regexp.MustCompile(`^(\d+) (.*)$`)
	claimForm   = regexp.MustCompile(`^(\d{20}) \S+ ?(.*)$`)
	failureForm = regexp.MustCompile(`(?s)^(\d{20}) (\d+) (.*)$`)
)

func statusOf(key, incarnation string, parts []any) (s Status) {
	s.Value, s.Exists = parts[0].(string)
	s.Indexed = parts[1] == int64(1)
	s.Lost = !s.Exists && s.Indexed
	s.Groups = splitGroups(text(parts[2]))
	listed, _ := parts[8].(int64)
	walked, _ := parts[9].(int64)
	s.Listed, s.Walked = int(listed), int(walked)
	if due := text(parts[3]); due != "" {
		s.Pending, s.Due = true, Microseconds(due)
	}
	if wanted := wantedForm.FindStringSubmatch(text(parts[4])); wanted != nil && s.Pending {
		s.Since, s.Cause = Microseconds(wanted[1]), parseCause(wanted[2])
	}
	if claim := claimForm.FindStringSubmatch(text(parts[6])); claim != nil {
		s.Running, s.Until = true, Microseconds(text(parts[5]))
		s.Claim = Due{key, Position{incarnation, claim[1]}, parseCause(claim[2])}
	}
	if failure := failureForm.FindStringSubmatch(text(parts[7])); failure != nil {
		s.FailedAt, s.Error = Microseconds(failure[1]), failure[3]
		s.Failures, _ = strconv.Atoi(failure[2])
	}
	return s
}

// Microseconds reads a time, which Redis may have written as a floating-point number.
func Microseconds(text string) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(text, 64)
	return int64(f)
}

// backlogScript counts what is to be rendered.
//
//	KEYS[2] pending   KEYS[3] running   KEYS[4] failing   KEYS[5] walks
//	returns {pending keys, those that are due, for how long the first of them has been due in µs, running, failing, walks,
//	for how long the oldest walk has gone on in µs, of a thousand if they are more}
const backlogScript = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local overdue, oldest = 0, now
if first[2] then overdue = math.max(0, now - tonumber(first[2])) end
if redis.call('HLEN', KEYS[5]) > 0 then
  local walks = redis.call('HRANDFIELD', KEYS[5], 1000, 'WITHVALUES')
  for i = 2, #walks, 2 do oldest = math.min(oldest, tonumber(string.match(walks[i], '^%d+ (%d+)') or now)) end
end
return {redis.call('ZCARD', KEYS[2]), redis.call('ZCOUNT', KEYS[2], '-inf', string.format('%.0f', now)), overdue,
  redis.call('ZCARD', KEYS[3]), redis.call('HLEN', KEYS[4]), redis.call('HLEN', KEYS[5]), now - oldest}
`

// A Backlog is what is to be rendered in a partition. Times are in µs.
type Backlog struct {
	Pending, Due, Overdue, Running, Failing, Walks, WalkAge int64
}

// Backlog counts what is to be rendered.
func (p *Partition) Backlog(ctx context.Context) (b Backlog, err error) {
	names := []string{p.names.pending, p.names.running, p.names.failing, p.names.walks}
	reply, err := p.run(ctx, p.store.scripts.backlog, names)
	if err != nil {
		return b, err
	}
	counts := []*int64{&b.Pending, &b.Due, &b.Overdue, &b.Running, &b.Failing, &b.Walks, &b.WalkAge}
	if len(reply) != len(counts) {
		return b, fmt.Errorf("backlog script: %d values", len(reply))
	}
	for i, count := range counts {
		*count, _ = reply[i].(int64)
	}
	return b, nil
}

// A Failure is a key whose last render failed.
type Failure struct {
	Key      string
	Failures int
	FailedAt int64
	Error    string
}

// Failing returns some of the keys whose last render failed, and where to go on; 0 is the beginning and the end. Some may
// come twice.
func (p *Partition) Failing(ctx context.Context, cursor uint64, n int64) ([]Failure, uint64, error) {
	fields, next, err := p.store.config.Client.HScan(ctx, p.names.failing, cursor, "", n).Result()
	if err != nil {
		return nil, 0, err
	}
	var failures []Failure
	for i := 0; i+1 < len(fields); i += 2 {
		if form := failureForm.FindStringSubmatch(fields[i+1]); form != nil {
			count, _ := strconv.Atoi(form[2])
			failures = append(failures, Failure{fields[i], count, Microseconds(form[1]), form[3]})
		}
	}
	return failures, next, nil
}

// Unsure returns since which ticket the partition is marked as unsure, "" if it is not.
func (p *Partition) Unsure(ctx context.Context) (string, error) {
	since, err := p.store.config.Client.HGet(ctx, p.names.meta, "unsure").Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return since, err
}

// sureScript ends the doubt about a partition.
//
//	ARGV[4] since when it is unsure; if that has changed, nothing happens
//	returns 1, or 0 if nothing happened
//
// Processes that were away all the time may still know records that were lost: from now on that is no news.
const sureScript = `
if m[7] ~= ARGV[4] then return 0 end
local t = redis.call('TIME')
redis.call('HSET', meta, 'settled', string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)) .. '-0')
return redis.call('HDEL', meta, 'unsure')
`

// Sure says that nothing of what was lost up to the doubt is missing any more.
func (p *Partition) Sure(ctx context.Context, since string) error {
	_, err := p.run(ctx, p.store.scripts.sure, nil, since)
	return err
}

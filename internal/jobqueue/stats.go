package jobqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Stats say how the queue is.
type Stats struct {
	Jobs, Running, Held     int64 // in the queue; of these in the hands of workers; of these decided
	Parked                  int64 // of Jobs: wait for their turn
	Oldest                  time.Duration
	Dead                    int64
	Workers, Alive, Slots   int64 // known; alive, and their slots
	Servers                 int64 // alive
	Tracked, Kept           int64 // jobs whose replies are or will be kept; the bytes of requests and replies
	Enqueued, Finished      int64 // ever, as all that follow
	TakenOver               int64
	Withdrawn, Expired      int64
	Died, Drift             int64 // became dead letters; of these may have been carried out
	EnqueueRate, FinishRate float64
}

// ReadStats reads how the queue is. Rates are per second, over about the latest ten seconds.
func ReadStats(ctx context.Context, client redis.UniversalClient, prefix string) (Stats, error) {
	k := newKeys(prefix)
	keys := []string{k.jobs, k.held, k.dead, k.workers, k.servers, k.lives, k.statistics, k.samples}
	reply, err := run(ctx, client, readStats, keys, []any{serverLife.Microseconds(), rateSpan.Microseconds()})
	if err != nil {
		return Stats{}, err
	}
	if err := expect(reply, 23, "stats"); err != nil {
		return Stats{}, err
	}
	var n [23]int64
	for i := range reply {
		n[i] = number(reply[i])
	}
	s := Stats{
		Jobs: n[0], Running: n[1], Held: n[2], Oldest: time.Duration(n[3]) * time.Microsecond, Dead: n[4], Workers: n[5], Alive: n[6],
		Slots: n[7], Servers: n[8], Tracked: n[9], Kept: n[10], Enqueued: n[11], Finished: n[12], TakenOver: n[13], Withdrawn: n[14],
		Expired: n[15], Died: n[16], Drift: n[17], Parked: n[18],
	}
	s.Jobs += s.Parked
	if span := float64(n[19]-n[20]) / 1e6; n[20] > 0 && span > 0 {
		s.EnqueueRate, s.FinishRate = max(0, float64(s.Enqueued-n[21])/span), max(0, float64(s.Finished-n[22])/span)
	}
	if s.Running < 0 || s.Jobs < 0 {
		return Stats{}, fmt.Errorf("stats script: %v", n)
	}
	return s, nil
}

const (
	// presence is how often a server says that it lives, and serverLife how long it is taken to live without that.
	presence   = 2 * time.Second
	serverLife = 3 * presence

	// rateSpan is how far back the rates go, if there are workers that take samples.
	rateSpan = 10 * time.Second
)

// readStats reads how the queue is.
//
//	KEYS[1] jobs   KEYS[2] held   KEYS[3] dead   KEYS[4] workers   KEYS[5] servers   KEYS[6] lives   KEYS[7] statistics
//	KEYS[8] samples   ARGV[1] how long a server lives without a word, ARGV[2] how far back the rates go, in µs
//	returns jobs, running, held, age of the oldest in µs, dead letters, workers known, workers alive, their slots, servers alive,
//	tracked jobs, their bytes; ever: enqueued, finished, taken over, withdrawn, expired, died, drift; how many wait for their
//	turn besides; now; and time, enqueued and
//	finished of the oldest sample that is not older than asked for, or of the newest one that is a second old; time is 0 if there
//	is none
var readStats = redis.NewScript(prelude + clock + liveliness + `
local jobs = redis.call('XLEN', KEYS[1])
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local age = first and math.max(0, now - tonumber(string.match(first[1], '^%d+')) * 1000) or 0
local alive, slots = live(redis.call('HVALS', KEYS[4]), false)
local reply = {
  jobs, list(redis.pcall('XPENDING', KEYS[1], group))[1] or 0, redis.call('HLEN', KEYS[2]), string.format('%.0f', age),
  redis.call('XLEN', KEYS[3]), redis.call('HLEN', KEYS[4]), alive, slots,
  redis.call('ZCOUNT', KEYS[5], string.format('%.0f', now - tonumber(ARGV[1])), '+inf'), redis.call('ZCARD', KEYS[6])}
local names = {'kept', 'enqueued', 'finished', 'taken over', 'withdrawn', 'expired', 'dead', 'drift', 'parked'}
for _, count in ipairs(redis.call('HMGET', KEYS[7], unpack(names))) do reply[#reply + 1] = count or '0' end
reply[#reply + 1] = time
local sample
for _, one in ipairs(redis.call('LRANGE', KEYS[8], 0, -1)) do
  local since = now - tonumber(string.match(one, '^%d+'))
  if since >= 1000000 then -- of less a rate is no rate
    if sample and since > tonumber(ARGV[2]) then break end
    sample = one
  end
end
for count in string.gmatch(sample or '0 0 0', '%d+') do reply[#reply + 1] = count end
return reply
`)

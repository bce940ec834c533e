package blackbox_test

import (
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

const (
	// killPace is the time from one kill of a worker or server to the next.
	killPace = 300 * time.Millisecond
	// networkPace is the time from one thing that happens to the connections to the next.
	networkPace = 200 * time.Millisecond
	// longestOutage is how long Redis is away at most, besides the time of its start.
	longestOutage = 500 * time.Millisecond
	// longestDelay is how long a piece of data is on its way at most, on a slow line.
	longestDelay = 20 * time.Millisecond
)

// Workers are killed all the time. Others finish what they have begun: what may be repeated is, and of what may not be the
// client is told that nobody knows, and a dead letter is kept.
func TestWorkersAreKilledAllTheTime(t *testing.T) {
	t.Parallel()
	c := newCampaign(t, singleStore(redistest.Start(t).Client(t)), 2, 4, "-lease", "500ms", "-deadline", "10s")
	c.run(t, killPace, 5, func() { c.workers.strike(t, c.random) })
	c.concludes(t)
}

// Servers are killed all the time. Their clients know nothing of the requests that were under way; those are carried out at
// most once, and the replies that nobody fetches do not stay.
func TestServersAreKilledAllTheTime(t *testing.T) {
	t.Parallel()
	c := newCampaign(t, singleStore(redistest.Start(t).Client(t)), 4, 2, "-deadline", "10s")
	c.serversDie = true
	c.run(t, killPace, 5, func() { c.servers.strike(t, c.random) })
	c.concludes(t).areNone(t)
}

// Redis, which keeps what it has acknowledged, is killed again and again. Its clients are told so, no process is restarted,
// and no job is given up for it.
func TestRedisIsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.AppendOnly(), redistest.Directive("appendfsync", "always"))
	c := newCampaign(t, singleStore(server.Client(t)), 2, 3, "-deadline", "10s")
	c.run(t, *redisLife, 3, func() {
		server.Kill()
		<-time.After(time.Duration(c.random.Int64N(int64(longestOutage))))
		server.Restart()
	})
	c.concludes(t).areNone(t)
}

// Connections to Redis break, stall, are slow, and lose answers, so that calls are sent again of which nobody knows whether
// they were carried out.
func TestConnectionsToRedisAreBad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	at := singleStore(server.Client(t))
	at.flags = []string{"-redis", "redis://" + proxy.Addr()}
	c := newCampaign(t, at, 2, 3, "-deadline", "10s")
	happened := map[string]int{}
	c.run(t, networkPace, 15, func() { happened[c.harass(proxy)]++ })
	proxy.SetDelay(0)
	t.Logf("what happened to the connections: %v", happened)
	c.concludes(t).areNone(t)
}

// harass does something to the connections through a proxy, and says what.
func (c *campaign) harass(proxy *redistest.Proxy) string {
	pause := time.Duration(c.random.Int64N(int64(longestOutage / 2)))
	switch c.random.IntN(4) {
	case 0:
		proxy.Cut()
		<-time.After(pause)
		proxy.Restore()
		return "cut"
	case 1:
		proxy.Hang()
		<-time.After(pause)
		proxy.Restore()
		return "held up"
	case 2:
		proxy.SetDelay(time.Duration(c.random.Int64N(int64(longestDelay))))
		return "slow"
	default:
		proxy.SetDelay(0)
		proxy.DropReplyOnce()
		return "an answer was lost"
	}
}

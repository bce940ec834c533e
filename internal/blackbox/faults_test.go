package blackbox_test

import (
	"math/rand/v2"
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
	// Handlers take a while after their change of the database, so that many workers die between the two.
	c := newCampaign(t, singleStore(redistest.Start(t).Client(t)), 2, 4, "-lease", "500ms", "-deadline", "10s", "-work-delay", "20ms")
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
	n := &network{proxy: proxy, random: c.random, happened: map[string]int{}}
	c.run(t, networkPace, 15, n.strike)
	n.mend(t)
	c.concludes(t).areNone(t)
}

// network is what happens to the connections through a proxy.
type network struct {
	proxy    *redistest.Proxy
	random   *rand.Rand
	happened map[string]int
	armed    <-chan struct{} // closed when an answer was lost
	text     string          // in the call whose answer it is
}

// calls are texts in calls that must not be carried out twice: jobs that are enqueued, fetched, and settled, and what is claimed
// and committed.
var calls = []string{writeField, "xreadgroup", "HTTP/1.1 2", "e:/"}

// strike does one thing to the connections.
func (n *network) strike() {
	n.settle()
	pause := time.Duration(n.random.Int64N(int64(longestOutage / 2)))
	switch n.random.IntN(6) {
	case 0:
		n.happened["cut"]++
		n.proxy.Cut()
		<-time.After(pause)
		n.proxy.Restore()
	case 1:
		n.happened["held up"]++
		n.proxy.Hang()
		<-time.After(pause)
		n.proxy.Restore()
	case 2:
		n.happened["slow"]++
		n.proxy.SetDelay(time.Duration(n.random.Int64N(int64(longestDelay))))
	default:
		n.proxy.SetDelay(0)
		n.text = calls[n.random.IntN(len(calls))]
		n.armed = n.proxy.DropReplyOnce(n.text)
	}
}

// settle counts an answer that was lost since the last strike.
func (n *network) settle() {
	select {
	case <-n.armed:
		n.happened["an answer lost to "+n.text]++
		n.armed = nil
	default:
	}
}

// mend ends what disturbs the connections, and tells what has.
func (n *network) mend(t *testing.T) {
	t.Helper()
	n.settle()
	n.proxy.SetDelay(0)
	t.Logf("what happened to the connections: %v", n.happened)
}

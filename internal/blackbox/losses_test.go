package blackbox_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

const (
	// leastLost is how many records of the change log are lost at least, so that some process knew of them, and mostUnsynced
	// how long writes are lost after that.
	leastLost    = 20
	mostUnsynced = time.Second
	// recentRecords is how many records of the change log are looked for after a loss; more than are written in a second.
	recentRecords = 10_000
	// sentinelName is what the Sentinel calls the primary that it watches.
	sentinelName = "tracks"
)

// A Redis that syncs once in a second crashes again and again, and each time loses what it has acknowledged in that second.
// No client is told that a write was carried out that was not, or the other way round; the cache knows that it has lost
// something, and has it again at the latest after a verify.
func TestRedisLosesWritesInCrashes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.EverySecond())
	c := newCampaign(t, singleStore(server.Client(t)), 2, 3, "-deadline", "3s")
	c.loses = true
	c.run(t, *redisLife, 3, func() {
		synced := server.Checkpoint()
		records := c.writtenBehind(t, c.site.client, c.site.client)
		if records == nil {
			return
		}
		server.Crash(synced)
		server.Restart()
		c.countLost(t, c.site.client, records)
	})
	c.concludes(t).areNone(t)
}

// A primary goes while its replica is behind, and a Sentinel puts the replica in its place: the same as in a crash.
func TestRedisLosesWritesInAFailover(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	proxy := redistest.StartProxy(t, primary.Addr())
	replica := redistest.StartReplica(t, proxy.Addr())
	sentinel := redistest.StartSentinel(t, sentinelName, primary.Addr())
	at := singleStore(redistest.FailoverClient(t, sentinelName, sentinel.Addr()))
	at.flags = []string{"-redis-sentinel", sentinel.Addr(), "-redis-master", sentinelName}
	c := newCampaign(t, at, 2, 3, "-deadline", "3s")
	c.loses = true
	before, after := primary.Client(t), replica.Client(t)
	failedOver := false
	c.run(t, *redisLife, 2, func() {
		if failedOver {
			return
		}
		failedOver = true
		proxy.Hang()
		records := c.writtenBehind(t, before, after)
		primary.Kill()
		await.Within(t, patience, "the replica is the primary", func() bool {
			role, err := after.Do(t.Context(), "ROLE").Slice()
			return err == nil && role[0] == "master"
		})
		c.countLost(t, after, records)
	})
	if !failedOver {
		t.Fatal("there was no failover")
	}
	c.concludes(t).areNone(t)
}

// writtenBehind waits until one Redis has further records of the change log than the other has now, and for a random time.
// It returns the newest ones; none where the clients have ended, so that nothing is written any more.
func (c *campaign) writtenBehind(t *testing.T, one, other redis.UniversalClient) map[string]bool {
	t.Helper()
	before := c.records(t, other)
	await.Within(t, patience, "something is written that can be lost", func() bool {
		further := 0
		for id := range c.records(t, one) {
			if !before[id] {
				further++
			}
		}
		return further >= leastLost || c.isOver()
	})
	if c.isOver() {
		return nil
	}
	<-time.After(time.Duration(c.random.Int64N(int64(mostUnsynced))))
	return c.records(t, one)
}

// records returns the ids of the newest records of the change log.
func (c *campaign) records(t *testing.T, client redis.UniversalClient) map[string]bool {
	t.Helper()
	records, err := client.XRevRangeN(t.Context(), c.site.redisKey("", "log"), "+", "-", recentRecords).Result()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, record := range records {
		ids[record.ID] = true
	}
	return ids
}

// countLost counts which records are there no more.
func (c *campaign) countLost(t *testing.T, client redis.UniversalClient, records map[string]bool) {
	t.Helper()
	there := c.records(t, client)
	lost := 0
	for id := range records {
		if !there[id] {
			lost++
		}
	}
	if lost < leastLost {
		t.Errorf("seed %d: Redis has lost %d records, want %d at least: this is no loss", c.seed, lost, leastLost)
	}
	c.lost += lost
	t.Logf("Redis has lost %d records of the change log", lost)
}

// knowsOfLosses expects the cache to know whether Redis has lost something: until somebody has looked at all of it, it takes
// no page for missing.
func (c *campaign) knowsOfLosses(t *testing.T) {
	t.Helper()
	unsure := c.site.client.HGet(t.Context(), c.site.redisKey("", "meta"), "unsure").Val() != ""
	if c.loses != unsure {
		t.Errorf("seed %d: Redis has lost %d records, and the cache is unsure: %v", c.seed, c.lost, unsure)
	}
	status, kind := http.StatusNotFound, "not-found"
	if unsure {
		status, kind = http.StatusServiceUnavailable, "cache-unsure"
	}
	for _, server := range c.site.servers {
		server.get(t, "/no-such-page").isProblem(t, status, kind)
	}
}

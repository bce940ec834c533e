package blackbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// settleTimeout is how long jobs and renders may take after the last fault: their deadline, leases, and repeated tries.
const settleTimeout = time.Minute

// repeatedText is what a server logs of a job whose caller it has answered before. Of these some were carried out once more.
const repeatedText = "a job is answered once more: Redis has lost that it had ended"

// campaignClients is how many clients write at once in a campaign.
var campaignClients = map[bool]int{false: 16, true: 8}[raceDetector]

// campaign is a number of clients that write through several servers while something is done to the processes, to Redis, or
// to the connections between them; and then the account of what has become of each write.
type campaign struct {
	site       *site
	account    *account
	figures    *figures
	seed       uint64
	random     *rand.Rand // of who does the damage
	servers    *crew
	workers    *crew
	front      func() *process // what a client sends its writes to; nil if it chooses among the servers
	serversDie bool            // so that a client may get no answer
	loses      bool            // Redis loses what it has acknowledged

	lost int // how many records of the change log Redis has lost

	left    atomic.Int64 // writes
	least   atomic.Int64 // strikes that are to come
	strikes int
	cancel  context.CancelCauseFunc
}

// newCampaign returns a campaign on a new site, which is filled.
func newCampaign(t *testing.T, at store, servers, workers int, flags ...string) *campaign {
	t.Helper()
	// Codings are nothing that a fault could harm, and make every render longer.
	s := newSite(t, at, slices.Concat([]string{"-codings", ""}, flags)...)
	s.troubled = true
	c := &campaign{site: s, account: newAccount(), figures: newFigures(), seed: rand.Uint64()}
	if *faultSeed != 0 {
		c.seed = *faultSeed
	}
	c.random = rand.New(rand.NewPCG(c.seed, 0))
	s.app = s.start(t, "app")
	c.workers = s.hire(t, "worker", workers)
	c.servers = s.hire(t, "server", servers)
	s.fill(t)
	for id, is := range contents(t, s.app) {
		c.account.tracks[id] = []state{is}
	}
	return c
}

// run has the clients write, and strikes once in every pace, until the writes are done and there were enough strikes.
func (c *campaign) run(t *testing.T, pace time.Duration, least int, strike func()) {
	t.Helper()
	c.left.Store(int64(*faultWrites))
	if testing.Short() {
		c.left.Store(int64(min(*faultWrites, shortWrites)))
	}
	c.least.Store(int64(least))
	t.Logf("%d writes by %d clients through %d servers and %d workers, a strike every %v, seed %d",
		c.left.Load(), campaignClients, len(c.servers.ready), len(c.workers.ready), pace, c.seed)
	ctx, cancel := context.WithCancelCause(t.Context())
	c.cancel = cancel
	timeout := time.AfterFunc(loadTimeout, func() { cancel(errors.New("the campaign takes too long")) })
	defer timeout.Stop()
	done := c.start(ctx)
	defer func() {
		cancel(nil)
		<-done
	}()
	c.figures.began = time.Now()
	for ticker := time.NewTicker(pace); ; {
		select {
		case <-done:
			ticker.Stop()
			c.figures.took = time.Since(c.figures.began)
			if err := context.Cause(ctx); err != nil {
				t.Errorf("seed %d: %v", c.seed, err)
			}
			return
		case <-ticker.C:
			strike()
			if err := errors.Join(c.servers.trouble(), c.workers.trouble()); err != nil {
				cancel(err)
			}
			c.strikes++
			c.least.Add(-1)
		}
	}
}

// start starts the clients. What it returns is closed when all have ended.
func (c *campaign) start(ctx context.Context) <-chan struct{} {
	var group sync.WaitGroup
	for number := range campaignClients {
		w := &writer{campaign: c, number: number, random: rand.New(rand.NewPCG(c.seed, uint64(number+1)))}
		if c.front != nil {
			w.server = c.front()
		}
		for id := range c.account.tracks {
			if id%int64(campaignClients) == int64(number) {
				w.own = append(w.own, id)
			}
		}
		slices.Sort(w.own)
		group.Go(func() { w.run(ctx) })
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	return done
}

// goesOn reports whether a further write is to be made.
func (c *campaign) goesOn() bool { return c.left.Add(-1) >= 0 || c.least.Load() > 0 }

// isOver reports whether no further write is made.
func (c *campaign) isOver() bool { return c.left.Load() <= 0 && c.least.Load() <= 0 }

// settle waits until every process is there and nothing is left to do.
func (c *campaign) settle(t *testing.T) {
	t.Helper()
	c.site.servers = c.servers.complete(t)
	c.site.workers = c.workers.complete(t)
	began := time.Now()
	c.site.becomesIdle(t, settleTimeout)
	t.Logf("settled after %v", time.Since(began).Round(time.Millisecond))
}

// report logs the figures.
func (c *campaign) report(t *testing.T) {
	t.Helper()
	var text strings.Builder
	text.WriteString(c.figures.table())
	fmt.Fprintf(&text, "\n%d strikes: %d workers killed, %d servers killed\n", c.strikes, c.workers.kills, c.servers.kills)
	for _, told := range slices.Sorted(maps.Keys(c.account.told)) {
		fmt.Fprintf(&text, "%s: %d, ", told, c.account.told[told])
	}
	fmt.Fprintf(&text, "\n%d carried out, %d refused, %d unknown", c.account.count(applied), c.account.count(refused), c.account.count(unknown))
	t.Log(text.String())
	if done, all := c.account.count(applied), len(c.account.deeds); 4*done < all {
		t.Errorf("of %d writes %d were carried out, which says little about what becomes of those", all, done)
	}
}

// isKept expects the application to hold what the answers said. Where Redis loses that a job has ended, it is in the queue
// again: then what was carried out may be carried out once more, and is counted.
func (c *campaign) isKept(t *testing.T) {
	t.Helper()
	found := c.account.compare(contents(t, c.site.app))
	wrong := map[string][]string{
		"a write is lost": found.lost, "a refused write was carried out": found.refused, "nobody's write": found.invented,
	}
	if c.loses {
		t.Logf("%d writes show that they were carried out again, as %q", len(found.again), found.again[:min(len(found.again), 3)])
		named := 0
		for _, server := range c.site.servers {
			named += strings.Count(server.stderr.String(), repeatedText)
		}
		t.Logf("servers name %d that may have been", named)
		if named < len(found.again) {
			wrong["carried out again, which no server names"] = found.again
		}
	} else {
		wrong["carried out again"] = found.again
	}
	for what, texts := range wrong {
		for _, text := range texts[:min(len(texts), 5)] {
			t.Errorf("seed %d: %s (one of %d): %s", c.seed, what, len(texts), text)
		}
	}
	t.Logf("%d creations that nobody knew of were carried out", found.happened)
}

// concludes has everything settle, and expects that every write was dealt with as its client was told, and that nothing is
// left of it but the page that it has changed, or a dead letter.
func (c *campaign) concludes(t *testing.T) letters {
	t.Helper()
	c.settle(t)
	c.report(t)
	c.isKept(t)
	dead := c.deadLetters(t)
	c.knowsOfLosses(t)
	c.isClean(t, dead)
	c.remains(t, len(dead))
	if !t.Failed() {
		c.site.isCurrent(t, c.pages(t))
	}
	return dead
}

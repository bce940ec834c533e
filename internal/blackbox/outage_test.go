package blackbox_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// outageAnswers is how many answers to readers and to writers are waited for in each phase.
const outageAnswers = 5

// Without Redis, readers and writers are told so within two seconds, and are served within two seconds of its return, by
// the same processes. What was refused is not carried out later, and what was accepted is not lost.
func TestAnOutageOfRedisIsToldAndThenOver(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		t.Parallel() // all of them wait for most of the time
		server := redistest.Start(t, redistest.AppendOnly())
		s := newSite(t, singleStore(server.Client(t)), "-deadline", "3s")
		s.outage(t, server.Kill, server.Restart)
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		proxy := redistest.StartProxy(t, server.Addr())
		at := singleStore(server.Client(t))
		at.flags = []string{"-redis", "redis://" + proxy.Addr()}
		s := newSite(t, at, "-deadline", "3s")
		s.outage(t, proxy.Hang, proxy.Restore)
	})
	t.Run("cluster frozen", func(t *testing.T) {
		if testing.Short() {
			t.Skip("Redis Cluster is left out with -short")
		}
		t.Parallel()
		cluster := redistest.StartCluster(t, 3)
		s := newSite(t, clusterStore(cluster.Client(t)), "-deadline", "3s")
		s.outage(t, func() {
			for _, node := range cluster.Nodes() {
				node.Pause()
			}
		}, func() {
			for _, node := range cluster.Nodes() {
				node.Resume()
			}
			if err := cluster.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// outage has Redis go away and come back under traffic.
func (s *site) outage(t *testing.T, away, back func()) {
	t.Helper()
	s.troubled = true
	s.serverFlags = []string{"-local-copy", "0"} // TestAWarmCopyOutlivesRedis is about those with one
	s.open(t, 1, 2)
	s.fill(t)
	f := s.newTraffic(t, s.servers[0])
	f.enter(working("before"))
	f.awaitBoth(t, patience, http.StatusOK, http.StatusCreated, outageAnswers)

	f.enter(anyhow("going away"))
	away()
	f.enter(anyhow("gone"))
	// What is sent in the very moment may have been carried out: a write is told so. From the first refusal on it is not.
	f.awaitBoth(t, patience, http.StatusServiceUnavailable, http.StatusServiceUnavailable, 1)
	refusing := []int{http.StatusServiceUnavailable}
	f.enter(phase{name: "away", get: refusing, post: refusing})
	f.awaitBoth(t, patience, http.StatusServiceUnavailable, http.StatusServiceUnavailable, outageAnswers)

	f.enter(anyhow("coming back"))
	back()
	f.enter(anyhow("just back"))
	f.awaitBoth(t, soon, http.StatusOK, http.StatusCreated, 1)
	f.enter(working("after"))
	f.awaitBoth(t, patience, http.StatusOK, http.StatusCreated, outageAnswers)
	f.stop(t)

	await.Within(t, patience, "the queue is empty", func() bool { return s.length(t, "jobs") == 0 })
	f.ledger.isKept(t, s.app)
	for _, p := range s.processes {
		if p.role != "fill" && !p.running() {
			t.Errorf("a %s has ended", p.role)
		}
	}
	total := read[trackList](t, s.app, "/tracks.json").Total
	s.isCurrent(t, someKeys(t, s.app, int64(total)))
}

// A cache that was never filled, or has lost everything, tells no reader that a page is missing: it says that it does not
// know, until it is filled. No process is restarted.
func TestOnlyAFilledCacheKnowsWhatIsMissing(t *testing.T) {
	flags := []string{"-lease", "1s", "-deadline", "5s"}
	t.Run("single", func(t *testing.T) { newSite(t, singleStore(redistest.Start(t).Client(t)), flags...).lose(t) })
	t.Run("cluster", func(t *testing.T) {
		if testing.Short() {
			t.Skip("Redis Cluster is left out with -short")
		}
		newSite(t, clusterStore(redistest.StartCluster(t, 3).Client(t)), flags...).lose(t)
	})
}

// lose has Redis lose everything under traffic.
func (s *site) lose(t *testing.T) {
	t.Helper()
	s.troubled = true
	s.open(t, 1, 2)
	f := s.newTraffic(t, s.servers[0])
	unfilled := phase{name: "not filled", get: []int{http.StatusServiceUnavailable}, post: []int{http.StatusCreated}}
	f.enter(unfilled)
	f.awaitBoth(t, patience, http.StatusServiceUnavailable, http.StatusCreated, outageAnswers)
	f.enter(anyhow("filling"))
	s.fill(t, "-render-delay", "1ms")
	f.enter(working("filled"))
	f.awaitBoth(t, patience, http.StatusOK, http.StatusCreated, outageAnswers)
	s.servers[0].get(t, "/no-such-page").isProblem(t, http.StatusNotFound, "not-found")

	f.enter(anyhow("flushing"))
	s.flush(t)
	f.enter(anyhow("flushed"))
	f.await(t, soon, http.MethodGet, http.StatusServiceUnavailable, outageAnswers)
	// The workers make the queue again by themselves, so writes work before anybody fills the cache.
	f.await(t, patience, http.MethodPost, http.StatusCreated, outageAnswers)
	// A server learns from each change log by itself that it is gone.
	await.Within(t, patience, "nothing is served from a copy any more", func() bool {
		return !slices.ContainsFunc(f.keys, func(key string) bool { return s.servers[0].get(t, key).status != http.StatusServiceUnavailable })
	})
	f.enter(unfilled)
	f.awaitBoth(t, patience, http.StatusServiceUnavailable, http.StatusCreated, outageAnswers)
	s.servers[0].get(t, "/no-such-page").isProblem(t, http.StatusServiceUnavailable, "not-filled")

	f.enter(anyhow("filling again"))
	s.fill(t)
	f.enter(working("filled again"))
	f.awaitBoth(t, patience, http.StatusOK, http.StatusCreated, outageAnswers)
	f.stop(t)
	s.servers[0].get(t, "/no-such-page").isProblem(t, http.StatusNotFound, "not-found")
	f.ledger.isKept(t, s.app)
	total := read[trackList](t, s.app, "/tracks.json").Total
	s.isCurrent(t, allKeys(t, s.app, int64(total)))
	s.isIdle(t)
}

// A process that needs Redis and finds none says so and ends; one that was told nonsense says that.
func TestAProcessThatCannotBeginEnds(t *testing.T) {
	for name, one := range map[string]struct {
		role   string
		flags  []string
		status int
	}{
		"a fill without Redis":       {"fill", []string{"-redis", "redis://127.0.0.1:1"}, 1},
		"a worker without Redis":     {"worker", []string{"-redis", "redis://127.0.0.1:1"}, 1},
		"an unknown role":            {"manager", nil, 2},
		"a server told of no Redis":  {"server", nil, 2},
		"a negative size of bodies":  {"app", []string{"-max-body", "-1"}, 2},
		"a list of Redis and a name": {"server", []string{"-redis", "redis://127.0.0.1:1", "-redis-cluster", "127.0.0.1:2"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, one.role, true, append(one.flags, "-listen", "127.0.0.1:0"))
			defer p.kill()
			select {
			case <-p.ended:
			case <-time.After(readyTimeout):
				t.Fatal("it does not end")
			}
			if got := p.command.ProcessState.ExitCode(); got != one.status {
				t.Errorf("exit status %d, want %d", got, one.status)
			}
			if p.stderr.String() == "" {
				t.Error("it does not say why")
			}
		})
	}
}

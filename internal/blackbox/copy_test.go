package blackbox_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

var (
	copyReaders = flag.Int("copy-readers", 8, "`number` of readers of a warm copy while Redis is away")
	copyOutage  = flag.Duration("copy-outage", 3*time.Second, "how long Redis is away from a server with a warm copy")
)

// copyMark is what a hit says while Redis is away.
const copyMark = "store-unreachable"

// A server that has everything in its memory goes on to serve it while Redis is away, and says so. When Redis is back, it
// says so until it shows what has changed in the meantime.
func TestAWarmCopyOutlivesRedis(t *testing.T) {
	redis := redistest.Start(t, redistest.AppendOnly())
	proxy := redistest.StartProxy(t, redis.Addr())
	s := newSite(t, singleStore(redis.Client(t)), "-deadline", "5s")
	s.troubled = true
	s.open(t, 1, 1)
	s.fill(t)
	warm := s.start(t, "server", "-warm", "-redis", "redis://"+proxy.Addr())
	keys := allKeys(t, s.app, seededTracks)
	readers := startCopyReaders(t, warm, keys)

	redis.Kill()
	readers.await(t, "hits are marked while Redis is away", func() bool { return readers.marked.Load() > 0 })
	away := time.Now()
	readers.await(t, "Redis was away for long enough", func() bool { return time.Since(away) > *copyOutage })
	warm.get(t, "/no-such-page").isProblem(t, http.StatusServiceUnavailable, "store-unreachable")
	redis.Restart()
	s.awaitUnmarked(t, warm)

	// Others go on while this server alone is cut off.
	proxy.Cut()
	changed := make(map[string]string)
	for id := int64(1); id <= 20; id++ {
		name := fmt.Sprintf("Changed %d", id)
		await.Within(t, patience, "writes are carried out again", func() bool {
			return s.servers[0].send(t, putJSON(id, map[string]string{"name": name})).status == http.StatusOK
		})
		changed[trackPath(id)+".json"] = name
	}
	readers.await(t, "hits are marked while the server is cut off", func() bool { return isMarked(warm.get(t, "/tracks.json")) })
	proxy.Restore()
	for key, name := range changed {
		var a *answer
		await.Within(t, patience, "hits are not marked any more", func() bool {
			a = warm.get(t, key)
			return !isMarked(a)
		})
		if !strings.Contains(a.body, `"`+name+`"`) {
			t.Errorf("GET %s is not marked any more and shows %s, want %q", key, a.body, name)
		}
	}
	readers.stop(t)
	s.isCurrent(t, keys)
	for _, p := range s.processes {
		if p.role != "fill" && !p.running() {
			t.Errorf("a %s has ended", p.role)
		}
	}
}

func isMarked(a *answer) bool { return strings.Contains(a.header.Get("Cache-Status"), copyMark) }

func (s *site) awaitUnmarked(t *testing.T, server *process) {
	t.Helper()
	await.Within(t, patience, "hits are not marked any more", func() bool { return !isMarked(server.get(t, "/tracks.json")) })
}

// copyReading is readers of pages of a warm server, each of which has to be a hit.
type copyReading struct {
	read, marked atomic.Int64
	failures     chan string
	ending       chan struct{}
	group        sync.WaitGroup
}

func startCopyReaders(t *testing.T, p *process, keys []string) *copyReading {
	r := &copyReading{failures: make(chan string, 1), ending: make(chan struct{})}
	for range *copyReaders {
		r.group.Go(func() {
			for {
				select {
				case <-r.ending:
					return
				default:
				}
				a, err := p.do(t.Context(), call{method: http.MethodGet, target: keys[rand.IntN(len(keys))]})
				switch {
				case err != nil:
					r.fail(err.Error())
					return
				case a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Cache-Status"), "scales; hit"):
					r.fail(fmt.Sprintf("%v: %d, Cache-Status %q", a.call, a.status, a.header.Get("Cache-Status")))
				case isMarked(a):
					r.marked.Add(1)
				}
				r.read.Add(1)
			}
		})
	}
	return r
}

func (r *copyReading) fail(reason string) {
	select {
	case r.failures <- reason:
	default:
	}
}

// await waits until the condition holds, while all reads have to be hits.
func (r *copyReading) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	await.Within(t, patience+*copyOutage, what, func() bool {
		select {
		case reason := <-r.failures:
			t.Fatalf("a read of a warm server failed: %s", reason)
		default:
		}
		return holds()
	})
}

func (r *copyReading) stop(t *testing.T) {
	t.Helper()
	close(r.ending)
	r.group.Wait()
	select {
	case reason := <-r.failures:
		t.Errorf("a read of a warm server failed: %s", reason)
	default:
	}
	t.Logf("%d reads, %d of them while Redis was away", r.read.Load(), r.marked.Load())
}

package scales_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/redistest"
)

var pairs = flag.Int("pairs", 1000, "`number` of writes, each followed by reads of what it changed, with replicas that are behind")

// primary is a Redis with replicas, each behind a proxy that lets its replication lag.
type primary struct {
	*redistest.Server
	replicas []*redistest.Server
	links    []*redistest.Proxy
}

func startPrimary(t *testing.T, replicas int) *primary {
	t.Helper()
	p := &primary{Server: redistest.Start(t)}
	for range replicas {
		link := redistest.StartProxy(t, p.Addr())
		p.links = append(p.links, link)
		p.replicas = append(p.replicas, redistest.StartReplica(t, link.Addr()))
	}
	return p
}

// clients returns a client of each replica.
func (p *primary) clients(t *testing.T) scales.ReadOption {
	t.Helper()
	var clients []redis.UniversalClient
	for _, replica := range p.replicas {
		clients = append(clients, replica.Client(t))
	}
	return scales.Replicas(clients...)
}

// serve adds another server, with a cache of its own in the same Redis: another process, as it were.
func (s *system) serve(rdb redis.UniversalClient, cache []scales.CacheOption, options ...scales.ServerOption) *system {
	s.t.Helper()
	other := &system{t: s.t, logs: s.logs, worker: s.worker}
	other.cache = must(scales.NewCache(rdb, cache...))(s.t)
	other.server = must(scales.NewServer(other.cache, options...))(s.t)
	web := httptest.NewServer(other.server)
	other.url = web.URL
	s.t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := other.server.Close(ctx); err != nil {
			s.t.Error(err)
		}
		if err := other.cache.Close(ctx); err != nil {
			s.t.Error(err)
		}
	})
	return other
}

// Whoever has the reply to a write sees it, and what it has destroyed is gone, whichever replica is asked, and however far
// that is behind.
func TestReplicasThatAreBehindAreNotBelieved(t *testing.T) {
	for _, test := range []struct {
		name string
		copy int64
	}{{"without a copy", 0}, {"with a copy", 1 << 20}} {
		t.Run(test.name, func(t *testing.T) {
			p := startPrimary(t, 2)
			s := start(t, p.Client(t), newShelf(), setup{
				fill: []string{"/books"}, server: []scales.ServerOption{scales.LocalCopy(test.copy), p.clients(t)},
			})
			p.await(t)
			p.links[1].Hang() // one is as it should be
			if old := s.oldReads(50); len(old) > 0 {
				t.Errorf("%d reads after a write are older, the first: %s", len(old), old[0])
			}
		})
	}
}

// oldReads writes pages and reads them, again and again, and returns what was read wrongly.
func (s *system) oldReads(times int) (old []string) {
	s.t.Helper()
	expect := func(page string, status int, body string) {
		s.t.Helper()
		got := s.send("GET", page, "")
		if got.StatusCode != status || status == http.StatusOK && got.body != body {
			old = append(old, fmt.Sprintf("GET %s: %d %q, want %d %q", page, got.StatusCode, got.body, status, body))
		}
	}
	for i := range times {
		text := fmt.Sprint("text ", i)
		s.send("PUT", "/books/a", text).is(s.t, 204, "")
		for range 4 { // each replica has its turn
			expect("/books/a", 200, text)
		}
		expect("/books", 200, "1 books")
		s.send("DELETE", "/books/a", "").is(s.t, 204, "")
		for range 4 {
			expect("/books/a", 404, "")
		}
		expect("/books", 200, "0 books")
	}
	return old
}

// A server that has promised nothing and was told of nothing learns from the log what a replica has to have, before it believes
// the first thing that it says.
func TestAReplicaThatWasLeftBehindIsNotBelievedByWhoComesLater(t *testing.T) {
	for _, test := range []struct {
		name string
		copy int64
	}{{"without a copy", 0}, {"with a copy", 1 << 20}} {
		t.Run(test.name, func(t *testing.T) {
			p := startPrimary(t, 1)
			options := []scales.CacheOption{scales.Namespace(redistest.Namespace(t))}
			s := start(t, p.Client(t), newShelf(), setup{cache: options, fill: []string{"/books"}})
			p.await(t)
			p.links[0].Hang()
			s.send("PUT", "/books/a", "text").is(t, 204, "")
			late := s.serve(p.Client(t), options, scales.LocalCopy(test.copy), p.clients(t))
			for range 20 {
				late.send("GET", "/books/a", "").is(t, 200, "text")
				late.send("GET", "/books", "").is(t, 200, "1 books")
			}
		})
	}
}

func TestWithoutTheCheckReplicasThatAreBehindAreBelieved(t *testing.T) {
	p := startPrimary(t, 2)
	s := start(t, p.Client(t), newShelf(), setup{
		fill:   []string{"/books"},
		server: []scales.ServerOption{scales.LocalCopy(0), p.clients(t), scales.CopyGuards(localcopy.Guards{NoReplicaCheck: true})},
	})
	p.await(t) // a replica that has nothing yet is not believed anyway
	p.links[1].Hang()
	if old := s.oldReads(5); len(old) == 0 {
		t.Error("no read is older: it is not the check that prevents it")
	}
}

// What a program changes is seen at once through the servers of its process.
func TestReplicasKnowWhatTheProgramHasChanged(t *testing.T) {
	p := startPrimary(t, 1)
	s := start(t, p.Client(t), newShelf(), setup{idle: true, server: []scales.ServerOption{scales.LocalCopy(0), p.clients(t)}})
	ctx := context.Background()
	if err := s.cache.MarkFilled(ctx); err != nil {
		t.Fatal(err)
	}
	p.await(t)
	p.links[0].Hang()
	for i := range 20 {
		text := fmt.Sprint("text ", i)
		if err := s.cache.Push(ctx, "/a", pushOnly(text)); err != nil {
			t.Fatal(err)
		}
		s.send("GET", "/a", "").is(t, 200, text)
		if err := s.cache.Destroy(ctx, "/a"); err != nil {
			t.Fatal(err)
		}
		s.send("GET", "/a", "").problem(t, 404, "not-found")
	}
}

func pushOnly(text string) scales.Entry {
	entry := scales.Text(text)
	entry.PushOnly = true
	return entry
}

// What the primary has shown is not taken back by a replica.
func TestNoReadIsOlderThanOneBefore(t *testing.T) {
	p := startPrimary(t, 2)
	ctx := context.Background()
	// A server that makes no promise: nobody writes through it, or in its process.
	namespace := scales.Namespace(redistest.Namespace(t))
	writer := must(scales.NewCache(p.Client(t), namespace))(t)
	defer func() { _ = writer.Close(ctx) }()
	s := start(t, p.Client(t), newShelf(), setup{
		idle: true, cache: []scales.CacheOption{namespace}, server: []scales.ServerOption{scales.LocalCopy(0), p.clients(t)},
	})
	if err := writer.Push(ctx, "/a", pushOnly("old")); err != nil {
		t.Fatal(err)
	}
	p.await(t)
	p.links[0].Hang()
	p.replicas[1].Kill() // of two reads one goes to the primary
	if err := writer.Push(ctx, "/a", pushOnly("new")); err != nil {
		t.Fatal(err)
	}
	shown := ""
	for range 10 {
		got := s.send("GET", "/a", "")
		if shown == "new" && got.body != "new" {
			t.Fatalf("%q was shown, and then %q", shown, got.body)
		}
		shown = got.body
	}
	if shown != "new" {
		t.Errorf("in the end %q is shown", shown)
	}
}

// await waits until the replicas have what the primary has.
func (p *primary) await(t *testing.T) {
	t.Helper()
	ctx, conn := context.Background(), p.Client(t).Conn()
	defer func() { _ = conn.Close() }()
	// WAIT waits for what its own connection has written.
	if err := conn.Set(ctx, "await", "", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Wait(ctx, len(p.replicas), 20*time.Second).Result(); err != nil || int(n) < len(p.replicas) {
		t.Fatalf("%d replicas have everything: %v", n, err)
	}
}

// A replica that is dead, or hangs, is left alone, and comes back.
func TestAReplicaThatFailsIsLeftAlone(t *testing.T) {
	const timeout = 300 * time.Millisecond
	p := startPrimary(t, 2)
	s := start(t, p.Client(t), newShelf(), setup{
		fill: []string{"/books"}, cache: []scales.CacheOption{scales.StoreTimeout(timeout)},
		server: []scales.ServerOption{scales.LocalCopy(0), p.clients(t)},
	})
	for name, fail := range map[string]struct{ fail, end func() }{
		"dead":    {p.replicas[0].Kill, p.replicas[0].Restart},
		"hanging": {p.replicas[1].Pause, p.replicas[1].Resume},
	} {
		fail.fail()
		slow := 0
		for begin := time.Now(); time.Since(begin) < 2*time.Second; {
			asked := time.Now()
			s.send("GET", "/books", "").is(t, 200, "0 books")
			if time.Since(asked) > timeout/2 {
				slow++
			}
		}
		// It is tried once a second, by one read. go-redis tries to connect several times.
		if slow > 8 {
			t.Errorf("%s: %d reads wait for it", name, slow)
		}
		fail.end()
		if old := s.oldReads(3); len(old) > 0 {
			t.Errorf("%s: %v", name, old)
		}
	}
}

// A replica that has got nothing yet is not asked what there is.
func TestAReplicaThatHasNothingSaysNothing(t *testing.T) {
	redistest.Require(t)
	primary, empty := redistest.Start(t), redistest.Start(t)
	s := start(t, primary.Client(t), newShelf(), setup{
		idle: true, fill: []string{"/books"}, server: []scales.ServerOption{scales.LocalCopy(0), scales.Replicas(empty.Client(t))},
	})
	for range 5 {
		s.send("GET", "/books", "").is(t, 200, "0 books")
		s.send("GET", "/none", "").problem(t, 404, "not-found")
	}
}

// One primary, two replicas that lag, two servers, and writers that read what they have written through the server that
// has answered them: no page is older, none that was deleted comes back, and none that exists is missing.
func TestWritesAreReadThroughLaggingReplicas(t *testing.T) {
	p := startPrimary(t, 2)
	app := newShelf()
	options := []scales.CacheOption{scales.Namespace(redistest.Namespace(t))}
	s := start(t, p.Client(t), app, setup{
		fill: []string{"/books"}, cache: options, server: []scales.ServerOption{p.clients(t), scales.LocalCopy(4 << 10)},
	})
	servers := []*system{s, s.serve(p.Client(t), options, p.clients(t), scales.LocalCopy(0))}

	var lagging, writers sync.WaitGroup
	stop := make(chan struct{})
	lagging.Go(func() {
		random := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case <-stop:
				for _, link := range p.links {
					link.Restore()
				}
				return
			case <-time.After(time.Duration(random.IntN(30)) * time.Millisecond):
			}
			link := p.links[random.IntN(len(p.links))]
			switch random.IntN(3) {
			case 0:
				link.Hang()
			case 1:
				link.Restore()
			default:
				link.SetDelay(time.Duration(random.IntN(5)) * time.Millisecond)
			}
		}
	})
	const atOnce = 8
	var done, deleted atomic.Int64
	for writer := range atOnce {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(writer), 3))
			page := fmt.Sprint("/books/", writer)
			for i := 0; done.Add(1) <= int64(*pairs) && !t.Failed(); i++ {
				through := servers[random.IntN(len(servers))]
				if random.IntN(4) == 0 {
					deleted.Add(1)
					through.send("DELETE", page, "").is(t, 204, "")
					for range 3 {
						through.send("GET", page, "").problem(t, 404, "not-found")
					}
					continue
				}
				text := fmt.Sprint("text ", i)
				through.send("PUT", page, text).is(t, 204, "")
				for range 3 {
					through.send("GET", page, "").is(t, 200, text)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	lagging.Wait()
	t.Logf("%d writes, each followed by three reads; %d of them deleted the page", *pairs, deleted.Load())
}

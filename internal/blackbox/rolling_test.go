package blackbox_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

const (
	// rollingPace is the time from the restart of one process to that of the next.
	rollingPace = 100 * time.Millisecond
	// rollingReaders is how many clients read meanwhile.
	rollingReaders = 3
)

// Workers and servers are restarted one after the other, behind a balancer, under load. Nobody notices: every write is carried out and
// answered, every page is served, no connection breaks.
func TestARollingRestartShowsNothing(t *testing.T) {
	t.Parallel()
	const servers, workers = 2, 3
	c := newCampaign(t, singleStore(redistest.Start(t).Client(t)), servers, workers, "-deadline", "20s")
	b := startBalancer(t, c.servers)
	c.front = b.client
	ctx, cancel := context.WithCancelCause(t.Context())
	var readers sync.WaitGroup
	reads := make([]int, rollingReaders)
	for i := range rollingReaders {
		readers.Go(func() {
			if err := c.readOn(ctx, b.client(), &reads[i]); err != nil {
				cancel(err)
			}
		})
	}
	restarts := 0
	c.run(t, rollingPace, 2*(servers+workers), func() {
		crew := c.workers
		if restarts%(servers+workers) < servers {
			crew = c.servers
		}
		b.takeOut(crew).stop(t)
		crew.launch(t)
		crew.complete(t)
		restarts++
	})
	if err := context.Cause(ctx); err != nil {
		t.Errorf("a reader: %v", err)
	}
	cancel(nil)
	readers.Wait()
	c.concludes(t).areNone(t)
	if refused, unknown := c.account.count(refused), c.account.count(unknown); refused+unknown > 0 || c.account.count(applied) == 0 {
		t.Errorf("seed %d: %d writes were refused, and of %d nobody knows", c.seed, refused, unknown)
	}
	t.Logf("%d restarts, %d reads", restarts, reads[0]+reads[1]+reads[2])
}

// readOn reads pages that always exist until ctx ends.
func (c *campaign) readOn(ctx context.Context, server *process, count *int) error {
	for ctx.Err() == nil {
		for _, target := range []string{"/", "/tracks", "/artists.json"} {
			a, err := server.do(ctx, call{method: http.MethodGet, target: target})
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case a.status != http.StatusOK:
				return fmt.Errorf("%v: got %d\n%.500s", a.call, a.status, a.body)
			}
			*count++
		}
	}
	return nil
}

// takeOut removes the process that is there for the longest time from those that are ready.
func (c *crew) takeOut() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.ready[0]
	c.ready = c.ready[1:]
	return first
}

// balancer passes connections on to the servers of a crew that are ready, and knows nothing of HTTP.
type balancer struct {
	crew     *crew
	listener net.Listener
	links    sync.WaitGroup
	mu       sync.Mutex
	random   *rand.Rand
	clients  []*http.Client
}

// startBalancer starts a balancer that ends with the test.
func startBalancer(t *testing.T, servers *crew) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{crew: servers, listener: listener, random: rand.New(rand.NewPCG(1, 2))}
	b.links.Go(b.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		for _, client := range b.clients {
			client.CloseIdleConnections() // else the servers close them, after minutes
		}
		b.links.Wait()
	})
	return b
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.links.Go(func() { b.pass(client) })
	}
}

// pass copies both ways until both sides have ended.
func (b *balancer) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	server := b.dial()
	if server == nil {
		return // the client notices
	}
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{server, client}, {client, server}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // whose end the other side is told
			_ = way[0].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}

// dial connects to one of the servers. Nobody is taken out between the choice and the connection.
func (b *balancer) dial() net.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	chosen := b.crew.pick(b.random)
	if chosen == nil {
		return nil
	}
	server, err := net.Dial("tcp", strings.TrimPrefix(chosen.url, "http://"))
	if err != nil {
		return nil
	}
	return server
}

// takeOut returns the server to be restarted next, to which no more connections are made.
func (b *balancer) takeOut(c *crew) *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.takeOut()
}

// client returns a client of its own, with one connection to the balancer.
func (b *balancer) client() *process {
	client := &http.Client{
		Timeout:       answerTimeout,
		Transport:     &http.Transport{MaxConnsPerHost: 1, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients = append(b.clients, client)
	return &process{role: "balancer", url: "http://" + b.listener.Addr().String(), client: client}
}

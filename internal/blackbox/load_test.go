package blackbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// loadClients is how many clients write and read at once.
	loadClients = 64
	// contested is how many tracks, those with the lowest ids, all clients change; every other track belongs to one.
	contested = 16
	// loadArtists is how many artists come into being under the load.
	loadArtists = 20
	// shortWrites is the load with -short.
	shortWrites = 100
	// loadTimeout is how long a run may take.
	loadTimeout = 30 * time.Minute
)

// Many clients write and read through two servers at once. Every reply belongs to its request, every page that is read
// after a reply shows that write or a later one, and in the end everything is as the application answers.
func TestMixedLoad(t *testing.T) {
	eachStore(t, func(t *testing.T, at store) {
		// The processes that write take turns at one SQLite file, and not in a fair way. On a slow machine a write may wait
		// longer than the deadline, which would be a 504 and say nothing about Scales.
		s := newSite(t, at, "-deadline", "1m")
		s.open(t, 2, 3)
		s.fill(t)
		l := newLoad(t, s)
		if raceDetector && at.embedded {
			// The embedded Redis shares the process of the test. With the race detector, 64 clients keep it busy for
			// longer than a server waits for it, and each write takes it many times as long as a real one.
			l.clients = 8
			l.left.Store(l.left.Load() / 4)
		}
		l.run(t)
		l.report(t)
		if t.Failed() {
			return
		}
		s.isIdle(t)
		s.isCurrent(t, allKeys(t, s.app, l.history.newest))
		l.isKept(t)
	})
}

// load is a run of all clients.
type load struct {
	site    *site
	history *history
	figures *figures
	seed    uint64
	clients int
	slugs   sync.Map // of artists by name, as far as an answer told them
	left    atomic.Int64
	cancel  context.CancelCauseFunc
}

// newLoad returns a load on a site that is filled and not yet changed.
func newLoad(t *testing.T, s *site) *load {
	t.Helper()
	l := &load{site: s, history: newHistory(len(s.servers)), figures: newFigures(), seed: rand.Uint64(), clients: loadClients}
	l.left.Store(int64(*writes))
	if testing.Short() {
		l.left.Store(int64(min(*writes, shortWrites)))
	}
	for _, artist := range read[artistList](t, s.app, "/artists.json").Artists {
		l.slugs.Store(artist.Name, artist.Slug)
		for _, one := range read[artistPage](t, s.app, artistPath(artist.Slug)+".json").Tracks {
			l.history.seed(one)
		}
	}
	if l.history.seeded != seededTracks {
		t.Fatalf("the artists have %d tracks, want %d", l.history.seeded, seededTracks)
	}
	return l
}

// run returns when all writes are done and followed up, or something is wrong.
func (l *load) run(t *testing.T) {
	t.Helper()
	t.Logf("%d writes by %d clients, seed %d", l.left.Load(), l.clients, l.seed)
	ctx, cancel := context.WithCancelCause(t.Context())
	l.cancel = cancel
	timeout := time.AfterFunc(loadTimeout, func() { cancel(errors.New("the load takes too long")) })
	defer timeout.Stop()
	var clients []*client
	for number := range l.clients {
		clients = append(clients, newClient(l, number))
	}
	var group sync.WaitGroup
	l.figures.began = time.Now()
	for _, c := range clients {
		group.Go(func() { c.run(ctx) })
	}
	group.Wait()
	l.figures.took = time.Since(l.figures.began)
	if err := context.Cause(ctx); err != nil {
		t.Errorf("seed %d: %v", l.seed, err)
	}
}

// isKept expects the application to hold what the replies said: no write was lost and none was carried out twice.
func (l *load) isKept(t *testing.T) {
	t.Helper()
	app, h := l.site.app, l.history
	// Every write was answered before; as if one through the first server had to be shown.
	h.mu.Lock()
	now := view{at: h.now(), floor: h.now()}
	h.mu.Unlock()
	seen := map[int64]bool{}
	for _, artist := range read[artistList](t, app, "/artists.json").Artists {
		shown := read[artistPage](t, app, artistPath(artist.Slug)+".json")
		if err := h.checkArtist(now, artist.Name, shown.Tracks); err != nil {
			t.Error(err)
		}
		for _, one := range shown.Tracks {
			if seen[one.ID] {
				t.Errorf("two artists have track %d", one.ID)
			}
			seen[one.ID] = true
		}
	}
	want := h.seeded + len(h.creations.ends) - len(h.deletions.ends)
	if total := read[trackList](t, app, "/tracks.json").Total; total != want || len(seen) != want {
		t.Errorf("the application counts %d tracks and lists %d, want %d", total, len(seen), want)
	}
}

// client is one of those that write. It uses one server, and each write and its follow-ups one after the other.
type client struct {
	*load
	number int
	server int
	random *rand.Rand
	count  int
	own    []int64 // tracks that only this client changes, the newest last
	states map[int64]state
}

// newClient is called before any client runs.
func newClient(l *load, number int) *client {
	c := &client{
		load: l, number: number, server: number % len(l.site.servers),
		random: rand.New(rand.NewPCG(l.seed, uint64(number))), states: map[int64]state{},
	}
	for id := int64(contested + 1 + number); id <= seededTracks; id += loadClients {
		c.own = append(c.own, id)
		c.states[id] = l.history.tracks[id][0].state
	}
	return c
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil && c.left.Add(-1) >= 0 {
		if err := c.step(ctx); err != nil && ctx.Err() == nil {
			c.cancel(fmt.Errorf("client %d: %w", c.number, err))
		}
	}
}

// step makes one write and looks at what it changed.
func (c *client) step(ctx context.Context) error {
	c.count++
	switch dice := c.random.IntN(100); {
	case dice < 40:
		return c.create(ctx)
	case dice < 68 && len(c.own) > 0:
		return c.changeOwn(ctx)
	case dice < 80:
		return c.changeContested(ctx)
	case dice < 94 && len(c.own) > 0:
		return c.remove(ctx)
	default:
		return c.sendNonsense(ctx)
	}
}

// name returns a name that no other track has had.
func (c *client) name() string { return fmt.Sprintf("No. %d of client %d & Co", c.count, c.number) }

// artist returns the name of one of the artists of the load, who may not exist yet.
func (c *client) artist() string { return fmt.Sprintf("Loaded <%d>", c.random.IntN(loadArtists)) }

// form says by chance whether a write is sent as a form.
func (c *client) form() bool { return c.random.IntN(2) == 0 }

// pick returns one of the client's tracks: the newest, which is on the lists, or any.
func (c *client) pick() int64 {
	if c.random.IntN(2) == 0 {
		return c.own[len(c.own)-1]
	}
	return c.own[c.random.IntN(len(c.own))]
}

// send sends a request and measures how long the answer takes. A failure of a server, or of a connection, is an error.
func (c *client) send(ctx context.Context, kind string, request call) (*answer, error) {
	began := time.Now()
	a, err := c.site.servers[c.server].do(ctx, request)
	if err != nil {
		return nil, err
	}
	c.figures.add(kind, a.status, time.Since(began))
	if a.status >= http.StatusInternalServerError {
		return nil, fmt.Errorf("%v: got %d\n%.500s", request, a.status, a.body)
	}
	return a, nil
}

// expect is send with the status that must come.
func (c *client) expect(ctx context.Context, kind string, request call, status int) (*answer, error) {
	a, err := c.send(ctx, kind, request)
	if err == nil && a.status != status {
		return nil, fmt.Errorf("%v %.200q: got %d, want %d\n%.500s", request, request.body, a.status, status, a.body)
	}
	return a, err
}

package blackbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// site is one application with its processes, on one database and one Redis.
type site struct {
	store
	namespace   string
	flags       []string // of all processes
	serverFlags []string // of servers, besides
	processes   []*process
	// troubled says that processes may log errors, because the test gives them reason to.
	troubled bool
	// raceFill has fills run with the race detector too, if servers and workers do.
	raceFill bool

	app     *process // the bare application
	servers []*process
	workers []*process
}

// newSite returns a site without processes, with a new database and an unused namespace. Its processes end with the test.
func newSite(t *testing.T, at store, flags ...string) *site {
	t.Helper()
	s := &site{store: at, namespace: redistest.Namespace(t)}
	s.flags = append([]string{
		"-db", filepath.Join(t.TempDir(), "tracks.db"), "-namespace", s.namespace,
		"-partitions", strconv.Itoa(at.partitions), "-listen", "127.0.0.1:0",
	}, flags...)
	t.Cleanup(func() { s.close(t) })
	return s
}

// launch starts a process that may not be ready. The application alone is not told of Redis.
func (s *site) launch(t *testing.T, role string, flags ...string) *process {
	t.Helper()
	all := slices.Clone(s.flags)
	if role != "app" {
		all = append(all, s.store.flags...)
	}
	if role == "server" {
		all = append(all, s.serverFlags...)
	}
	raced := role == "server" || role == "worker" || role == "fill" && s.raceFill
	if raced && *raceBuild && role != "server" {
		all = append(all, "-codings", "") // with the race detector they take a hundred times as long, and are nothing that it could look at
	}
	p := launch(t, role, raced, append(all, flags...))
	s.processes = append(s.processes, p)
	return p
}

// start starts a process and waits until it is ready.
func (s *site) start(t *testing.T, role string, flags ...string) *process {
	t.Helper()
	p := s.launch(t, role, flags...)
	p.awaitReady(t)
	return p
}

// open starts the application, servers and workers, all at once.
func (s *site) open(t *testing.T, servers, workers int) {
	t.Helper()
	s.app = s.launch(t, "app")
	for range servers {
		s.servers = append(s.servers, s.launch(t, "server"))
	}
	for range workers {
		s.workers = append(s.workers, s.launch(t, "worker"))
	}
	for _, p := range s.processes {
		p.awaitReady(t)
	}
}

// close stops what runs, servers first, and expects every process to end well.
func (s *site) close(t *testing.T) {
	t.Helper()
	inOrder := slices.Clone(s.processes)
	slices.SortStableFunc(inOrder, func(a, b *process) int { return strings.Compare(a.role, b.role) }) // server before worker
	for _, p := range inOrder {
		if !p.told && !p.running() {
			t.Errorf("a %s ended by itself: %v", p.role, p.err)
		}
		if p.running() {
			p.stop(t)
		}
		p.client.CloseIdleConnections()
		s.judgeLog(t, p)
	}
	if t.Failed() {
		for _, p := range inOrder {
			t.Logf("the %s, process %d, logged:\n%s", p.role, p.command.Process.Pid, p.stderr.tail())
		}
	}
}

// judgeLog expects that a process has logged nothing that should not happen.
func (s *site) judgeLog(t *testing.T, p *process) {
	t.Helper()
	unwanted := []string{"DATA RACE", "panic:", "panic=", "fatal error:"}
	if !s.troubled {
		unwanted = append(unwanted, "level=ERROR")
	}
	for _, text := range unwanted {
		if strings.Contains(p.stderr.String(), text) {
			t.Errorf("the log of a %s has %q", p.role, text)
		}
	}
}

// fillSummary is what a fill ends with.
type fillSummary struct {
	Keys, Stored, Resumed, Refused, Failed *int
	Seconds                                *float64
}

// fill fills the cache and returns how many keys were stored. It expects that none was refused or failed.
func (s *site) fill(t *testing.T, flags ...string) int {
	t.Helper()
	p := s.start(t, "fill", flags...)
	return *s.filled(t, p).Stored
}

// filled waits for the end of a fill and returns what it says. It expects that no key was refused or failed.
func (s *site) filled(t *testing.T, p *process) fillSummary {
	t.Helper()
	p.awaitEnd(t, fillTimeout)
	lines := strings.Split(strings.TrimSuffix(p.stdout.String(), "\n"), "\n")
	decoder := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	decoder.DisallowUnknownFields()
	var got fillSummary
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("the last line of fill, %q, is no summary: %v", lines[len(lines)-1], err)
	}
	if got.Keys == nil || got.Stored == nil || got.Resumed == nil || got.Refused == nil || got.Failed == nil || got.Seconds == nil {
		t.Fatalf("the summary of fill lacks members: %s", lines[len(lines)-1])
	}
	if *got.Refused != 0 || *got.Failed != 0 || *got.Stored != *got.Keys || *got.Seconds <= 0 {
		t.Fatalf("fill says %s, want all keys stored", lines[len(lines)-1])
	}
	return got
}

// redisKey returns the name of a key in Redis, in the partition of the resource.
func (s *site) redisKey(resource, name string) string {
	number := crc32.ChecksumIEEE([]byte(resource)) % uint32(s.partitions)
	return fmt.Sprintf("{%s:%d}:%s", s.namespace, number, name)
}

// queueKey returns the name of a key of the queue in Redis.
func (s *site) queueKey(name string) string { return fmt.Sprintf("{%s:0}:q:%s", s.namespace, name) }

// length returns the length of a stream of the queue, 0 if there is none.
func (s *site) length(t *testing.T, name string) int64 {
	t.Helper()
	n, err := s.client.XLen(t.Context(), s.queueKey(name)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// isIdle expects that no job and no render is left, at the latest when the workers have looked for what nobody waits for.
func (s *site) isIdle(t *testing.T) {
	t.Helper()
	s.becomesIdle(t, patience)
	if dead := s.length(t, "dead"); dead != 0 {
		t.Errorf("there are %d dead letters, want none", dead)
	}
}

// becomesIdle is isIdle where requests may have been given up.
func (s *site) becomesIdle(t *testing.T, within time.Duration) {
	t.Helper()
	await.Within(t, within, "no job and no render is left", func() bool {
		left := s.length(t, "jobs")
		for number := range s.partitions {
			left += s.client.ZCard(t.Context(), fmt.Sprintf("{%s:%d}:pending", s.namespace, number)).Val()
			left += s.client.HLen(t.Context(), fmt.Sprintf("{%s:%d}:walks", s.namespace, number)).Val()
		}
		return left == 0
	})
}

// flush deletes everything in Redis, with everybody's data.
func (s *site) flush(t *testing.T) {
	t.Helper()
	var err error
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
			return node.FlushAll(ctx).Err()
		})
	} else {
		err = s.client.FlushAll(t.Context()).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// postJSON is a request for a new track.
func postJSON(name, artist string) call {
	return withJSON(http.MethodPost, "/tracks", map[string]string{"name": name, "artist": artist})
}

// putJSON is a request to change a track.
func putJSON(id int64, fields map[string]string) call {
	return withJSON(http.MethodPut, trackPath(id), fields)
}

func withJSON(method, target string, fields map[string]string) call {
	body, _ := json.Marshal(fields) // strings can be marshalled
	return call{method: method, target: target, contentType: jsonType, body: string(body)}
}

// postForm is what a browser sends; method is what the form has in _method, if anything.
func postForm(target, method string, fields map[string]string) call {
	values := url.Values{}
	for name, value := range fields {
		values.Set(name, value)
	}
	if method != "" {
		values.Set("_method", method)
	}
	return call{method: http.MethodPost, target: target, contentType: formType, body: values.Encode()}
}

func trackPath(id int64) string { return "/tracks/" + strconv.FormatInt(id, 10) }

func artistPath(slug string) string { return "/artists/" + slug }

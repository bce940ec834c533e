package scales_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// system is a cache, a server and a worker around an application.
type system struct {
	t      *testing.T
	cache  *scales.Cache
	server *scales.Server
	worker *scales.Worker
	url    string
	logs   *logs
}

// setup is what a test wants to have otherwise.
type setup struct {
	cache  []scales.CacheOption
	server []scales.ServerOption
	worker []scales.WorkerOption
	idle   bool     // the worker does not run
	fill   []string // keys to be filled before the test begins
}

func start(t *testing.T, rdb redis.UniversalClient, app http.Handler, s setup) *system {
	t.Helper()
	sys := &system{t: t, logs: &logs{t: t}}
	options := append([]scales.CacheOption{
		scales.Namespace(redistest.Namespace(t)), scales.Logger(slog.New(slog.NewTextHandler(sys.logs, nil))),
	}, s.cache...)
	sys.cache = must(scales.NewCache(rdb, options...))(t)
	sys.server = must(scales.NewServer(sys.cache, s.server...))(t)
	sys.worker = must(scales.NewWorker(sys.cache, app, s.worker...))(t)
	web := httptest.NewServer(sys.server)
	sys.url = web.URL
	t.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(sys.server.Close(ctx), sys.cache.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	if s.fill != nil {
		sys.fill(s.fill...)
	}
	if !s.idle {
		sys.run()
	}
	return sys
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// run runs the worker until the returned function is called, or the test ends.
func (s *system) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.worker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	await.Until(s.t, "a worker is alive", func() bool { // before that a server refuses jobs
		stats, err := s.cache.Queue().Stats(context.Background())
		return err == nil && stats.Workers > 0
	})
	return stop
}

func keys(names ...string) map[string]error {
	all := make(map[string]error)
	for _, name := range names {
		all[name] = nil
	}
	return all
}

func (s *system) fill(names ...string) scales.FillReport {
	s.t.Helper()
	return must(s.worker.Fill(context.Background(), maps.All(keys(names...))))(s.t)
}

// response is an answer whose body was read.
type response struct {
	*http.Response
	body string
}

func (s *system) send(method, target, body string, header ...string) response {
	s.t.Helper()
	return s.sendContext(context.Background(), method, target, body, header...)
}

func (s *system) sendContext(ctx context.Context, method, target, body string, header ...string) response {
	s.t.Helper()
	req := must(http.NewRequestWithContext(ctx, method, s.url+target, strings.NewReader(body)))(s.t)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	return answerTo(s.t, req)
}

var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func answerTo(t *testing.T, req *http.Request) response {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, res)
}

func readAll(t *testing.T, res *http.Response) response {
	t.Helper()
	defer func() { _ = res.Body.Close() }()
	body := must(io.ReadAll(res.Body))(t)
	return response{res, string(body)}
}

// is checks status and body.
func (r response) is(t *testing.T, status int, body string) response {
	t.Helper()
	if r.StatusCode != status || r.body != body {
		t.Errorf("%s %s: %d %q, want %d %q", r.Request.Method, r.Request.URL.Path, r.StatusCode, r.body, status, body)
	}
	return r
}

// problem checks that the answer is a problem of that status and type.
func (r response) problem(t *testing.T, status int, name string) response {
	t.Helper()
	if r.StatusCode != status || r.Header.Get("Content-Type") != "application/problem+json" ||
		(r.Request.Method != http.MethodHead && !strings.Contains(r.body, "urn:scales:problem:"+name+`"`)) {
		t.Errorf("%s %s: %d %q, want %d and the problem %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, r.body, status, name)
	}
	if status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After", name)
	}
	return r
}

// logs collects what the library logs, and shows it where the test has failed.
type logs struct {
	t      *testing.T
	mu     sync.Mutex
	buffer bytes.Buffer
	shown  bool
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.shown {
		l.shown = true
		l.t.Cleanup(func() {
			if l.t.Failed() {
				l.t.Log(l.text())
			}
		})
	}
	return l.buffer.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

// shelf is an application: a list at /books and a page for each book. A book that is put or deleted changes both.
type shelf struct {
	mu      sync.Mutex
	books   map[string]string
	renders map[string]int
}

func newShelf() *shelf { return &shelf{books: make(map[string]string), renders: make(map[string]int)} }

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/books/")
	if r.Method == http.MethodGet {
		s.renders[r.URL.Path]++
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/books":
		_, _ = fmt.Fprintf(w, "%d books", len(s.books))
	case r.Method == http.MethodGet && s.books[name] != "":
		_, _ = io.WriteString(w, s.books[name])
	case r.Method == http.MethodPost && r.URL.Path == "/books":
		body, _ := io.ReadAll(r.Body)
		name := fmt.Sprint(len(s.books) + 1)
		s.books[name] = string(body)
		w.Header().Set("Location", "/books/"+name)
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut:
		body, _ := io.ReadAll(r.Body)
		s.books[name] = string(body)
		_ = scales.Writer(r.Context()).Update(r.Context(), "/books")
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		delete(s.books, name)
		_ = scales.Writer(r.Context()).Update(r.Context(), "/books")
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

func (s *shelf) rendered(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renders[path]
}

func TestEveryPageIsCurrentWhenTheReplyArrives(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/books"}})
		s.send("GET", "/books", "").is(t, 200, "0 books")
		created := s.send("POST", "/books", "Emma").is(t, 201, "")
		if location := created.Header.Get("Location"); location != "/books/1" {
			t.Errorf("Location: %s", location)
		}
		s.send("GET", "/books", "").is(t, 200, "1 books")
		s.send("GET", "/books/1", "").is(t, 200, "Emma")
		s.send("PUT", "/books/1", "Dracula").is(t, 204, "")
		s.send("GET", "/books/1", "").is(t, 200, "Dracula")
		s.send("DELETE", "/books/1", "").is(t, 204, "")
		s.send("GET", "/books/1", "").problem(t, 404, "not-found")
		s.send("GET", "/books", "").is(t, 200, "0 books")
		if stats := must(s.cache.Queue().Stats(context.Background()))(t); stats.Jobs != 0 || stats.Decided != 0 || stats.DeadLetters != 0 || stats.Pending != 0 {
			t.Errorf("left over: %+v", stats)
		}
	})
}

func TestReadsDoNotReachTheApplication(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/books"}})
		for range 20 {
			s.send("GET", "/books", "").is(t, 200, "0 books")
			s.send("HEAD", "/books", "").is(t, 200, "")
			s.send("GET", "/books/7", "").problem(t, 404, "not-found")
		}
		if n := app.rendered("/books") + app.rendered("/books/7"); n != 1 {
			t.Errorf("the application was asked %d times, the fill alone asks once", n)
		}
	})
}

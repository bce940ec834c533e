package scales_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/redistest"
)

// teller is an application that counts what it is told, and does nothing before it is released.
type teller struct {
	calls    atomic.Int64
	began    chan string
	released chan struct{}
}

func newTeller() *teller {
	return &teller{began: make(chan string, 100), released: make(chan struct{})}
}

func (a *teller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		_, _ = io.WriteString(w, "a page")
		return
	}
	n := a.calls.Add(1)
	a.began <- r.URL.Path
	<-a.released
	switch r.URL.Path {
	case "/panic":
		if n == 1 {
			panic("the first time")
		}
	case "/fails":
		w.WriteHeader(http.StatusInternalServerError)
	}
	w.Header().Set("Set-Cookie", "a=b")
	w.Header().Set("Cache-Control", "max-age=60")
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "call %d: %s; prefers %q", n, body, r.Header.Get("Prefer"))
}

func (a *teller) release() { close(a.released) }

// second returns another server of the same cache.
func (s *system) second(opts ...scales.ServerOption) *system {
	s.t.Helper()
	other := *s
	other.server = must(scales.NewServer(s.cache, opts...))(s.t)
	web := httptest.NewServer(other.server)
	other.url = web.URL
	s.t.Cleanup(func() {
		web.Close()
		if err := other.server.Close(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	return &other
}

func TestThirtyTwoClientsWithOneKeyAreOneRequest(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newTeller()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}})
		servers := []*system{s, s.second()}
		var clients sync.WaitGroup
		answers := make([]response, 32)
		for i := range answers {
			clients.Go(func() {
				answers[i] = servers[i%2].send("POST", "/orders", "a book", "Idempotency-Key", `"8e03978e"`, "Host", "a.example")
			})
		}
		<-app.began
		// Who has another identity, or sends it elsewhere, is another client.
		others := make(chan response, 3)
		for _, header := range [][]string{{"Authorization", "Bearer a"}, {"Cookie", "s=1"}, {"Host", "b.example"}} {
			go func() {
				others <- s.send("POST", "/orders", "a book", append([]string{"Idempotency-Key", "8e03978e", "Host", "a.example"}, header...)...)
			}()
			<-app.began
		}
		s.send("POST", "/orders", "two books", "Idempotency-Key", `"8e03978e"`, "Host", "a.example").problem(t, 422, "idempotency-key-reused")
		app.release()
		clients.Wait()
		for _, answer := range answers {
			answer.is(t, 200, `call 1: a book; prefers ""`)
			if answer.Header.Get("Set-Cookie") != "a=b" {
				t.Error("Set-Cookie is missing")
			}
		}
		for range 3 {
			if answer := <-others; answer.StatusCode != 200 || strings.HasPrefix(answer.body, "call 1:") {
				t.Errorf("%d %q", answer.StatusCode, answer.body)
			}
		}
		if n := app.calls.Load(); n != 4 {
			t.Errorf("%d calls, want 4", n)
		}
		again := servers[1].send("POST", "/orders", "a book", "Idempotency-Key", "8e03978e", "Host", "a.example").is(t, 200, `call 1: a book; prefers ""`)
		if again.Header.Get("Scales-Reply") != "stored" || again.Header.Get("Set-Cookie") != "a=b" {
			t.Errorf("the stored reply has %v", again.Header)
		}
		s.send("POST", "/orders", "", "Idempotency-Key", "").problem(t, 400, "malformed-idempotency-key")
	})
}

func TestWhatWasNotCarriedOutLeavesItsKeyFree(t *testing.T) {
	app := newTeller()
	s := single(t, app, setup{worker: []scales.WorkerOption{scales.Concurrency(1)}})
	hasty := s.second(scales.Deadline(200 * time.Millisecond))
	first := make(chan response)
	go func() { first <- s.send("POST", "/busy", "") }()
	<-app.began
	hasty.send("POST", "/late", "a", "Idempotency-Key", "1").problem(t, 503, "not-started")
	app.release()
	(<-first).is(t, 200, `call 1: ; prefers ""`)
	s.send("POST", "/late", "b", "Idempotency-Key", "1").is(t, 200, `call 2: b; prefers ""`)

	app.calls.Store(0)
	s.send("POST", "/panic", "", "Idempotency-Key", "1").problem(t, 500, "application-panicked")
	s.send("POST", "/panic", "", "Idempotency-Key", "1").is(t, 200, `call 2: ; prefers ""`)
	// What the application itself has answered is kept, whatever it is.
	for range 2 {
		s.send("POST", "/fails", "", "Idempotency-Key", "1").is(t, 500, `call 3: ; prefers ""`)
	}
}

func TestARequestThatPrefersNotToWaitIsAccepted(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newTeller()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, worker: []scales.WorkerOption{scales.Concurrency(1)}})
		// Mounted below a path that it is not told.
		mounted := httptest.NewServer(http.StripPrefix("/shop", s.server))
		defer mounted.Close()
		below := *s
		below.url = mounted.URL + "/shop"

		accept := func(s *system, target, prefer, applied string) (status string) {
			res := s.send("POST", target, "a book", "Prefer", prefer)
			if res.StatusCode != 202 || res.Header.Get("Preference-Applied") != applied || res.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %q %v", res.StatusCode, res.body, res.Header)
			}
			location := must(res.Location())(t)
			return strings.TrimPrefix(location.String(), s.url)
		}
		first := accept(s, "/orders/new?x=1", "respond-async, return=minimal", "respond-async")
		<-app.began
		second := accept(&below, "/orders/", "respond-async, wait=0", "respond-async, wait=0")
		waits := make(chan response)
		go func() { waits <- s.send("POST", "/orders", "", "Prefer", "wait=1") }()

		state := func(target, want string) {
			t.Helper()
			res := s.send("GET", target, "")
			if res.StatusCode != 200 || !strings.Contains(res.body, `"state":"`+want+`"`) || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %q %v", target, res.StatusCode, res.body, res.Header)
			}
		}
		state(first, "running")
		state(second, "queued")
		third := must((<-waits).Location())(t).Path
		state(third, "queued")
		app.release()
		for target, want := range map[string]string{
			first: `call 1: a book; prefers "return=minimal"`, second: `call 2: a book; prefers ""`, third: `call 3: ; prefers ""`,
		} {
			var res response
			for deadline := time.Now().Add(20 * time.Second); res.Response == nil || strings.Contains(res.body, `"state"`) && time.Now().Before(deadline); {
				res = s.send("GET", target, "")
			}
			res.is(t, 200, want)
			if res.Header.Get("Scales-Reply") != "stored" || res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v", target, res.Header)
			}
			s.send("HEAD", target, "").is(t, 200, "")
		}
		if allow := s.send("DELETE", first, "").problem(t, 405, "method-not-allowed").Header.Get("Allow"); allow != "GET, HEAD" {
			t.Errorf("Allow: %q", allow)
		}
		s.send("GET", "/.scales/jobs/"+strings.Repeat("0", 32), "").problem(t, 404, "job-unknown")
		s.send("GET", "/.scales/jobs/", "").problem(t, 404, "job-unknown")
		// What is there in time is the reply itself.
		s.send("POST", "/orders", "", "Prefer", "respond-async, wait=60").is(t, 200, `call 4: ; prefers ""`)
	})
}

func TestALateRequestIsAcceptedWhereThatIsAskedFor(t *testing.T) {
	app := newTeller()
	s := single(t, app, setup{})
	late := s.second(scales.Deadline(100*time.Millisecond), scales.AcceptLate())
	res := late.send("POST", "/orders", "")
	if res.StatusCode != 202 || res.Header.Get("Preference-Applied") != "" {
		t.Fatalf("%d %q %v", res.StatusCode, res.body, res.Header)
	}
	app.release()
	status := must(res.Location())(t).Path
	for deadline := time.Now().Add(20 * time.Second); strings.Contains(res.body, `"state"`) && time.Now().Before(deadline); {
		res = s.send("GET", status, "")
	}
	res.is(t, 200, `call 1: ; prefers ""`)
}

func TestWithoutKeptRepliesTheFieldsTravelToTheApplication(t *testing.T) {
	app := newTeller()
	app.release()
	s := single(t, app, setup{server: []scales.ServerOption{scales.KeepReplies(0)}})
	for n := range 2 {
		s.send("POST", "/orders", "", "Idempotency-Key", "1", "Prefer", "respond-async").is(t, 200, fmt.Sprintf(`call %d: ; prefers "respond-async"`, n+1))
	}
}

func TestHandlersKnowTheirJob(t *testing.T) {
	ids := make(chan string) // the handler ends after the answer, else that might be its own
	s := single(t, handler(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			ids <- scales.JobID(r.Context())
		}
	}), setup{})
	res := s.send("POST", "/", "", "Prefer", "respond-async")
	if location, id := must(url.Parse(res.Header.Get("Location")))(t), <-ids; !strings.Contains(location.Path, "/"+id+".") || len(id) != 32 {
		t.Errorf("the job %q is at %s", id, location)
	}
	if id := scales.JobID(context.Background()); id != "" {
		t.Errorf("outside a worker: %q", id)
	}
}

// Whose worker died is run again if it has a key and the application is said to honour it, and is a dead letter otherwise.
func TestAKeyedJobOfADeadWorkerIsRunAgainWhereTheApplicationHonoursKeys(t *testing.T) {
	for name, repeats := range map[string]bool{"dead letter": false, "again": true} {
		t.Run(name, func(t *testing.T) {
			app := newTeller()
			app.release()
			options := []scales.WorkerOption{scales.Lease(100 * time.Millisecond)}
			if repeats {
				options = append(options, scales.RepeatKeyed())
			}
			rdb, ctx := redistest.Shared(t), context.Background()
			g := newGraveyard(t, rdb, app, setup{idle: true, worker: options})
			jobs := "{" + g.namespace + ":0}:q:jobs"
			for _, request := range []string{
				"POST /a HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: 1\r\n\r\n", "POST /b HTTP/1.1\r\nHost: localhost\r\n\r\n",
			} {
				must(rdb.XAdd(ctx, &redis.XAddArgs{Stream: jobs, Values: []string{
					"id", request[5:7], "server", "0", "deadline", fmt.Sprint(time.Now().Add(time.Hour).UnixMicro()),
					"scheme", "http", "remote", "192.0.2.7:1234", "request", request,
				}}).Result())(t)
			}
			must(rdb.XGroupCreate(ctx, jobs, "workers", "0").Result())(t)
			must(rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "workers", Consumer: "dead", Streams: []string{jobs, ">"}}).Result())(t)
			g.run()
			letters, calls := 2, int64(0)
			if repeats {
				letters, calls = 1, 1
			}
			if g.letters(letters); app.calls.Load() != calls {
				t.Errorf("%d calls, want %d", app.calls.Load(), calls)
			}
		})
	}
}

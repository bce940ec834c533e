package scales_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// single starts a system on an embedded Redis, beside other tests.
func single(t *testing.T, app http.Handler, s setup) *system {
	t.Helper()
	t.Parallel()
	return start(t, redistest.StartEmbedded(t).Client(t), app, s)
}

func handler(f func(w http.ResponseWriter, r *http.Request)) http.Handler { return http.HandlerFunc(f) }

func TestAMissIsAnsweredByWhatIsKnown(t *testing.T) {
	s := single(t, newShelf(), setup{idle: true})
	s.send("GET", "/books", "").problem(t, 503, "not-filled")
	s.send("HEAD", "/books", "").problem(t, 503, "not-filled")
	s.fill("/books")
	s.send("GET", "/books", "").is(t, 200, "0 books")
	missing := s.send("GET", "/none", "").problem(t, 404, "not-found")
	if got := missing.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %s", got)
	}
	if got := missing.Header.Get("Cache-Status"); got != "" {
		t.Errorf("Cache-Status of a miss: %s", got)
	}
}

func TestAHitHasTheStoredFieldsAndOurs(t *testing.T) {
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private-by-itself" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		w.Header().Set("Content-Type", "text/x-special")
		w.Header()["X-Twice"] = []string{"1", "2"}
		w.Header().Set("X-Latin", "caf\xe9")
		w.Header().Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
		w.WriteHeader(http.StatusNonAuthoritativeInfo)
		_, _ = io.WriteString(w, "body")
	})
	s := single(t, app, setup{idle: true, fill: []string{"/a", "/private-by-itself"}})
	hit := s.send("GET", "/a", "").is(t, 203, "body")
	for name, want := range map[string]string{
		"Content-Type": "text/x-special", "Cache-Control": "no-cache", "Cache-Status": "scales; hit", "Content-Length": "4",
		"X-Latin": "caf\xe9", "Age": "", "Set-Cookie": "",
	} {
		if got := hit.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := hit.Header["X-Twice"]; !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("X-Twice: %q", got)
	}
	if got := hit.Header["Date"]; len(got) != 1 || strings.Contains(got[0], "1970") {
		t.Errorf("Date: %q", got)
	}
	if got := s.send("GET", "/private-by-itself", "").Header.Get("Cache-Control"); got != "max-age=60" {
		t.Errorf("the application's Cache-Control became %q", got)
	}
	head := s.send("HEAD", "/a", "").is(t, 203, "")
	if head.Header.Get("Content-Length") != "4" {
		t.Errorf("HEAD: Content-Length %q", head.Header.Get("Content-Length"))
	}
}

func TestOneResourceHasOneKey(t *testing.T) {
	app := handler(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.RequestURI()) })
	s := single(t, app, setup{idle: true, fill: []string{"/a%20b?x=1"}, cache: []scales.CacheOption{scales.QueryParameters("x")}})
	for _, target := range []string{"/a%20b?x=1", "/%61%20b?x=1", "/c/../a%20b?x=1&utm_source=mail", "/a%20b?utm=1&x=1"} {
		s.send("GET", target, "").is(t, 200, "/a%20b?x=1")
	}
	s.send("GET", "/a%20b?x=2", "").problem(t, 404, "not-found")
	s.send("GET", "/a%20b%00", "").problem(t, 400, "malformed-target")
	s.send("GET", "/"+strings.Repeat("x", 3000), "").problem(t, 414, "target-too-long")
	s.send("POST", "/"+strings.Repeat("x", 3000), "").problem(t, 414, "target-too-long")
}

func TestHostsArePartOfTheKeyWhereTheyCount(t *testing.T) {
	app := handler(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	s := single(t, app, setup{idle: true, fill: []string{"//a.example/", "//b.example/"}, cache: []scales.CacheOption{scales.Hosts("a.example", "b.example")}})
	s.send("GET", "/", "", "Host", "a.example").is(t, 200, "a.example")
	s.send("GET", "/", "", "Host", "B.example:80").is(t, 200, "b.example")
	s.send("GET", "/", "", "Host", "evil.example").problem(t, 421, "misdirected")
	s.send("POST", "/", "", "Host", "evil.example").problem(t, 421, "misdirected")
}

func TestNothingOfAClientShapesAStoredPage(t *testing.T) {
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if scales.Rendering(r.Context()) {
			_, _ = fmt.Fprintf(w, "%s %v %s", r.Host, r.Header, r.RemoteAddr)
		}
	})
	s := single(t, app, setup{fill: []string{"/"}, cache: []scales.CacheOption{scales.Origin("https://shop.example")}})
	s.send("POST", "/", "", "Host", "evil.example", "X-Forwarded-Host", "evil.example", "Cookie", "a=b", "Accept-Encoding", "gzip", "Range", "bytes=0-1")
	s.send("GET", "/", "").is(t, 200, "shop.example map[Accept:[*/*]] 192.0.2.1:1")
}

func TestBodiesHaveLimits(t *testing.T) {
	var ran int
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			ran++
			_, _ = io.Copy(w, r.Body)
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{scales.MaxBody(10), scales.BodyTimeout(200 * time.Millisecond)}})
	s.send("POST", "/", "0123456789").is(t, 200, "0123456789")
	s.send("POST", "/", "").is(t, 200, "")
	s.send("POST", "/", "0123456789a").problem(t, 413, "body-too-large")
	chunked := must(http.NewRequest("POST", s.url+"/", io.MultiReader(strings.NewReader("0123456789"), strings.NewReader("a"))))(t)
	answerTo(t, chunked).problem(t, 413, "body-too-large")

	address := strings.TrimPrefix(s.url, "http://")
	for request, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab": "408",
	} {
		conn := must(net.Dial("tcp", address))(t)
		_, _ = io.WriteString(conn, request)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || fmt.Sprint(res.StatusCode) != want {
			t.Errorf("%q: %v, %v", request, res, err)
		}
		_ = conn.Close()
	}
	if ran != 2 {
		t.Errorf("the application ran %d times, not twice", ran)
	}
}

func TestBodiesTogetherHaveALimit(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{}, 10)
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			began <- struct{}{}
			<-release
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{scales.MaxBody(10), scales.BodyMemory(15)}})
	first := make(chan response)
	go func() { first <- s.send("POST", "/", "0123456789") }()
	<-began
	s.send("POST", "/", "012345").problem(t, 503, "bodies-too-large")
	second := make(chan response)
	go func() { second <- s.send("POST", "/", "01234") }()
	<-began
	close(release)
	(<-first).is(t, 200, "")
	(<-second).is(t, 200, "")
	for range 3 { // what is over is not counted any more
		s.send("POST", "/", "0123456789").is(t, 200, "")
	}
}

func TestAConnectionServesFurtherRequestsAfterABody(t *testing.T) {
	// The deadline for reading a body must not outlive it: net/http would take the client for gone.
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			<-time.After(150 * time.Millisecond) // longer than BodyTimeout
			_, _ = io.Copy(w, r.Body)
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{scales.BodyTimeout(50 * time.Millisecond)}})
	keep := &http.Client{Transport: &http.Transport{}}
	defer keep.CloseIdleConnections()
	for range 2 {
		res, err := keep.Post(s.url+"/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || string(body) != "x" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	}
}

func TestEverythingEndToEndSurvives(t *testing.T) {
	binary := string([]byte{0, 1, 2, 0xff, '\r', '\n', '\r', '\n', 0})
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %q %q %q %d", r.Method, r.RequestURI, r.Host, r.Proto, r.Header["X-Twice"],
			r.Header.Get("Traceparent"), r.Header.Get("X-Hop"), len(body)))
		w.Header().Set("Connection", "X-Own-Hop")
		w.Header().Set("X-Own-Hop", "1")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	})
	s := single(t, app, setup{})
	answer := s.send("PATCH", "/a%2Fb?x=%20&y", binary, "Host", "shop.example", "X-Twice", "1", "X-Twice", "2",
		"Traceparent", "00-1-1-01", "Connection", "X-Hop", "X-Hop", "1").is(t, 418, binary)
	want := `PATCH /a%2Fb?x=%20&y shop.example HTTP/1.1 ["1" "2"] "00-1-1-01" "" 9`
	if got := answer.Header.Get("X-Seen"); got != want {
		t.Errorf("seen: %s, want %s", got, want)
	}
	if got := answer.Header["Set-Cookie"]; !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Errorf("Set-Cookie: %q", got)
	}
	if answer.Header.Get("X-Own-Hop") != "" {
		t.Error("a hop-by-hop field of the application came through")
	}
}

func TestWithoutAWorkerJobsAreRefused(t *testing.T) {
	s := single(t, newShelf(), setup{idle: true})
	s.send("POST", "/books", "Emma").problem(t, 503, "no-worker")
	s.run()
	s.send("POST", "/books", "Emma").is(t, 201, "")
}

func TestAJobThatNobodyBeginsIsWithdrawnAndOneThatRunsIsNot(t *testing.T) {
	release, began := make(chan struct{}), make(chan string, 10)
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			began <- r.URL.Path
			<-release
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{scales.Deadline(300 * time.Millisecond)}, worker: []scales.WorkerOption{scales.Concurrency(1)}})
	first := make(chan response)
	go func() { first <- s.send("POST", "/first", "") }()
	<-began
	s.send("POST", "/second", "").problem(t, 503, "not-started")
	(<-first).problem(t, 504, "still-running")
	close(release)
	s.second().send("POST", "/third", "").is(t, 200, "") // however busy the machine is
	if path := <-began; path != "/third" {
		t.Errorf("%s ran although it was withdrawn", path)
	}
}

func TestAFullQueueRefuses(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			began <- struct{}{}
			<-release
		}
	})
	s := single(t, app, setup{server: []scales.ServerOption{scales.QueueLength(1)}})
	first := make(chan response)
	go func() { first <- s.send("POST", "/", "") }()
	<-began
	s.send("POST", "/", "").problem(t, 503, "queue-full")
	close(release)
	(<-first).is(t, 200, "")
}

func TestAClientThatLeavesWithdrawsItsJob(t *testing.T) {
	release, began := make(chan struct{}), make(chan string, 10)
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			began <- r.URL.Path
			<-release
		}
	})
	s := single(t, app, setup{worker: []scales.WorkerOption{scales.Concurrency(1)}})
	first := make(chan response)
	go func() { first <- s.send("POST", "/first", "") }()
	<-began
	ctx, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "POST", s.url+"/second", nil)
		_, err := client.Do(req)
		left <- err
	}()
	jobs := func() int { return must(s.cache.Queue().Stats(context.Background()))(t).Jobs }
	await.Until(t, "both jobs are there", func() bool { return jobs() == 2 })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the client that left: %v", err)
	}
	await.Until(t, "the second job is withdrawn", func() bool { return jobs() == 1 })
	close(release)
	(<-first).is(t, 200, "")
	s.send("POST", "/third", "").is(t, 200, "")
	if path := <-began; path != "/third" {
		t.Errorf("%s ran although its client had left", path)
	}
}

func TestDelegatedReadsTravelAsJobsAndAreNotStored(t *testing.T) {
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, r.URL.RawQuery+r.Header.Get("Cookie"))
	})
	delegate := func(r *http.Request) bool { return r.URL.Path == "/search" }
	s := single(t, app, setup{fill: []string{"/"}, server: []scales.ServerOption{scales.Delegate(delegate)}})
	s.send("GET", "/search?q=1", "", "Cookie", "a=b").is(t, 200, "q=1a=b")
	head := s.send("HEAD", "/search?q=1", "").is(t, 200, "")
	if head.Header.Get("Content-Length") != "3" || head.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("HEAD: %v", head.Header)
	}
	if n := must(s.cache.Len(context.Background()))(t); n != 1 {
		t.Errorf("%d entries, the filled one alone was to be stored", n)
	}
}

func TestMethodsAndPathsThatAreOurs(t *testing.T) {
	s := single(t, newShelf(), setup{fill: []string{"/books"}})
	s.send("TRACE", "/books", "").problem(t, 501, "method-not-supported")
	s.send("GET", "/.scales/x", "").problem(t, 404, "reserved")
	s.send("POST", "/.scales/x", "").problem(t, 404, "reserved")
}

func TestNotFoundAndMiddleware(t *testing.T) {
	notFound := handler(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		_, _ = io.WriteString(w, "nothing here")
	})
	s := single(t, newShelf(), setup{idle: true, server: []scales.ServerOption{scales.NotFound(notFound)}})
	var order []string
	named := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return handler(func(w http.ResponseWriter, r *http.Request) {
				order = append(order, name)
				w.Header().Add("Vary", "Origin")
				next.ServeHTTP(w, r)
			})
		}
	}
	s.server.Use(named("outer"), named("inner"))
	s.send("GET", "/none", "").problem(t, 503, "not-filled")
	s.fill("/books")
	s.send("GET", "/none", "").is(t, 404, "nothing here")
	if hit := s.send("GET", "/books", ""); hit.Header.Get("Vary") != "Origin" {
		t.Errorf("a field of the middleware became %q", hit.Header["Vary"])
	}
	if fmt.Sprint(order[:2]) != "[outer inner]" {
		t.Errorf("order: %v", order)
	}
}

func TestAServerWorksWhereverAHandlerDoes(t *testing.T) {
	books := newShelf()
	app := http.NewServeMux()
	app.Handle("/", books)
	app.Handle("/shop/", http.StripPrefix("/shop", books)) // chi's Mount keeps the prefix, and so do keys
	s := single(t, app, setup{fill: []string{"/books", "/shop/books"}})
	mux := http.NewServeMux()
	mux.Handle("/", s.server)
	router := chi.NewRouter()
	router.Mount("/shop", s.server)
	for _, test := range []struct {
		name, prefix string
		handler      http.Handler
	}{
		{"ServeMux", "", mux}, {"StripPrefix", "/prefix", http.StripPrefix("/prefix", s.server)}, {"chi", "/shop", router},
	} {
		t.Run(test.name, func(t *testing.T) {
			web := httptest.NewServer(test.handler)
			defer web.Close()
			for _, step := range []struct {
				method, path string
				status       int
			}{{"GET", "/books", 200}, {"PUT", "/books/9", 204}, {"GET", "/books/9", 200}} {
				req := must(http.NewRequest(step.method, web.URL+test.prefix+step.path, strings.NewReader("Emma")))(t)
				if got := answerTo(t, req); got.StatusCode != step.status {
					t.Errorf("%s %s: %d %s", step.method, step.path, got.StatusCode, got.body)
				}
			}
		})
	}
	secure := httptest.NewUnstartedServer(s.server)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	h2 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer h2.CloseIdleConnections()
	for _, method := range []string{"GET", "POST"} {
		res, err := h2.Do(must(http.NewRequest(method, secure.URL+"/books", strings.NewReader("")))(t))
		if err != nil || res.ProtoMajor != 2 || res.StatusCode/100 != 2 {
			t.Errorf("%s over HTTP/2: %v, %v", method, res, err)
			continue
		}
		_ = res.Body.Close()
	}
}

func TestAClosedServerRefusesJobsAndStillReads(t *testing.T) {
	s := single(t, newShelf(), setup{fill: []string{"/books"}})
	if err := s.server.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.send("POST", "/books", "x").problem(t, 503, "draining")
	s.send("GET", "/books", "").is(t, 200, "0 books")
}

func TestADrainingServerServesAndClosesConnections(t *testing.T) {
	s := single(t, newShelf(), setup{fill: []string{"/books"}})
	keepAlive := &http.Client{Transport: &http.Transport{}}
	defer keepAlive.CloseIdleConnections()
	for _, drained := range []bool{false, true} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			res := must(keepAlive.Do(must(http.NewRequest(method, s.url+"/books", strings.NewReader("x")))(t)))(t)
			_ = res.Body.Close()
			if res.StatusCode >= 300 || res.Close != drained {
				t.Errorf("%s while it is drained %t: %d, closes its connection %t", method, drained, res.StatusCode, res.Close)
			}
		}
		s.server.Drain()
	}
}

package scales_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// pages is an application whose pages show how often something was changed, and whose changes answer as a test wants.
type pages struct {
	version atomic.Int64
	change  func(w http.ResponseWriter, r *http.Request)
	page    func(w http.ResponseWriter, r *http.Request) // nil shows the version
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet:
		p.version.Add(1)
		p.change(w, r)
	case p.page != nil:
		p.page(w, r)
	default:
		_, _ = fmt.Fprint(w, p.version.Load())
	}
}

// shows checks which of the pages show the version, and that the others show another.
func (s *system) shows(version string, current []string, old []string) {
	s.t.Helper()
	for _, path := range current {
		if got := s.send("GET", path, ""); got.body != version {
			s.t.Errorf("%s shows %d %q, want %q", path, got.StatusCode, got.body, version)
		}
	}
	for _, path := range old {
		if got := s.send("GET", path, ""); got.body == version {
			s.t.Errorf("%s was rendered", path)
		}
	}
}

func TestPlainHTTPSaysWhatChanged(t *testing.T) {
	names := []string{"/a", "/b", "/c", "/d?x=1", "/e"}
	for _, test := range []struct {
		name    string
		method  string
		target  string
		change  func(w http.ResponseWriter, r *http.Request)
		renders []string
	}{
		{"the target", "PUT", "/a", func(w http.ResponseWriter, r *http.Request) {}, []string{"/a"}},
		{"a target with a query that has an entry", "POST", "/d?x=1", func(w http.ResponseWriter, r *http.Request) {}, []string{"/d?x=1"}},
		{"a redirection", "POST", "/a", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/b", http.StatusSeeOther) }, []string{"/a", "/b"}},
		{"Content-Location", "PATCH", "/a", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Location", "c") }, []string{"/a", "/c"}},
		{"an absolute Location of the origin", "POST", "/a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://shop.example:443/b#x")
		}, []string{"/a", "/b"}},
		{"an absolute Location of the Host", "POST", "/a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://"+r.Host+"/b")
		}, []string{"/a", "/b"}},
		{"a Location elsewhere", "POST", "/a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://elsewhere.example/b")
		}, []string{"/a"}},
		{"links", "DELETE", "/e", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Link", `</a>; rel="invalidates", </b>; rel=next`)
			w.Header().Add("Link", `<c>; rel="x Invalidates"`)
		}, []string{"/a", "/c", "/e"}},
		{"a writer", "POST", "/e", func(w http.ResponseWriter, r *http.Request) {
			_ = scales.Writer(r.Context()).Update(r.Context(), "/b", "/d?x=1")
		}, []string{"/b", "/d?x=1", "/e"}},
		{"a refusal", "POST", "/a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/b")
			w.WriteHeader(422)
		}, nil},
		{"a refusal with a writer", "POST", "/a", func(w http.ResponseWriter, r *http.Request) {
			_ = scales.Writer(r.Context()).Update(r.Context(), "/c")
			w.WriteHeader(422)
		}, []string{"/c"}},
		{"a safe method", "OPTIONS", "/a", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", "/b") }, nil},
		{"a query", "QUERY", "/a", func(w http.ResponseWriter, r *http.Request) {}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := &pages{change: test.change}
			s := single(t, app, setup{fill: names, cache: []scales.CacheOption{scales.Origin("https://shop.example")}})
			s.send(test.method, test.target, "")
			rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(test.renders, name) })
			s.shows("1", test.renders, rest)
		})
	}
}

func TestATargetWithAQueryAndNoEntryIsNotStored(t *testing.T) {
	s := single(t, &pages{change: func(http.ResponseWriter, *http.Request) {}}, setup{fill: []string{"/a"}})
	s.send("POST", "/a?session=1", "").is(t, 200, "")
	s.send("GET", "/a?session=1", "").problem(t, 404, "not-found")
}

func TestAnApplicationBehindAProxyIsOneOfScales(t *testing.T) {
	app := newShelf()
	upstream := httptest.NewServer(handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `</books>; rel="invalidates"`)
		if r.URL.Path == "/break" {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "short")
			return
		}
		app.ServeHTTP(w, r)
	}))
	defer upstream.Close()
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(upstream.URL))(t))
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	s := single(t, proxy, setup{fill: []string{"/books"}})
	s.send("POST", "/books", "Emma").is(t, 201, "")
	s.send("GET", "/books", "").is(t, 200, "1 books")
	s.send("GET", "/books/1", "").is(t, 200, "Emma")
	s.send("POST", "/break", "").problem(t, 502, "application-aborted")
}

func TestAJobThatFailsLeavesNothingOfItsOwn(t *testing.T) {
	for name, fail := range map[string]func(w http.ResponseWriter){
		"panic": func(http.ResponseWriter) { panic("oh no") },
		"5xx":   func(w http.ResponseWriter) { w.WriteHeader(500) },
		"abort": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			app := &pages{change: func(w http.ResponseWriter, r *http.Request) {
				cw := scales.Writer(r.Context())
				_ = cw.Push(r.Context(), "/pushed", scales.Entry{Status: 200, Body: []byte("half"), PushOnly: true})
				_ = cw.Update(r.Context(), "/b")
				fail(w)
			}}
			s := single(t, app, setup{fill: []string{"/a", "/b"}})
			answer := s.send("POST", "/a", "")
			if want := map[string]int{"panic": 500, "5xx": 500, "abort": 502}[name]; answer.StatusCode != want {
				t.Errorf("%d %s", answer.StatusCode, answer.body)
			}
			s.send("GET", "/pushed", "").problem(t, 404, "not-found")
			// What it may have changed is rendered some time.
			for _, path := range []string{"/a", "/b"} {
				await.Until(t, "what it may have changed is rendered", func() bool { return s.send("GET", path, "").body == "1" })
			}
			s.send("POST", "/a", "")
		})
	}
}

func TestAWriterPushesAndDestroys(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		var refused []error
		app := &pages{
			page: func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/gone" {
					http.NotFound(w, r)
					return
				}
				_, _ = io.WriteString(w, "rendered")
			},
			change: func(w http.ResponseWriter, r *http.Request) {
				ctx, cw := r.Context(), scales.Writer(r.Context())
				ticket, err := cw.Ticket(ctx)
				refused = append(refused, err,
					cw.Push(ctx, "/exact", scales.Text("exact").At(ticket)),
					cw.Push(ctx, "/only", scales.Entry{Status: 200, Body: []byte("only"), PushOnly: true}),
					cw.Push(ctx, "/inexact", scales.HTML("pushed")),
					cw.Destroy(ctx, "/gone"),
					cw.Push(ctx, "/gone-exactly", scales.Gone().At(ticket)))
			},
		}
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/gone-exactly", "/other"}})
		s.send("POST", "/other", "").is(t, 200, "")
		if err := errors.Join(refused...); err != nil {
			t.Fatal(err)
		}
		s.send("GET", "/exact", "").is(t, 200, "exact")
		s.send("GET", "/only", "").is(t, 200, "only")
		s.send("GET", "/gone", "").problem(t, 404, "not-found")
		s.send("GET", "/gone-exactly", "").problem(t, 404, "not-found")
		await.Until(t, "the push is confirmed by a render", func() bool { return s.send("GET", "/inexact", "").body == "rendered" })
	})
}

func TestAWriterRefusesWhatIsBad(t *testing.T) {
	var got map[string]error
	var kept scales.CacheWriter
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) {
		ctx, cw := r.Context(), scales.Writer(r.Context())
		kept = cw
		got = map[string]error{
			"no slash":       cw.Update(ctx, "/b", "header"),
			"bad encoding":   cw.Destroy(ctx, "/%zz"),
			"no status":      cw.Push(ctx, "/b", scales.Entry{}),
			"status 500":     cw.Push(ctx, "/b", scales.Entry{Status: 500}),
			"private":        cw.Push(ctx, "/b", scales.Text("").With("Cache-Control", "private")),
			"set-cookie":     cw.Push(ctx, "/b", scales.Text("").With("Set-Cookie", "a=b")),
			"split":          cw.Push(ctx, "/b", scales.Text("").With("X-A", "a\r\nb: c")),
			"too large":      cw.Push(ctx, "/b", scales.Data("a/b", make([]byte, 101))),
			"coded":          cw.Push(ctx, "/b", scales.Text("").With("Content-Encoding", "gzip")),
			"many":           cw.Update(ctx, slices.Repeat([]string{"/b"}, 10_001)...),
			"foreign ticket": cw.Push(ctx, "/b", scales.Text("").At(foreign)),
		}
	}}
	s := single(t, app, setup{fill: []string{"/a", "/b"}, cache: []scales.CacheOption{scales.MaxEntrySize(100)}})
	other := must(scales.NewCache(redistest.StartEmbedded(t).Client(t), scales.Partitions(3)))(t)
	foreign = must(other.Ticket(context.Background()))(t)
	s.send("POST", "/a", "").is(t, 200, "")
	for name, err := range got {
		want := scales.ErrNotStorable
		switch name {
		case "no slash", "bad encoding":
			want = scales.ErrKey
		case "many":
			want = nil
		}
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.shows("0", []string{"/b"}, nil)
	if err := kept.Update(context.Background(), "/b"); !errors.Is(err, scales.ErrFinished) {
		t.Errorf("after the handler returned: %v", err)
	}
	if _, err := kept.Ticket(context.Background()); !errors.Is(err, scales.ErrFinished) {
		t.Errorf("a ticket after the handler returned: %v", err)
	}
	if _, ok := scales.WriterFrom(context.Background()); ok || scales.Writer(context.Background()).Update(context.Background(), "x") != nil {
		t.Error("outside of a job there is a writer that does something")
	}
}

var foreign scales.Ticket

func TestRenderOutcomes(t *testing.T) {
	for _, test := range []struct {
		name   string
		page   func(w http.ResponseWriter, r *http.Request)
		status int // what a server answers then
		body   string
	}{
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusMovedPermanently) }, 301, "<a href=\"/x\">Moved Permanently</a>.\n\n"},
		{"no content", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, 204, ""},
		{"gone", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(410) }, 404, ""},
		{"forbidden", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, 404, ""},
		{"no-store", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "no-store") }, 404, ""},
		{"private", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "private") }, 404, ""},
		{"cookie", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Set-Cookie", "a=b") }, 404, ""},
		{"vary", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Vary", "Cookie") }, 404, ""},
		{"vary by encoding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "accept-encoding")
			_, _ = io.WriteString(w, "x")
		}, 200, "x"},
		{"too large", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 101)) }, 404, ""},
		{"server error", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, 200, "good"},
		{"too many requests", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, 200, "good"},
		{"panic", func(w http.ResponseWriter, r *http.Request) { panic("oh no") }, 200, "good"},
		{"abort", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, 200, "good"},
		{"short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "short")
		}, 200, "good"},
		{"time-out", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 200, "good"},
		{"unknown coding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "compress")
			_, _ = io.WriteString(w, "x")
		}, 404, ""},
		{"broken coding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "by hand")
		}, 200, "good"},
		{"a coding of nothing", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Encoding", "br") }, 200, ""},
		{"coded too large", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			coded := gzip.NewWriter(w)
			_, _ = coded.Write(make([]byte, 101))
			_ = coded.Close()
		}, 404, ""},
		{"hint", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			_, _ = io.WriteString(w, "after the hint")
		}, 200, "after the hint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var bad atomic.Bool
			app := &pages{
				change: func(w http.ResponseWriter, r *http.Request) { bad.Store(true) },
				page: func(w http.ResponseWriter, r *http.Request) {
					if bad.Load() {
						test.page(w, r)
						return
					}
					_, _ = io.WriteString(w, "good")
				},
			}
			s := single(t, app, setup{
				fill: []string{"/a"}, cache: []scales.CacheOption{scales.MaxEntrySize(100)},
				worker: []scales.WorkerOption{scales.RenderTimeout(200 * time.Millisecond)},
			})
			s.send("PUT", "/a", "").is(t, 200, "")
			if got := s.send("GET", "/a", ""); got.StatusCode != test.status || test.status != 404 && got.body != test.body {
				t.Errorf("%d %q", got.StatusCode, got.body)
			}
		})
	}
}

func TestGzippedPagesAreStoredPlain(t *testing.T) {
	var plain = strings.Repeat("plain ", 10)
	app := &pages{page: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(gzipped(t, plain))
	}}
	s := single(t, app, setup{fill: []string{"/a"}, idle: true})
	got := s.send("GET", "/a", "").is(t, 200, plain)
	if got.Header.Get("Content-Encoding") != "" {
		t.Errorf("Content-Encoding: %s", got.Header.Get("Content-Encoding"))
	}
}

func TestAHandlerCannotTellThatItIsNotBehindNetHTTP(t *testing.T) {
	var hijack, unflushable error
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) {
		_, _, hijack = http.NewResponseController(w).Hijack()
		unflushable = http.NewResponseController(w).Flush()
		server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
		_, _ = fmt.Fprintf(w, "%t %t %s %s %d", server != nil, r.RemoteAddr != "", r.Proto, r.FormValue("a"), r.ContentLength)
	}}
	s := single(t, app, setup{})
	s.send("POST", "/?x=1", "a=b", "Content-Type", "application/x-www-form-urlencoded").is(t, 200, "true true HTTP/1.1 b 3")
	if hijack == nil || !strings.Contains(hijack.Error(), "hijack") {
		t.Errorf("hijacking: %v", hijack)
	}
	if unflushable != nil {
		t.Errorf("flushing: %v", unflushable)
	}
}

func TestAWorkerRunsOnceAndDrains(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, "done")
	}}
	s := single(t, app, setup{idle: true})
	stop := s.run()
	if err := s.worker.Run(context.Background()); !errors.Is(err, scales.ErrRunning) {
		t.Errorf("a second Run: %v", err)
	}
	answer := make(chan response)
	go func() { answer <- s.send("POST", "/", "") }()
	<-began
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	close(release)
	(<-answer).is(t, 200, "done")
	<-stopped
	if stats := must(s.cache.Queue().Stats(context.Background()))(t); stats.Workers != 0 || stats.Jobs != 0 {
		t.Errorf("left over: %+v", stats)
	}
}

func TestABrokenJobNeverStopsAWorker(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		namespace := redistest.Namespace(t)
		s := start(t, rdb, newShelf(), setup{cache: []scales.CacheOption{scales.Namespace(namespace), scales.Partitions(partitions)}})
		queue := "{" + namespace + ":0}:q:jobs"
		for _, values := range [][]string{
			{"by", "hand"},
			{"id", "1", "server", "x", "deadline", "9999999999999999", "request", "no request"},
			{"id", "1", "server", "a:{b}", "deadline", "9999999999999999", "request", "POST / HTTP/1.1\r\nHost: a\r\n\r\n"},
		} {
			if err := rdb.XAdd(context.Background(), &redis.XAddArgs{Stream: queue, Values: values}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.send("POST", "/books", "Emma").is(t, 201, "")
		await.Until(t, "there are three dead letters", func() bool { return s.stats().DeadLetters >= 3 })
		for letter, err := range s.cache.Queue().DeadLetters(context.Background()) {
			if err != nil || letter.Reason == "" {
				t.Errorf("%+v, %v", letter, err)
			}
		}
	})
}

func TestAnEntryThatCannotBeDecodedIsLostUntilItIsRendered(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		namespace := redistest.Namespace(t)
		s := start(t, rdb, newShelf(), setup{
			cache: []scales.CacheOption{scales.Namespace(namespace)}, fill: []string{"/books"},
			server: []scales.ServerOption{scales.LocalCopy(0)}, // a copy would hide it
		})
		name := "{" + namespace + ":0}:e:/books"
		whole := must(rdb.Get(context.Background(), name).Result())(t)
		for _, spoil := range []func() error{
			func() error { return rdb.Set(context.Background(), name, whole[:len(whole)-2], 0).Err() },
			func() error { return rdb.Set(context.Background(), name, "by hand", 0).Err() },
			func() error {
				return errors.Join(rdb.Del(context.Background(), name).Err(), rdb.RPush(context.Background(), name, "x").Err())
			},
			func() error { return rdb.Del(context.Background(), name).Err() },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			s.send("GET", "/books", "").problem(t, 503, "entry-lost")
			s.send("PUT", "/books", "").is(t, 204, "")
			if got := s.send("GET", "/books", ""); got.StatusCode != 200 {
				t.Errorf("after a render: %d %s", got.StatusCode, got.body)
			}
		}
	})
}

func TestRepliesHaveALimit(t *testing.T) {
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 101)) }}
	s := single(t, app, setup{fill: []string{"/a"}, worker: []scales.WorkerOption{scales.MaxReply(100)}})
	s.send("POST", "/a", "").problem(t, 502, "reply-too-large")
	s.shows("1", []string{"/a"}, nil)
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Many writes to one list at two workers: the list is rendered by one of them at a time, far less often than it is
// written, and it is current for every reply.
func TestRendersAreSharedByJobsAndProcesses(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		const writes = 200
		var version, renders, running, most atomic.Int64
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.Header().Set("X-Version", fmt.Sprint(version.Add(1)))
				return
			}
			renders.Add(1)
			now := running.Add(1)
			for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
			}
			_, _ = fmt.Fprint(w, version.Load())
			<-time.After(5 * time.Millisecond)
			running.Add(-1)
		})
		namespace := scales.Namespace(redistest.Namespace(t))
		one := start(t, rdb, app, setup{cache: []scales.CacheOption{namespace, scales.Partitions(partitions)}, fill: []string{"/list"}})
		two := start(t, rdb, app, setup{cache: []scales.CacheOption{namespace, scales.Partitions(partitions)}})
		var group sync.WaitGroup
		for i := range writes {
			group.Go(func() {
				s := []*system{one, two}[i%2]
				written, _ := strconv.Atoi(s.send("POST", "/list", "").is(t, 200, "").Header.Get("X-Version"))
				shown, _ := strconv.Atoi(s.send("GET", "/list", "").body)
				if shown < written {
					t.Errorf("after the reply to write %d the list shows %d", written, shown)
				}
			})
		}
		group.Wait()
		if most.Load() != 1 {
			t.Errorf("%d renders of one key at a time", most.Load())
		}
		if renders.Load() > writes/2 {
			t.Errorf("%d renders for %d writes", renders.Load(), writes)
		}
		t.Logf("%d renders for %d writes", renders.Load(), writes)
	})
}

func TestPushOnlyEntriesStay(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		app := &pages{
			change: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
			page:   func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		}
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}})
		entry := scales.Text("pushed")
		entry.PushOnly = true
		if err := errors.Join(s.cache.Update(ctx, "/a"), s.cache.Push(ctx, "/a", entry), s.cache.Update(ctx, "/a")); err != nil {
			t.Fatal(err)
		}
		s.send("POST", "/a", "") // may have changed something, so its target is rendered some time
		await.Until(t, "everything is rendered", func() bool { return s.stats().Pending == 0 })
		s.send("GET", "/a", "").is(t, 200, "pushed")
		if err := s.cache.Destroy(ctx, "/a"); err != nil {
			t.Fatal(err)
		}
		s.send("GET", "/a", "").problem(t, 404, "not-found")
	})
}

func TestALocationOnAnotherOfOurHostsIsRenderedThere(t *testing.T) {
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", "https://a.example/x") }}
	s := single(t, app, setup{
		fill:  []string{"//a.example/x", "//b.example/x"},
		cache: []scales.CacheOption{scales.Hosts("a.example", "b.example"), scales.Origin("https://a.example")},
	})
	s.send("POST", "/form", "", "Host", "b.example").is(t, 200, "")
	s.send("GET", "/x", "", "Host", "a.example").is(t, 200, "1")
	s.send("GET", "/x", "", "Host", "b.example").is(t, 200, "0")
}

func TestAWorkerOfAnotherLayoutDoesNotRun(t *testing.T) {
	rdb := redistest.StartEmbedded(t).Client(t)
	name := scales.Namespace(redistest.Namespace(t))
	if err := newCache(t, rdb, name, scales.Partitions(2)).MarkFilled(context.Background()); err != nil {
		t.Fatal(err)
	}
	worker := must(scales.NewWorker(newCache(t, rdb, name, scales.Partitions(3)), newShelf()))(t)
	if err := worker.Run(context.Background()); !errors.Is(err, scales.ErrLayout) {
		t.Errorf("Run: %v", err)
	}
	closed := newCache(t, rdb)
	worker = must(scales.NewWorker(closed, newShelf()))(t)
	if err := closed.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := worker.Run(context.Background()); !errors.Is(err, scales.ErrClosed) {
		t.Errorf("Run on a closed cache: %v", err)
	}
}

func TestHandlersThatHangDoNotHoldKeysFromOtherWorkers(t *testing.T) {
	rdb := redistest.StartEmbedded(t).Client(t)
	name := scales.Namespace(redistest.Namespace(t))
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	hangs := handler(func(w http.ResponseWriter, r *http.Request) { <-release })
	hanging := start(t, rdb, hangs, setup{cache: []scales.CacheOption{name}, worker: []scales.WorkerOption{
		scales.RenderConcurrency(1), scales.RenderTimeout(50 * time.Millisecond),
	}})
	app := newShelf()
	s := start(t, rdb, app, setup{cache: []scales.CacheOption{name}})
	if err := hanging.cache.Update(context.Background(), "/books"); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the page is rendered", func() bool { return s.send("GET", "/books", "").body == "0 books" })
}

func TestThousandsOfUpdatesAreRenderedWithoutPauses(t *testing.T) {
	var renders atomic.Int64
	app := handler(func(w http.ResponseWriter, r *http.Request) { renders.Add(1) })
	s := single(t, app, setup{})
	updates := make([]string, 2000)
	for i := range updates {
		updates[i] = fmt.Sprint("/", i)
	}
	began := time.Now()
	if err := s.cache.Update(context.Background(), updates...); err != nil {
		t.Fatal(err)
	}
	await.Within(t, 3*time.Minute, "everything is rendered", func() bool { return must(s.cache.Len(context.Background()))(t) >= len(updates) })
	t.Logf("%d renders in %v", renders.Load(), time.Since(began))
}

// A request that fails has its target rendered, for it may have changed something. Who sends many of them for pages that
// nobody knows must not fill the cache.
func TestFailedRequestsBringUpABoundedNumberOfEntries(t *testing.T) {
	const most, requests = 3, 12
	rdb, namespace := redistest.StartEmbedded(t).Client(t), redistest.Namespace(t)
	var mu sync.Mutex
	rendered := make(map[string]bool)
	app := &pages{
		change: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		page: func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			rendered[r.URL.Path] = true
		},
	}
	s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Namespace(namespace), scales.MaxEntries(most)}})
	for i := range requests {
		s.send("POST", fmt.Sprint("/", i), "")
	}
	for busy := int64(1); busy > 0; {
		busy = 0
		for _, name := range []string{"pending", "running"} {
			busy += must(rdb.ZCard(t.Context(), "{"+namespace+":0}:"+name).Result())(t)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := must(s.cache.Len(t.Context()))(t); n > most || len(rendered) <= most {
		t.Errorf("%d entries after renders of %d pages, the limit is %d", n, len(rendered), most)
	}
}

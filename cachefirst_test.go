package scales_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// embedded starts a service that CacheFirst wraps.
func embedded(t *testing.T, cache *scales.Cache, service http.Handler) *system {
	t.Helper()
	web := httptest.NewServer(service)
	t.Cleanup(web.Close)
	return &system{t: t, cache: cache, url: web.URL}
}

func TestCacheFirstServesHitsAndKeepsThemCurrent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		cache := newCache(t, rdb, scales.Partitions(partitions))
		service := scales.CacheFirst(cache)(app)
		s := embedded(t, cache, service)
		s.send("GET", "/books", "").is(t, 200, "0 books")
		s.send("GET", "/books", "").is(t, 200, "0 books")
		if n := app.rendered("/books"); n != 2 {
			t.Errorf("a miss was stored: the application was asked %d times", n)
		}
		worker := must(scales.NewWorker(cache, service))(t)
		if _, err := worker.Fill(context.Background(), maps.All(keys("/books"))); err != nil {
			t.Fatal(err)
		}
		hit := s.send("GET", "/books", "").is(t, 200, "0 books")
		if hit.Header.Get("Cache-Status") != "scales; hit" || app.rendered("/books") != 3 {
			t.Errorf("after a fill: %v, asked %d times", hit.Header, app.rendered("/books"))
		}
		s.send("POST", "/books", "Emma").is(t, 201, "")
		s.send("GET", "/books", "").is(t, 200, "1 books")
		if got := s.send("GET", "/books/1", "").is(t, 200, "Emma"); got.Header.Get("Cache-Status") == "" {
			t.Error("what was created is not in the cache")
		}
		s.send("DELETE", "/books/1", "").is(t, 204, "")
		s.send("GET", "/books/1", "").is(t, 404, "404 page not found\n")
		s.send("GET", "/books", "").is(t, 200, "0 books")
	})
}

func TestCacheFirstInARouterOfChi(t *testing.T) {
	app := newShelf()
	for name, build := range map[string]func(*scales.Cache) (service http.Handler, prefix string){
		"the whole router": func(c *scales.Cache) (http.Handler, string) {
			r := chi.NewRouter()
			r.Use(scales.CacheFirst(c))
			r.Handle("/*", app)
			return r, ""
		},
		"a mounted router": func(c *scales.Cache) (http.Handler, string) {
			r := chi.NewRouter()
			r.Route("/shop", func(r chi.Router) {
				r.Use(scales.CacheFirst(c))
				r.Handle("/*", http.StripPrefix("/shop", app))
			})
			return r, "/shop"
		},
		"single routes": func(c *scales.Cache) (http.Handler, string) {
			r := chi.NewRouter()
			r = r.With(scales.CacheFirst(c, scales.RenderThrough(app))).(*chi.Mux)
			r.Get("/books", app.ServeHTTP)
			r.Get("/books/{id}", app.ServeHTTP)
			r.Put("/books/{id}", app.ServeHTTP)
			return r, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			cache := newCache(t, redistest.StartEmbedded(t).Client(t))
			service, prefix := build(cache)
			s := embedded(t, cache, service)
			s.send("PUT", prefix+"/books/1", "Emma").is(t, 204, "")
			if got := s.send("GET", prefix+"/books/1", "").is(t, 200, "Emma"); got.Header.Get("Cache-Status") == "" {
				t.Error("the page is not in the cache")
			}
		})
	}
}

func TestCacheFirstWhereItCannotRenderIsRefused(t *testing.T) {
	ran := false
	app := handler(func(w http.ResponseWriter, r *http.Request) { ran = true })
	cache := newCache(t, redistest.StartEmbedded(t).Client(t))
	router := chi.NewRouter()
	router.With(scales.CacheFirst(cache)).Post("/books", app.ServeHTTP)
	embedded(t, cache, router).send("POST", "/books", "").problem(t, 500, "misconfigured")
	mux := http.NewServeMux()
	mux.Handle("POST /books", scales.CacheFirst(cache)(app))
	embedded(t, cache, mux).send("POST", "/books", "").problem(t, 500, "misconfigured")
	tenants := chi.NewRouter()
	tenants.Route("/{tenant}", func(r chi.Router) {
		r.Use(scales.CacheFirst(cache))
		r.Handle("/*", app)
	})
	embedded(t, cache, tenants).send("POST", "/acme/books", "").problem(t, 500, "misconfigured")
	mux = http.NewServeMux()
	mux.Handle("/{tenant}/", scales.CacheFirst(cache)(app))
	embedded(t, cache, mux).send("POST", "/acme/books", "").problem(t, 500, "misconfigured")
	if ran {
		t.Error("the handler ran")
	}
}

func TestCacheFirstLeavesFailuresToTheService(t *testing.T) {
	cache := newCache(t, redistest.StartEmbedded(t).Client(t))
	app := &pages{change: func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }}
	service := scales.CacheFirst(cache)(app)
	worker := must(scales.NewWorker(cache, service))(t)
	if _, err := worker.Fill(context.Background(), maps.All(keys("/a"))); err != nil {
		t.Fatal(err)
	}
	s := embedded(t, cache, service)
	if _, err := client.Post(s.url+"/a", "text/plain", nil); !errors.Is(err, io.EOF) {
		t.Errorf("an abort: %v", err)
	}
	await.Until(t, "what it may have changed is rendered", func() bool { return s.send("GET", "/a", "").body == "1" })
}

func TestCacheFirstGoesOnWithoutRedis(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	cache := newCache(t, server.Client(t), scales.StoreTimeout(200*time.Millisecond))
	app := newShelf()
	s := embedded(t, cache, scales.CacheFirst(cache, scales.RenderTimeout(100*time.Millisecond))(app))
	server.Kill()
	s.send("GET", "/books", "").is(t, 200, "0 books")
	s.send("POST", "/books", "Emma").is(t, 201, "")
	s.send("GET", "/books", "").is(t, 200, "1 books")
}

// A change of groups while Redis is away does not hold the response; the members are rendered when it is back.
func TestCacheFirstRendersGroupsThatChangedDuringAnOutage(t *testing.T) {
	redistest.Require(t)
	const timeout = 200 * time.Millisecond
	server := redistest.Start(t, redistest.AppendOnly())
	app := newClub(map[string]string{"/a": `"x"`, "/b": `"x", "y"`, "/c": `"y"`})
	cache := newCache(t, server.Client(t), scales.StoreTimeout(timeout))
	service := scales.CacheFirst(cache, scales.RenderTimeout(timeout))(app)
	worker := must(scales.NewWorker(cache, service))(t)
	ctx := context.Background()
	if _, err := worker.Fill(ctx, scales.Keys("/a", "/b", "/c")); err != nil {
		t.Fatal(err)
	}
	s := embedded(t, cache, service)
	server.Kill()
	for range 3 { // the first one may not know of the outage
		begin := time.Now()
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`, "update-groups", "y")
		// It waits for what a look at the target, the renders and a call of Redis may take, and for a slow machine.
		if took := time.Since(begin); took > 3*timeout+time.Second {
			t.Errorf("the response was held for %v", took)
		}
	}
	server.Restart()
	for _, path := range []string{"/a", "/b", "/c"} {
		current := func() bool {
			entry, err := cache.Get(ctx, path)
			return err == nil && string(entry.Body) == "version 3"
		}
		for begin := time.Now(); !current(); {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("%s is not current after the outage: %+v", path, must(cache.Explain(ctx, path))(t))
			}
		}
	}
	if report := must(worker.Verify(ctx, scales.Keys()))(t); report.Drift() != 0 || report.Current != 3 {
		t.Errorf("%+v", report)
	}
}

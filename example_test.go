package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-chi/chi/v5"
	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
)

// A whole program in small: an application that knows nothing of Scales, a worker that runs it, and a server that
// clients talk to. The list is current as soon as the reply to the POST is there.
func ExampleNewServer() {
	var mu sync.Mutex
	var notes []string
	app := http.NewServeMux()
	app.HandleFunc("GET /notes", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, "notes: %s", strings.Join(notes, ", "))
	})
	app.HandleFunc("POST /notes", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, r.FormValue("text"))
		w.WriteHeader(http.StatusCreated)
	})

	rdb, closeRedis := connect()
	defer closeRedis()
	cache := check(scales.NewCache(rdb, scales.Namespace("notes")))
	worker := check(scales.NewWorker(cache, app))
	server := check(scales.NewServer(cache))

	ctx, stop := context.WithCancel(context.Background())
	worked := make(chan error)
	go func() { worked <- worker.Run(ctx) }()
	check(worker.Fill(ctx, scales.Keys("/notes")))
	awaitWorker(cache)

	send(server, "GET", "/notes", "")
	send(server, "POST", "/notes", "text=milk")
	send(server, "GET", "/notes", "")
	send(server, "GET", "/nothing", "")

	// After http.Server.Shutdown: the server first, so that its last jobs still find a worker.
	check(0, server.Close(context.Background()))
	stop()
	check(0, <-worked)
	check(0, cache.Close(context.Background()))
	// Output:
	// GET /notes: 200 notes:
	// POST /notes: 201
	// GET /notes: 200 notes: milk
	// GET /nothing: 404 {"type":"urn:scales:problem:not-found","title":"There is no such resource","status":404,"detail":"the cache has no entry for this target"}
}

// A fill that begins at the front page and follows links. A dead link is named together with a page that has it.
func ExampleFollowLinks() {
	app := http.NewServeMux()
	for path, text := range map[string]string{
		"/{$}":     `<link rel="stylesheet" href="/app.css"><a href="/notes">Notes</a>`,
		"/notes":   `<a href="/notes/1">the first</a> <a href="/notes/2">the second</a>`,
		"/notes/1": `Milk`,
	} {
		app.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, text)
		})
	}
	app.HandleFunc("GET /app.css", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a { color: teal }") })

	rdb, closeRedis := connect()
	defer closeRedis()
	cache := check(scales.NewCache(rdb, scales.Namespace("notes")))
	worker := check(scales.NewWorker(cache, app))
	report := check(worker.Fill(context.Background(), scales.Keys("/"), scales.FollowLinks()))
	fmt.Println(report.Stored, "stored")
	for _, problem := range report.Problems {
		fmt.Printf("%s: %s\n", problem.Key, problem.Reason)
	}
	check(0, cache.Close(context.Background()))
	// Output:
	// 4 stored
	// /notes/2: the application has no such resource; /notes leads there
}

// A handler names the resources that its change shows in, besides the target of the request and what Location names.
func ExampleWriter() {
	var mu sync.Mutex
	songs := map[string][]string{"nina-simone": {"Sinnerman"}}
	app := chi.NewRouter()
	app.Get("/artists/{slug}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(w, strings.Join(songs[chi.URLParam(r, "slug")], ", "))
	})
	app.Post("/tracks", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		slug := r.FormValue("artist")
		songs[slug] = append(songs[slug], r.FormValue("name"))
		if err := scales.Writer(r.Context()).Update(r.Context(), "/artists/"+slug); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})

	server, stop := begin(app, "/artists/nina-simone")
	defer stop()
	send(server, "GET", "/artists/nina-simone", "")
	send(server, "POST", "/tracks", "artist=nina-simone&name=Feeling+Good")
	send(server, "GET", "/artists/nina-simone", "")
	// Output:
	// GET /artists/nina-simone: 200 Sinnerman
	// POST /tracks: 200
	// GET /artists/nina-simone: 200 Sinnerman, Feeling Good
}

// A page that says of itself that it depends on the language is rendered in each, and a request gets what it asks for.
func ExampleVary() {
	rdb, closeRedis := connect()
	defer closeRedis()
	cache := check(scales.NewCache(rdb, scales.Namespace("hello"), scales.Vary("Accept-Language", "en", "de")))
	server := check(scales.NewServer(cache))
	worker := check(scales.NewWorker(cache, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Language")
		fmt.Fprint(w, map[string]string{"en": "Hello", "de": "Hallo"}[r.Header.Get("Accept-Language")])
	})))
	check(worker.Fill(context.Background(), scales.Keys("/")))

	for _, language := range []string{"de-AT, de;q=0.9, en;q=0.8", "ja"} {
		request := httptest.NewRequest("GET", "/", nil)
		request.Header.Set("Accept-Language", language)
		answer := httptest.NewRecorder()
		server.ServeHTTP(answer, request)
		fmt.Println(answer.Body)
	}
	check(0, server.Close(context.Background()))
	check(0, cache.Close(context.Background()))
	// Output:
	// Hallo
	// Hello
}

// An existing service of chi gets a cache, and no queue. A page that is not in the cache still comes from the handler.
func ExampleCacheFirst() {
	rdb, closeRedis := connect()
	defer closeRedis()
	cache := check(scales.NewCache(rdb, scales.Namespace("shop")))

	price := 5
	service := chi.NewRouter()
	service.Use(scales.CacheFirst(cache))
	service.Get("/{page}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %d", chi.URLParam(r, "page"), price)
	})
	service.Put("/price", func(w http.ResponseWriter, r *http.Request) { price++ })

	// The fill renders the pages through the service itself.
	filler := check(scales.NewWorker(cache, service))
	check(filler.Fill(context.Background(), scales.Keys("/price")))

	for _, method := range []string{"GET", "PUT", "GET"} {
		send(service, method, "/price", "")
	}
	answer := httptest.NewRecorder()
	service.ServeHTTP(answer, httptest.NewRequest("GET", "/price", nil))
	fmt.Println("Cache-Status:", answer.Header().Get("Cache-Status"))
	send(service, "GET", "/imprint", "")
	check(0, cache.Close(context.Background()))
	// Output:
	// GET /price: 200 price 5
	// PUT /price: 200
	// GET /price: 200 price 6
	// Cache-Status: scales; hit
	// GET /imprint: 200 imprint 6
}

// The keys come from wherever the application has its data; an error of the sequence ends the fill.
func ExampleWorker_Fill() {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/me":
			w.Header().Set("Cache-Control", "private") // not for everybody, so not for the cache
		case "/tracks/2":
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	keys := iter.Seq2[string, error](func(yield func(string, error) bool) {
		for _, key := range []string{"/", "/me", "/tracks/1", "/tracks/2"} {
			if !yield(key, nil) {
				return
			}
		}
	})

	rdb, closeRedis := connect()
	defer closeRedis()
	cache := check(scales.NewCache(rdb, scales.Logger(slog.New(slog.DiscardHandler))))
	worker := check(scales.NewWorker(cache, app))
	report, err := worker.Fill(context.Background(), keys, scales.FillParallel(1))
	fmt.Println(report.Keys, "keys:", report.Stored, "stored,", report.Refused, "refused,", report.Failed, "failed")
	for _, problem := range report.Problems {
		fmt.Println(problem.Key, problem.Reason)
	}
	fmt.Println(err)
	check(0, cache.Close(context.Background()))
	// Output:
	// 4 keys: 2 stored, 1 refused, 1 failed
	// /me Cache-Control: private
	// /tracks/2 status 500 Internal Server Error
	// scales: the fill is incomplete: 1 of 4 keys failed, the first is /tracks/2: status 500 Internal Server Error
}

// A program that is no web application keeps a document in the cache, which no worker can render.
func ExampleCache_Push() {
	rdb, closeRedis := connect()
	defer closeRedis()
	ctx := context.Background()
	cache := check(scales.NewCache(rdb, scales.Namespace("weather")))

	entry := check(scales.JSON(map[string]int{"degrees": 21})).With("Cache-Control", "max-age=60")
	entry.PushOnly = true
	check(0, cache.Push(ctx, "/vienna.json", entry))
	check(0, cache.MarkFilled(ctx)) // from now on a miss is a 404

	server := check(scales.NewServer(cache))
	send(server, "GET", "/vienna.json", "")
	send(server, "HEAD", "/graz.json", "")

	stored := check(cache.Get(ctx, "/vienna.json"))
	fmt.Println(stored.Status, stored.Header.Get("Cache-Control"), slices.Sorted(maps.Keys(stored.Header)))
	check(0, server.Close(ctx))
	check(0, cache.Close(ctx))
	// Output:
	// GET /vienna.json: 200 {"degrees":21}
	// HEAD /graz.json: 404
	// 200 max-age=60 [Cache-Control Content-Type Etag]
}

// connect starts an embedded Redis and connects to it. A program has a real one: redis.NewClient, redis.NewFailoverClient
// or redis.NewClusterClient.
func connect() (rdb redis.UniversalClient, closeRedis func()) {
	embedded := check(miniredis.Run())
	client := redis.NewClient(&redis.Options{Addr: embedded.Addr(), ContextTimeoutEnabled: true})
	return client, func() {
		check(0, client.Close())
		embedded.Close()
	}
}

// begin does what ExampleNewServer shows.
func begin(app http.Handler, keys ...string) (server *scales.Server, stop func()) {
	rdb, closeRedis := connect()
	cache := check(scales.NewCache(rdb))
	worker := check(scales.NewWorker(cache, app))
	server = check(scales.NewServer(cache))
	ctx, cancel := context.WithCancel(context.Background())
	worked := make(chan error)
	go func() { worked <- worker.Run(ctx) }()
	check(worker.Fill(ctx, scales.Keys(keys...)))
	awaitWorker(cache)
	return server, func() {
		check(0, server.Close(context.Background()))
		cancel()
		check(0, <-worked)
		check(0, cache.Close(context.Background()))
		closeRedis()
	}
}

// awaitWorker waits until a worker is alive: a server refuses jobs with 503 before the first one.
func awaitWorker(cache *scales.Cache) {
	for begin := time.Now(); check(cache.Queue().Stats(context.Background())).Workers == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			check(0, errors.New("there is no worker"))
		}
	}
}

// send sends a form to a handler and prints what it answers.
func send(h http.Handler, method, target, form string) {
	request := httptest.NewRequest(method, target, strings.NewReader(form))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, request)
	body := check(io.ReadAll(answer.Body))
	fmt.Println(strings.TrimSpace(fmt.Sprintf("%s %s: %d %s", method, target, answer.Code, body)))
}

// check returns the value, or ends the program.
func check[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// Embed is an existing chi service, with routes and a store of its own, that Scales was added to: the lines that begin
// with "scales" and the fill. Its handlers were not changed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
)

// routes is the service. With a cache, its pages come from there.
func routes(books *store, cache *scales.Cache) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Use(scales.CacheFirst(cache))

	r.Get("/books", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, books.all())
	})
	r.Get("/books/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(chi.URLParam(r, "id"))
		book, ok := books.get(id)
		if !ok {
			http.NotFound(w, r)
			return
		}
		answer(w, http.StatusOK, book)
	})
	r.Post("/books", func(w http.ResponseWriter, r *http.Request) {
		var book book
		if err := json.NewDecoder(r.Body).Decode(&book); err != nil || book.Title == "" {
			http.Error(w, "a book has a title", http.StatusUnprocessableEntity)
			return
		}
		book = books.add(book.Title)
		w.Header().Set("Location", "/books/"+strconv.Itoa(book.ID))
		answer(w, http.StatusCreated, book)
	})
	return r
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// keys are the resources of the service, for the fill.
func keys(books *store) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if !yield("/books", nil) {
			return
		}
		for _, book := range books.all() {
			if !yield("/books/"+strconv.Itoa(book.ID), nil) {
				return
			}
		}
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, listen string) error {
	rdb, stopRedis, err := connect()
	if err != nil {
		return err
	}
	defer stopRedis()

	cache, err := scales.NewCache(rdb, scales.Namespace("embed"))
	if err != nil {
		return err
	}
	books := newStore("Emma", "Dracula")
	service := routes(books, cache)

	// The fill renders every page through the service itself.
	worker, err := scales.NewWorker(cache, service)
	if err != nil {
		return err
	}
	if _, err := worker.Fill(ctx, keys(books)); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: service}
	serving := make(chan error, 1)
	go func() { serving <- web.Serve(listener) }()
	fmt.Printf("Serving http://%s/books\n", listener.Addr())
	select {
	case err := <-serving:
		return err
	case <-ctx.Done():
	}
	if err := web.Shutdown(context.Background()); err != nil {
		return err
	}
	return cache.Close(context.Background())
}

// connect returns the Redis of REDIS_URL, or an embedded one.
func connect() (redis.UniversalClient, func(), error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		options, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, err
		}
		options.ContextTimeoutEnabled = true
		rdb := redis.NewClient(options)
		return rdb, func() { _ = rdb.Close() }, nil
	}
	embedded := miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		return nil, nil, err
	}
	go func() { // its clock stands still by itself
		for range time.Tick(100 * time.Millisecond) {
			embedded.FastForward(100 * time.Millisecond)
		}
	}()
	rdb := redis.NewClient(&redis.Options{Addr: embedded.Addr(), ContextTimeoutEnabled: true})
	return rdb, func() { _ = rdb.Close(); embedded.Close() }, nil
}

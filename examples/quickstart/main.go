// Quickstart is a whole Scales application in one process: a list of notes that is rendered when it changes.
package main

import (
	"context"
	"flag"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-chi/chi/v5"
	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
)

var page = template.Must(template.New("").Parse(`<!DOCTYPE html><title>Notes</title><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>
`))

// application is an ordinary handler. It does not know Scales.
func application() http.Handler {
	var mu sync.RWMutex
	var notes []string
	r := chi.NewRouter()
	r.Get("/notes", func(w http.ResponseWriter, r *http.Request) {
		mu.RLock()
		defer mu.RUnlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, notes)
	})
	r.Post("/notes", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		notes = append(notes, r.FormValue("text"))
		mu.Unlock()
		http.Redirect(w, r, "/notes", http.StatusSeeOther)
	})
	return r
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	options := &redis.Options{Addr: "", ContextTimeoutEnabled: true}
	if url := os.Getenv("REDIS_URL"); url != "" {
		options = must(redis.ParseURL(url))
	} else {
		embedded := miniredis.NewMiniRedis()
		check(embedded.Start())
		go func() { // its clock stands still by itself
			for range time.Tick(100 * time.Millisecond) {
				embedded.FastForward(100 * time.Millisecond)
			}
		}()
		defer embedded.Close()
		options.Addr = embedded.Addr()
	}
	cache := must(scales.NewCache(redis.NewClient(options), scales.Namespace("quickstart")))
	worker := must(scales.NewWorker(cache, application()))
	server := must(scales.NewServer(cache))
	working, rest := context.WithCancel(context.Background()) // until the server has had its last reply
	worked := make(chan error, 1)
	go func() { worked <- worker.Run(working) }()
	_ = must(worker.Fill(ctx, scales.Keys("/notes")))
	listener := must(net.Listen("tcp", *listen))
	web := &http.Server{Handler: server}
	go func() { _ = web.Serve(listener) }()
	url := "http://" + listener.Addr().String()
	fmt.Printf("Serving %s from the cache. Try\n\n  curl -i %[1]s/notes\n  curl -i -d text=hello %[1]s/notes\n  curl -i %[1]s/notes\n", url)

	<-ctx.Done()
	check(web.Shutdown(context.Background()))
	check(server.Close(context.Background()))
	rest()
	check(<-worked)
	check(cache.Close(context.Background()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

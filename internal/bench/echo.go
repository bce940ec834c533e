package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// An echoOrder is what an order says where the application is an echo.
type echoOrder struct {
	Wait  time.Duration // before a POST is answered
	Count bool          // how often each body was posted is counted in Redis
}

// An echo is an application without state: a POST is answered with 201 and its own body. A GET is a page that no GET before
// has shown, so every render changes what is stored.
type echo struct {
	wait   time.Duration                                // stands for I/O
	count  func(ctx context.Context, body string) error // nil if bodies are not counted
	counts counts
	busy   atomic.Int64 // nanoseconds in the handler of POSTs
}

func (e *echo) tally() tally {
	t := e.counts.tally()
	t.Busy = time.Duration(e.busy.Load())
	return t
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Content-Type", trivialType)
		_, _ = fmt.Fprintf(w, "<p>%0*d</p>\n", payload, e.counts.renders.Add(1))
		return
	}
	begun := time.Now()
	defer func() { e.busy.Add(int64(time.Since(begun))) }()
	e.counts.writes.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if e.count != nil {
		if err := e.count(r.Context(), string(body)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if e.wait > 0 {
		time.Sleep(e.wait)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body)
}

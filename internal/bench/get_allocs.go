package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
)

// A dropWriter is a ResponseWriter that can be used again and again.
type dropWriter struct {
	header http.Header
	status int
	length int
}

func (w *dropWriter) Header() http.Header    { return w.header }
func (w *dropWriter) WriteHeader(status int) { w.status = status }

func (w *dropWriter) Write(p []byte) (int, error) {
	w.length += len(p)
	return len(p), nil
}

// countAllocations counts the allocations of ServeHTTP where the entry is in the local copy.
func (b *reads) countAllocations(ctx context.Context) error {
	const calls = 100_000
	server, end, err := readOrder{Kind: oursCopied, Redis: b.redis, Namespace: b.namespace}.handler(ctx)
	if err != nil {
		return err
	}
	defer end()
	page := readPages[0]
	r, w := httptest.NewRequest(http.MethodGet, page.key, nil), &dropWriter{header: make(http.Header)}
	answer := func() {
		clear(w.header)
		w.status, w.length = 0, 0
		server.ServeHTTP(w, r)
	}
	allocations := testing.AllocsPerRun(calls, answer)
	if w.status != http.StatusOK || w.length != page.size {
		return fmt.Errorf("GET %s: status %d, %d bytes", page.key, w.status, w.length)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		answer()
	}
	runtime.ReadMemStats(&after)
	fmt.Fprintf(b.out, "%d calls of ServeHTTP with a ResponseWriter that is used again: %d allocations of %d bytes in the whole process\n",
		calls, after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc)
	fmt.Fprintf(b.out, "figure get_local_allocs %.0f (goal 0)\n\n", allocations)
	return nil
}

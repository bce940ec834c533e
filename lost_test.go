package scales_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// Redis comes back with what it had a while ago, as after a crash with appendfsync everysec, or a failover.
func TestLostWritesAreNoticedAndMade(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	rdb := server.Client(t)
	s := start(t, rdb, newShelf(), setup{fill: []string{"/books"}})
	ctx := context.Background()
	s.send("PUT", "/books/kept", "text").is(t, 204, "")
	if err := rdb.Save(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	s.send("PUT", "/books/lost", "text").is(t, 204, "")
	s.send("PUT", "/books/kept", "another text").is(t, 204, "")
	server.Kill()
	server.Restart()

	await.Until(t, "the loss is noticed", func() bool { return errors.Is(s.cache.Ready(ctx), scales.ErrUnsure) })
	s.send("GET", "/none", "").problem(t, 503, "cache-unsure")
	s.await("/books/lost", "text")
	s.await("/books/kept", "another text")
	s.await("/books", "2 books")

	books := []string{"/books", "/books/kept", "/books/lost"}
	if report := s.verify(books[:1]); report.Drift() != 0 {
		t.Errorf("%+v", report)
	}
	s.send("GET", "/none", "").problem(t, 503, "cache-unsure") // a verify of some keys says nothing
	if report := s.verify(append(books, "/books/none"), scales.AllKeys()); report.Drift() != 0 || report.Unsettled != 0 {
		t.Errorf("%+v", report)
	}
	s.send("GET", "/none", "").problem(t, 404, "not-found")
	if err := s.cache.Ready(ctx); err != nil {
		t.Error(err)
	}
}

// A restart that loses nothing, a trimmed log, and a flush are no doubt.
func TestWhatLostNothingIsNotUnsure(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t, redistest.AppendOnly())
	rdb := server.Client(t)
	s := start(t, rdb, newShelf(), setup{fill: []string{"/books"}, cache: []scales.CacheOption{scales.LogLength(1)}})
	ctx := context.Background()
	for range 300 { // the log is trimmed in pieces of a hundred records
		s.send("PUT", "/books/a", "text").is(t, 204, "")
	}
	server.Kill()
	server.Restart()
	await.Until(t, "writes are answered", func() bool { return s.send("PUT", "/books/a", "text").StatusCode == 204 })
	<-time.After(1100 * time.Millisecond) // two looks of the worker
	if err := s.cache.Ready(ctx); err != nil {
		t.Error(err)
	}
	s.send("GET", "/none", "").problem(t, 404, "not-found")
}

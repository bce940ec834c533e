package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// groupPageCount is how many pages the writes go to, in turn.
	groupPageCount = 1000

	// groupConnections is how many writes may be under way. Further ones wait, which counts.
	groupConnections = 500
)

// writers send writes at a steady rate, whether or not those before have been answered.
type writers struct {
	interval time.Duration
	writes   []request // one for each page
	written  []int     // how often each page was written
	next     int       // index of the next page
	all      clients
	idle     chan *client
}

// newWriters returns writers whose connections are open. When ctx ends, what they do fails.
func newWriters(ctx context.Context, url string, rate int) (*writers, error) {
	w := &writers{
		interval: time.Second / time.Duration(rate), written: make([]int, groupPageCount), idle: make(chan *client, groupConnections),
	}
	for i := range groupPageCount {
		write, err := newRequest(http.MethodPost, url+pageKey(i), "")
		if err != nil {
			return nil, err
		}
		w.writes = append(w.writes, write)
	}
	var err error
	if w.all, err = connect(ctx, url+pageKey(0), groupConnections); err != nil {
		return nil, err
	}
	for _, c := range w.all {
		w.idle <- c
	}
	return w, nil
}

// A timed is a write: when it was due, from the beginning, and how long after that its reply was there.
type timed struct{ due, latency time.Duration }

// send writes from now on, at least for the window and until the channel is closed, and returns when all writes are
// answered. A reply that is not 204 is an error.
//
// A write is due one interval after the one before. Its latency counts from then: one that leaves late, because the
// machine is busy or all connections wait for replies, has waited as well.
func (w *writers) send(ctx context.Context, window time.Duration, until <-chan struct{}) ([]timed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu    sync.Mutex
		sent  []timed
		group sync.WaitGroup
	)
	begun := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := time.Duration(0); due < window || !isClosed(until); due += w.interval {
		timer.Reset(time.Until(begun.Add(due)))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		page := w.next
		w.next = (w.next + 1) % len(w.writes)
		w.written[page]++
		group.Go(func() {
			if err := w.one(ctx, w.writes[page]); err != nil {
				cancel(fmt.Errorf("a write to %s, due after %v: %w", pageKey(page), due, err))
				return
			}
			latency := time.Since(begun.Add(due))
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, timed{due, latency})
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(sent) == 0 {
		return nil, errors.New("no write was due")
	}
	return sent, nil
}

// one sends a write over a connection that has none under way.
func (w *writers) one(ctx context.Context, write request) error {
	select {
	case c := <-w.idle:
		_, err := c.send(write, http.StatusNoContent)
		w.idle <- c
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

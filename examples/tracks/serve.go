package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// serve answers requests until ctx is done. Then it takes no more connections, says with drain that those that there are will be
// closed, and gives their clients the time of -grace to use them once more. It returns when the requests in progress are answered.
func (p *program) serve(ctx context.Context, listener net.Listener, handler http.Handler, drain func()) error {
	open := new(connections)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         open.note,
		ErrorLog:          slog.NewLogLogger(p.logger.Handler(), slog.LevelWarn),
	}
	served := begin(func() error { return server.Serve(listener) })
	select {
	case <-served.done:
		return fmt.Errorf("serving: %w", served.err)
	case <-ctx.Done():
	}
	drain()
	_ = listener.Close() // Serve says so
	<-served.done        // before that, Shutdown would close it once more
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-open.none():
	case <-timer.C:
	}
	if err := p.drain(ctx, server.Shutdown); err != nil {
		return errors.Join(fmt.Errorf("finishing the requests in progress: %w", err), server.Close())
	}
	return nil
}

// connections counts the connections of a server.
type connections struct {
	mu    sync.Mutex
	count int
	empty chan struct{} // closed when there is none, once somebody has asked
}

// note is what http.Server tells of a connection.
func (c *connections) note(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.count++
	case http.StateClosed, http.StateHijacked:
		c.count--
		c.tell()
	}
}

// none returns a channel that is closed when there is no connection. It is asked for once, when no more are taken.
func (c *connections) none() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	empty := make(chan struct{})
	c.empty = empty
	c.tell()
	return empty
}

// tell is called with mu held.
func (c *connections) tell() {
	if c.empty != nil && c.count == 0 {
		close(c.empty)
		c.empty = nil
	}
}

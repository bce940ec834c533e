package redistest

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded is a Redis inside the test's process. Keys expire with the time
// that passes, as in real Redis.
type Embedded struct {
	redis *miniredis.Miniredis
}

// StartEmbedded starts an embedded Redis on a port of 127.0.0.1. It is stopped
// when the test ends.
func StartEmbedded(t testing.TB) *Embedded {
	t.Helper()
	embedded := miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		t.Fatalf("redistest: start the embedded Redis: %v", err)
	}
	t.Cleanup(embedded.Close)
	follow(t, embedded)
	return &Embedded{redis: embedded}
}

// follow has keys expire as time passes: by default the clock of the embedded
// Redis stands still, and its own way to follow ours, ClockTTL, goes through
// all keys with every command.
func follow(t testing.TB, embedded *miniredis.Miniredis) {
	const tick = 20 * time.Millisecond
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for last := time.Now(); ; {
			select {
			case now := <-ticker.C:
				embedded.FastForward(now.Sub(last))
				last = now
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

// Addr returns host:port.
func (e *Embedded) Addr() string { return e.redis.Addr() }

// Client returns a client of the embedded Redis that heeds the deadlines of
// contexts. It is closed when the test ends.
func (e *Embedded) Client(t testing.TB) *redis.Client {
	t.Helper()
	return newClient(t, e.Addr())
}

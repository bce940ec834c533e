package redistest

import (
	"testing"

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
	embedded.ClockTTL(true) // by default its clock stands still
	if err := embedded.Start(); err != nil {
		t.Fatalf("redistest: start the embedded Redis: %v", err)
	}
	t.Cleanup(embedded.Close)
	return &Embedded{redis: embedded}
}

// Addr returns host:port.
func (e *Embedded) Addr() string { return e.redis.Addr() }

// Client returns a client of the embedded Redis that heeds the deadlines of
// contexts. It is closed when the test ends.
func (e *Embedded) Client(t testing.TB) *redis.Client {
	t.Helper()
	return newClient(t, e.Addr())
}

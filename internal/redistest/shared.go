package redistest

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"
)

// running is what the tests of this binary share, nil outside [Main]. It is
// package state because TestMain and a test have no other way to meet.
var running atomic.Pointer[shared]

type shared struct {
	server  lazy[*Server]
	cluster lazy[*Cluster]
}

// Main runs the tests of a binary, stops the Redis they shared, and returns
// the exit code for os.Exit. If all tests passed it also checks, as goleak
// does and with its options, that no goroutine is left. The log of go-redis is
// silent meanwhile: what it tells of servers that tests stop would bury the
// line of the test that failed.
func Main(m goleak.TestingM, options ...goleak.Option) int {
	redis.SetLogger(&logging.VoidLogger{})
	s := &shared{}
	running.Store(s)
	code := m.Run()
	running.Store(nil)
	s.server.stop()
	s.cluster.stop()
	if code != 0 {
		return code
	}
	if err := goleak.Find(options...); err != nil {
		fmt.Fprintf(os.Stderr, "redistest: the tests passed, but goroutines are left: %v\n", err)
		return 1
	}
	return 0
}

// Shared returns a client of the redis-server that all tests of this binary
// share; it is started for the first test that asks. The client is closed when
// the test ends. The test binary's TestMain has to call [Main]. Whoever shares
// the server uses a [Namespace] of its own and neither flushes nor configures
// it.
func Shared(t testing.TB) *redis.Client {
	t.Helper()
	Require(t)
	server, err := current(t).server.get(func() (*Server, error) { return Launch() })
	if err != nil {
		t.Fatalf("redistest: the shared redis-server: %v", err)
	}
	return server.Client(t)
}

// SharedCluster is [Shared] for a Redis Cluster of three masters.
func SharedCluster(t testing.TB) *redis.ClusterClient {
	t.Helper()
	Require(t)
	cluster, err := current(t).cluster.get(func() (*Cluster, error) { return LaunchCluster(sharedClusterNodes) })
	if err != nil {
		t.Fatalf("redistest: the shared cluster: %v", err)
	}
	return cluster.Client(t)
}

func current(t testing.TB) *shared {
	t.Helper()
	s := running.Load()
	if s == nil {
		t.Fatal("redistest: a shared Redis needs a TestMain that calls redistest.Main, which stops it")
	}
	return s
}

// lazy is a value started for the first who asks. If that failed, everybody
// gets the same error.
type lazy[T interface{ Stop() }] struct {
	once    sync.Once
	value   T
	err     error
	started bool
}

func (l *lazy[T]) get(start func() (T, error)) (T, error) {
	l.once.Do(func() {
		l.value, l.err = start()
		l.started = l.err == nil
	})
	return l.value, l.err
}

// stop may be called only when nobody calls get any more.
func (l *lazy[T]) stop() {
	if l.started {
		l.value.Stop()
	}
}

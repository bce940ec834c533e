// Package blackbox_test builds examples/tracks and uses it from outside, in many processes: as browsers and API clients
// do, as an operator who starts, stops and kills processes does, and as Redis does when it fails. It knows only the flags,
// the pages and the names of keys in Redis that are documented, and nothing of the code.
//
//	go test ./internal/blackbox                                 # what CI runs
//	go test -short ./internal/blackbox                          # without Redis Cluster, and with less load
//	go test -v -run MixedLoad/single ./internal/blackbox -writes 20000 -race-build
//	make kill-workers                                           # and the other campaigns of faults, see faults_test.go
//
// With -race the processes are built with the race detector too.
package blackbox_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/redistest"
)

var (
	raceBuild      = flag.Bool("race-build", raceDetector, "build servers, workers and the fill of all pages with the race detector")
	trafficReaders = flag.Int("readers", 3, "`number` of readers while Redis goes away, is flushed, or a process ends")
	trafficWriters = flag.Int("writers", 4, "`number` of writers at the same time")
	writes         = flag.Int("writes", 400, "`number` of writes of the mixed load, on each kind of Redis")
	faultWrites    = flag.Int("fault-writes", 150, "`number` of writes of each campaign of faults, at least")
	redisLife      = flag.Duration("redis-life", 1500*time.Millisecond, "`time` from one kill of Redis to the next in campaigns of faults")
	faultSeed      = flag.Uint64("fault-seed", 0, "`number` that decides what happens in a campaign of faults; 0 for any")
)

func TestMain(m *testing.M) {
	code := redistest.Main(m)
	if err := errors.Join(tracks.remove(), plainTracks.remove()); err != nil {
		fmt.Fprintf(os.Stderr, "blackbox: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// store is a Redis that the processes of a test share.
type store struct {
	flags      []string // that lead a process to it
	partitions int
	client     redis.UniversalClient
	embedded   bool
}

// eachStore runs the test once on each kind of Redis. Nothing may flush or stop what it is given.
func eachStore(t *testing.T, test func(t *testing.T, at store)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(t, embeddedStore(t)) })
	realStores(t, test)
}

// realStores is eachStore without the embedded Redis, which says little about what becomes of what was killed or damaged.
func realStores(t *testing.T, test func(t *testing.T, at store)) {
	t.Helper()
	t.Run("single", func(t *testing.T) { test(t, sharedStore(t)) })
	t.Run("cluster", func(t *testing.T) {
		if testing.Short() {
			t.Skip("Redis Cluster is left out with -short")
		}
		test(t, clusterStore(redistest.SharedCluster(t)))
	})
}

// embeddedStore is a Redis inside the process of the test, and the test's own.
func embeddedStore(t *testing.T) store {
	t.Helper()
	s := singleStore(redistest.StartEmbedded(t).Client(t))
	s.embedded = true
	return s
}

// sharedStore is a redis-server that all tests share.
func sharedStore(t *testing.T) store {
	t.Helper()
	return singleStore(redistest.Shared(t))
}

func singleStore(client *redis.Client) store {
	return store{flags: []string{"-redis", "redis://" + client.Options().Addr}, partitions: 1, client: client}
}

// clusterStore is a Redis Cluster, with several partitions on each of its nodes.
func clusterStore(client *redis.ClusterClient) store {
	return store{flags: []string{"-redis-cluster", strings.Join(client.Options().Addrs, ",")}, partitions: 16, client: client}
}

// Package redistest gives tests the Redis they need: a real redis-server
// process that can be killed, restarted and paused, and lose what it had not
// synced; a replica, a Sentinel, a real Redis Cluster; the embedded Redis, and
// a TCP proxy that cuts, stalls and delays connections or loses an answer. Only
// tests and the benchmarks import it.
//
// A test takes a server of its own with [Start] or [StartCluster] if it
// disturbs the server. Every other test shares one server and one cluster with
// the rest of its test binary, through [Each], [Shared] and [SharedCluster],
// and isolates itself by a random [Namespace]; nothing may flush them. A
// package that shares begins with
//
//	func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }
//
// No process outlives the test binary. [Main] and the tests' cleanups stop
// what was started, and on Linux the kernel kills the processes of a test
// binary that was itself killed.
package redistest

import (
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	binaryName = "redis-server"

	// requireVariable names the environment variable that turns the skip for
	// want of a redis-server into a failure. CI sets it.
	requireVariable = "SCALES_REQUIRE_REDIS"

	// clusterPartitions is the number of partitions [Each] passes on for the
	// cluster: several on each of its nodes.
	clusterPartitions = 16

	sharedClusterNodes = 3
)

// Require skips the test if there is no redis-server in the PATH. If the
// environment variable SCALES_REQUIRE_REDIS is not empty, it fails the test
// instead. Everything here that starts a real Redis for a test calls it.
func Require(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath(binaryName)
	if err == nil {
		return
	}
	if os.Getenv(requireVariable) != "" {
		t.Fatalf("redistest: %v; %s is set, so a test of real Redis may not be skipped", err, requireVariable)
	}
	t.Skipf("redistest: SKIPPED, NOT TESTED ON REAL REDIS: %v; install redis-server 7.0 or later to run this test", err)
}

// Namespace returns a namespace that no other test uses: at most 64 of the
// characters A-Z a-z 0-9 . _ -, beginning with what fits of the test's name.
func Namespace(t testing.TB) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_':
			return r
		}
		return '-'
	}, t.Name())
	return name[:min(len(name), 37)] + "-" + rand.Text()
}

// Each runs the test once on each kind of Redis, as the subtests "embedded"
// (one partition), "single" (one partition) and "cluster" (16 partitions). The
// client is the subtest's own and is closed when it ends. The embedded Redis is
// the subtest's own too; the single server and the cluster are shared, see
// [Shared].
func Each(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, partitions int)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(t, StartEmbedded(t).Client(t), 1) })
	t.Run("single", func(t *testing.T) { test(t, Shared(t), 1) })
	t.Run("cluster", func(t *testing.T) { test(t, SharedCluster(t), clusterPartitions) })
}

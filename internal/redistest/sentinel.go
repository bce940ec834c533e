package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
)

// sentinelConfiguration is the file that a Sentinel begins with, and changes. It takes a primary for gone after two seconds of
// silence, and decides alone.
const sentinelConfiguration = `port %[1]d
bind %[2]s
dir "%[3]s"
sentinel monitor %[4]s %[5]s %[6]s 1
sentinel down-after-milliseconds %[4]s 2000
sentinel failover-timeout %[4]s 10000
sentinel parallel-syncs %[4]s 1
`

// StartSentinel starts a Redis Sentinel that watches the primary at an address, under a name, and returns when it knows of a
// replica that it could put in its place: within a few seconds after the primary has gone, it does. It ends with the test.
func StartSentinel(t testing.TB, name, primary string) *Server {
	t.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		t.Fatalf("redistest: a Sentinel: %v", err)
	}
	s := Start(t, func(s *Server) {
		s.sentinel = fmt.Sprintf(sentinelConfiguration, s.port, "127.0.0.1", s.directory, name, host, port)
	})
	control := redis.NewSentinelClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true})
	defer control.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	err = await(ctx, s.ended(), func(ctx context.Context) error {
		replicas, err := control.Replicas(ctx, name).Result()
		switch {
		case err != nil:
			return err
		case len(replicas) == 0 || replicas[0]["master-link-status"] != "ok":
			return errNotSynchronized
		}
		return nil
	})
	if err != nil {
		t.Fatalf("redistest: the Sentinel on %s knows of no replica: %v\nits log:\n%s", s.Addr(), err, s.log())
	}
	return s
}

// FailoverClient returns a client of the primary that the Sentinel at an address names. It heeds the deadlines of contexts
// and is closed when the test ends.
func FailoverClient(t testing.TB, name, sentinel string) *redis.Client {
	t.Helper()
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: name, SentinelAddrs: []string{sentinel}, ContextTimeoutEnabled: true,
	})
	closeWhenDone(t, client)
	return client
}

// sentinelArguments returns the arguments of a Sentinel. Its file is written at its first start only: it keeps there what it
// learns.
func (s *Server) sentinelArguments() ([]string, error) {
	path := filepath.Join(s.directory, "sentinel.conf")
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, []byte(s.sentinel), 0o600); err != nil {
			return nil, fmt.Errorf("configure a Sentinel: %w", err)
		}
	}
	return []string{path, "--sentinel"}, nil
}

package redistest

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
)

// StartReplica is [Start] for a replica of the server at an address, and
// returns when it has all that the primary had. Where the address is that of a
// [Proxy], what passes it decides how far the replica is behind: with
// [Proxy.Hang] it gets nothing more, and does not notice until [Proxy.Restore].
// The primary is told not to wait for further replicas, which takes seconds.
func StartReplica(t testing.TB, primary string, options ...Option) *Server {
	t.Helper()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		t.Fatalf("redistest: a replica: %v", err)
	}
	client := newClient(t, primary)
	if err := client.ConfigSet(context.Background(), "repl-diskless-sync-delay", "0").Err(); err != nil {
		t.Fatalf("redistest: configure the primary of a replica: %v", err)
	}
	s := Start(t, append([]Option{Directive("replicaof", host, port)}, options...)...)
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	control := s.control()
	defer control.Close()
	err = await(ctx, s.ended(), func(ctx context.Context) error {
		info, err := control.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errNotSynchronized
		}
		return err
	})
	if err != nil {
		t.Fatalf("redistest: the replica on %s: %v\nits log:\n%s", s.Addr(), err, s.log())
	}
	return s
}

var errNotSynchronized = errors.New("it has not got everything yet")

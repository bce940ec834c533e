package redistest_test

import (
	"context"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

func TestAReplicaFollowsItsPrimaryAsFarAsTheProxyLets(t *testing.T) {
	ctx := context.Background()
	primary := redistest.Start(t)
	rdb := primary.Client(t)
	set := func(value string) {
		t.Helper()
		if err := rdb.Set(ctx, "key", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("one")
	proxy := redistest.StartProxy(t, primary.Addr())
	at := redistest.StartReplica(t, primary.Addr()).Client(t)
	behind := redistest.StartReplica(t, proxy.Addr()).Client(t)
	if got := behind.Get(ctx, "key").Val(); got != "one" {
		t.Errorf("the replica begins with %q", got)
	}
	proxy.Hang()
	set("two")
	for begin := time.Now(); at.Get(ctx, "key").Val() != "two"; {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the replica does not follow")
		}
	}
	if got := behind.Get(ctx, "key").Val(); got != "one" {
		t.Errorf("behind the proxy it has %q", got)
	}
	proxy.Restore()
	for begin := time.Now(); behind.Get(ctx, "key").Val() != "two"; {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the replica does not catch up")
		}
	}
}

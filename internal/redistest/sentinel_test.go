package redistest_test

import (
	"context"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

func TestASentinelPutsAReplicaInThePlaceOfAPrimary(t *testing.T) {
	ctx := context.Background()
	primary := redistest.Start(t)
	proxy := redistest.StartProxy(t, primary.Addr())
	replica := redistest.StartReplica(t, proxy.Addr())
	sentinel := redistest.StartSentinel(t, "books", primary.Addr())
	rdb := redistest.FailoverClient(t, "books", sentinel.Addr())
	at := replica.Client(t)
	if err := rdb.Set(ctx, "key", "kept", 0).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the replica follows", func() bool { return at.Get(ctx, "key").Val() == "kept" })
	proxy.Hang()
	if err := rdb.Set(ctx, "key", "lost", 0).Err(); err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	until(t, "the replica can be written to", func() bool { return rdb.Set(ctx, "other", "written", 0).Err() == nil })
	for name, want := range map[string]string{"key": "kept", "other": "written"} {
		if got := at.Get(ctx, name).Val(); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// until expects that a condition holds in the end.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

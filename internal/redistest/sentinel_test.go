package redistest_test

import (
	"context"
	"testing"

	"github.com/itscales/scales/internal/await"
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
	await.Until(t, "the replica follows", func() bool { return at.Get(ctx, "key").Val() == "kept" })
	proxy.Hang()
	if err := rdb.Set(ctx, "key", "lost", 0).Err(); err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	await.Until(t, "the replica can be written to", func() bool { return rdb.Set(ctx, "other", "written", 0).Err() == nil })
	for name, want := range map[string]string{"key": "kept", "other": "written"} {
		if got := at.Get(ctx, name).Val(); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

package redistest_test

import (
	"context"
	"testing"

	"github.com/itscales/scales/internal/redistest"
)

func TestACrashLosesWhatWasWrittenSinceTheCheckpoint(t *testing.T) {
	ctx := context.Background()
	server := redistest.Start(t, redistest.EverySecond())
	rdb := server.Client(t)
	set := func(value string) {
		t.Helper()
		if err := rdb.Set(ctx, "key", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("one")
	server.Kill()
	server.Restart()
	if got := rdb.Get(ctx, "key").Val(); got != "one" {
		t.Errorf("after a kill the key is %q", got)
	}
	checkpoint := server.Checkpoint()
	set("two")
	server.Crash(checkpoint)
	server.Restart()
	if got := rdb.Get(ctx, "key").Val(); got != "one" {
		t.Errorf("after a crash the key is %q", got)
	}
	set("three")
	server.Crash(server.Checkpoint())
	server.Restart()
	if got := rdb.Get(ctx, "key").Val(); got != "three" {
		t.Errorf("after a crash that loses nothing the key is %q", got)
	}
}

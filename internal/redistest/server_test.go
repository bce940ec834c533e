package redistest_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func TestServerAnswersWithoutPersistenceWhenStarted(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	for name, want := range map[string]string{"save": "", "appendonly": "no"} {
		if got := configuration(t, rdb, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestServerTakesDirectives(t *testing.T) {
	rdb := redistest.Start(t, redistest.Directive("maxmemory-policy", "allkeys-lru")).Client(t)
	if got := configuration(t, rdb, "maxmemory-policy"); got != "allkeys-lru" {
		t.Errorf("maxmemory-policy is %q", got)
	}
}

func TestServerThatCannotStartShowsItsLog(t *testing.T) {
	redistest.Require(t)
	t.Setenv("TMPDIR", t.TempDir())
	_, err := redistest.Launch(redistest.Directive("no-such-directive", "1"))
	if err == nil || !strings.Contains(err.Error(), "no-such-directive") {
		t.Errorf("got %v, want an error that names the directive", err)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestServerIsGoneWhenTheTestEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		disturb func(*redistest.Server)
	}{
		{name: "running", disturb: func(*redistest.Server) {}},
		{name: "paused", disturb: (*redistest.Server).Pause},
		{name: "killed", disturb: (*redistest.Server).Kill},
		{name: "stopped", disturb: (*redistest.Server).Stop},
		{name: "restarted", disturb: (*redistest.Server).Restart},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			t.Setenv("TMPDIR", directory)
			var address string
			t.Run("test", func(t *testing.T) {
				server := redistest.Start(t)
				address = server.Addr()
				test.disturb(server)
			})
			if address == "" {
				t.Skip("no redis-server")
			}
			if !refuses(t, address) {
				t.Error("it still listens")
			}
			left, err := os.ReadDir(directory)
			if err != nil {
				t.Fatal(err)
			}
			if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestKilledServerRefusesAndForgets(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client(t)
	set(t, rdb, "key", "value")
	server.Kill()
	if !refuses(t, server.Addr()) {
		t.Error("a killed server accepts connections")
	}
	server.Kill() // again changes nothing
	server.Restart()
	if err := rdb.Get(t.Context(), "key").Err(); err != redis.Nil {
		t.Errorf("got %v, want no such key", err)
	}
}

func TestAppendOnlyServerRemembers(t *testing.T) {
	for _, test := range []struct {
		name    string
		disturb func(*redistest.Server)
	}{
		{name: "when killed", disturb: (*redistest.Server).Kill},
		{name: "when restarted", disturb: func(*redistest.Server) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := redistest.Start(t, redistest.AppendOnly())
			rdb := server.Client(t)
			set(t, rdb, "key", "value")
			before := processID(t, rdb)
			test.disturb(server)
			server.Restart()
			if got, err := rdb.Get(t.Context(), "key").Result(); err != nil || got != "value" {
				t.Errorf("got %q, %v; want what was acknowledged", got, err)
			}
			if after := processID(t, rdb); after == before {
				t.Error("the process is the same")
			}
		})
	}
}

func TestPausedServerAnswersOnlyAfterResume(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client(t)
	set(t, rdb, "key", "value") // a connection that exists already
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := rdb.Get(ctx, "key").Err(); err == nil {
		t.Error("a paused server answered")
	}
	if refuses(t, server.Addr()) {
		t.Error("a paused server refuses connections")
	}
	server.Resume()
	if got, err := rdb.Get(t.Context(), "key").Result(); err != nil || got != "value" {
		t.Errorf("got %q, %v; want what was there before", got, err)
	}
}

func TestServerEndsTheTestWhenItCannotDoAsTold(t *testing.T) {
	redistest.Require(t)
	for name, test := range map[string]func(*redistest.Server){
		"pause without a process": func(server *redistest.Server) {
			server.Kill()
			server.Pause()
		},
		"resume without a process": func(server *redistest.Server) {
			server.Kill()
			server.Resume()
		},
		"restart after stop": func(server *redistest.Server) {
			server.Stop()
			server.Restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := record(t, func(tb testing.TB) { test(redistest.Start(tb)) })
			if recorder.fatal == "" {
				t.Error("the test went on")
			}
		})
	}
}

func configuration(t *testing.T, rdb *redis.Client, name string) string {
	t.Helper()
	values, err := rdb.ConfigGet(t.Context(), name).Result()
	if err != nil {
		t.Fatal(err)
	}
	return values[name]
}

func set(t *testing.T, rdb *redis.Client, key, value string) {
	t.Helper()
	if err := rdb.Set(t.Context(), key, value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

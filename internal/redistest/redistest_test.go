package redistest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// childVariable makes the test binary play another role, see TestMain.
const childVariable = "REDISTEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "panics":
		launchAndPrint()
		panic("as a test may")
	case "waits":
		launchAndPrint()
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	case "leaks":
		os.Exit(redistest.Main(run(func() int {
			go func() { select {} }()
			return 0
		})))
	case "fails":
		os.Exit(redistest.Main(run(func() int { return 3 })))
	case "has no Main":
		os.Exit(m.Run())
	}
	os.Exit(redistest.Main(m))
}

type run func() int

func (r run) Run() int { return r() }

func launchAndPrint() {
	server, err := redistest.Launch()
	if err != nil {
		panic(err)
	}
	fmt.Println(server.Addr())
}

// child returns a command that runs this test binary in another role.
func child(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), binary, args...)
	command.Env = append(os.Environ(), childVariable+"="+role)
	return command
}

func TestMainReturnsTheExitCodeOfTheTests(t *testing.T) {
	err := child(t, "fails").Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v, want exit status 3", err)
	}
}

func TestMainFailsWhenAGoroutineIsLeft(t *testing.T) {
	output, err := child(t, "leaks").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "goroutines are left") {
		t.Errorf("got %v and %q, want a failure that names the goroutine", err, output)
	}
}

func TestMainStopsWhatTheTestsShared(t *testing.T) {
	redistest.Require(t)
	directory := t.TempDir()
	command := child(t, "", "-test.run=^TestTestsShareOneServer$")
	command.Env = append(command.Env, "TMPDIR="+directory)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	left, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSharingWithoutMainFails(t *testing.T) {
	redistest.Require(t)
	output, err := child(t, "has no Main", "-test.run=^TestTestsShareOneServer$").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "TestMain that calls redistest.Main") {
		t.Errorf("got %v and %q, want a failure that says what is missing", err, output)
	}
}

func TestTestsShareOneServer(t *testing.T) {
	one, other := redistest.Shared(t), redistest.Shared(t)
	if one == other {
		t.Error("two tests got the same client")
	}
	if a, b := processID(t, one), processID(t, other); a != b {
		t.Errorf("two tests got the servers %s and %s", a, b)
	}
}

func TestEachRunsOnEveryKindOfRedis(t *testing.T) {
	seen := make(map[string]int)
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		kind := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
		seen[kind] = partitions
		_, clustered := rdb.(*redis.ClusterClient)
		if clustered != (kind == "cluster") {
			t.Errorf("%s got a %T", kind, rdb)
		}
		namespace := redistest.Namespace(t)
		for i := range 64 { // on all nodes of a cluster
			key := fmt.Sprintf("%s:%d", namespace, i)
			if err := rdb.Set(t.Context(), key, i, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := rdb.Get(t.Context(), key).Int(); err != nil || got != i {
				t.Fatalf("got %d, %v; want %d", got, err, i)
			}
		}
	})
	want := map[string]int{"embedded": 1, "single": 1, "cluster": 16}
	for kind, partitions := range want {
		if seen[kind] != partitions {
			if _, err := exec.LookPath("redis-server"); err != nil && kind != "embedded" {
				continue // skipped, visibly
			}
			t.Errorf("%s ran with %d partitions, want %d", kind, seen[kind], partitions)
		}
	}
}

func TestRequire(t *testing.T) {
	tests := []struct {
		name, path, required string
		wantSkip, wantFatal  bool
	}{
		{name: "skips without a redis-server", wantSkip: true},
		{name: "fails without a redis-server that is required", required: "1", wantFatal: true},
		{name: "does nothing with a redis-server", path: "bin", required: "1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			if test.path != "" {
				if err := os.WriteFile(directory+"/redis-server", []byte("#!/bin/sh\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", directory)
			t.Setenv("SCALES_REQUIRE_REDIS", test.required)
			recorder := record(t, func(tb testing.TB) { redistest.Require(tb) })
			if skipped := strings.Contains(recorder.skip, "redis-server"); skipped != test.wantSkip {
				t.Errorf("skipped with %q, want a skip: %t", recorder.skip, test.wantSkip)
			}
			if failed := strings.Contains(recorder.fatal, "redis-server"); failed != test.wantFatal {
				t.Errorf("failed with %q, want a failure: %t", recorder.fatal, test.wantFatal)
			}
		})
	}
}

func TestNamespaceIsValidAndUnique(t *testing.T) {
	valid := regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	for _, name := range []string{"short", "with spaces, ünïcödé and {braces}", strings.Repeat("long", 30)} {
		t.Run(name, func(t *testing.T) {
			one, other := redistest.Namespace(t), redistest.Namespace(t)
			if !valid.MatchString(one) {
				t.Errorf("%q is not a namespace", one)
			}
			if one == other {
				t.Errorf("twice the same: %q", one)
			}
		})
	}
}

// recorder is a test that only notes how it was ended.
type recorder struct {
	testing.TB
	skip, fatal string
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skip = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func record(t *testing.T, test func(testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return r
}

// refuses reports whether nobody listens on the address.
func refuses(t *testing.T, address string) bool {
	t.Helper()
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err == nil {
		connection.Close()
		return false
	}
	if errors.Is(err, syscall.ECONNRESET) { // whoever listened is just ending
		return false
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial %s: %v", address, err)
	}
	return true
}

func processID(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	info, err := rdb.InfoMap(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	return info["Server"]["process_id"]
}

// readLine reads one line that a child prints.
func readLine(t *testing.T, from io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(from).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

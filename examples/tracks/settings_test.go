package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFlagsThatMakeNoSense(t *testing.T) {
	const someRedis = "-redis=redis://127.0.0.1:1"
	for _, test := range []struct {
		arguments string
		names     string // what standard error must name
	}{
		{"-role none", "-role"},
		{"-role app extra", `"extra"`},
		{"-nonsense", "-nonsense"},
		{"-partitions many", "-partitions"},
		{"-role app -partitions 0", "-partitions"},
		{"-role app -partitions 1025", "-partitions"},
		{"-role app -concurrency -1", "-concurrency"},
		{"-role app -deadline 0s", "-deadline"},
		{"-role app -deadline -1s", "-deadline"},
		{"-role app -max-body -1", "-max-body"},
		{"-role app -grace -1s", "-grace"},
		{"-role app -lease -5s", "-lease"},
		{"-role app -group-limit -1", "-group-limit"},
		{"-role app -work-delay -1ms", "-work-delay"},
		{"-role app -render-delay -1ms", "-render-delay"},
		{"-role app -keys sitemap", "-keys"},
		{"-role app -db=", "-db"},
		{"-role app -namespace a:b", "-namespace"},
		{"-role app -namespace=", "-namespace"},
		{"-role app -origin localhost", "-origin"},
		{"-role app -origin http://localhost/", "-origin"},
		{"-role app -listen 8080", "-listen"},
		{"-role app -redis 127.0.0.1:6379", "-redis"},
		{"-role app -redis http://127.0.0.1:6379", "-redis"},
		{"-role app -redis-cluster 127.0.0.1", "-redis-cluster"},
		{"-role app -redis-cluster 127.0.0.1:1,", "-redis-cluster"},
		{"-role app -redis-sentinel 127.0.0.1:1", "-redis-master"},
		{"-role app -redis-master one", "-redis-sentinel"},
		{"-role app -redis-sentinel x -redis-master one", "-redis-sentinel"},
		{"-role all " + someRedis + " -redis-cluster 127.0.0.1:1", "-redis and -redis-cluster"},
		{"-role all " + someRedis + " -redis-sentinel 127.0.0.1:1 -redis-master one", "-redis and -redis-sentinel"},
		{"-local-copy much", "-local-copy"},
		{"-local-copy -1", "-local-copy"},
		{"-local-copy 0 -warm", "-warm and -local-copy"},
		{"-role worker " + someRedis + " -local-copy 0", "-local-copy is for -role all and server"},
		{"-role app -warm", "-warm is for"},
		{"-role fill " + someRedis + " -redis-replicas redis://127.0.0.1:2", "-redis-replicas is for"},
		{"-redis-replicas redis://127.0.0.1:2", "-redis-replicas needs -redis"},
		{"-role server -redis-cluster 127.0.0.1:1 -redis-replicas redis://127.0.0.1:2", "-redis-replicas needs -redis"},
		{"-role server " + someRedis + " -redis-replicas redis://127.0.0.1:2,127.0.0.1:3", "-redis-replicas must be"},
		{"-role server", "-redis"},
		{"-role worker", "-redis"},
		{"-role fill", "-redis"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(test.arguments), &stdout, &stderr); code != exitUsage {
			t.Errorf("%s exits with %d, want %d", test.arguments, code, exitUsage)
		}
		if !strings.Contains(stderr.String(), test.names) {
			t.Errorf("%s says %q, want %s named", test.arguments, stderr.String(), test.names)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s writes %q to standard output", test.arguments, stdout.String())
		}
	}
}

func TestEverythingWrongIsSaidAtOnce(t *testing.T) {
	var stdout, stderr bytes.Buffer
	run(t.Context(), strings.Fields("-role server -partitions 0 -lease 0s"), &stdout, &stderr)
	for _, name := range []string{"-partitions", "-lease", "-redis"} {
		if !strings.Contains(stderr.String(), name) {
			t.Errorf("%s is not named in %q", name, stderr.String())
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := parseSettings(nil, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		role: "all", listen: "127.0.0.1:8080", database: "tracks.db", namespace: "tracks", partitions: 1, codings: "br,zstd,gzip", concurrency: 16,
		deadline: 15 * time.Second, grace: time.Second, maxBody: 1 << 20, lease: 5 * time.Second, groupLimit: 3000, origin: "http://localhost", keys: "database",
	}
	if got != want {
		t.Errorf("the defaults are %+v, want %+v", got, want)
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-help"}, &stdout, &stderr); code != exitDone {
		t.Errorf("-help exits with %d, want %d", code, exitDone)
	}
	for _, name := range []string{"-role", "-redis-sentinel", "-render-delay", "-local-copy", "-warm", "-redis-replicas"} {
		if !strings.Contains(stderr.String(), name) {
			t.Errorf("-help does not tell of %s", name)
		}
	}
}

// lines receives what a program writes, and hands out whole lines.
type lines struct {
	mutex   sync.Mutex
	partial string
	whole   chan string
}

func newLines() *lines { return &lines{whole: make(chan string, 1000)} }

func (l *lines) Write(written []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.partial += string(written)
	for {
		line, rest, found := strings.Cut(l.partial, "\n")
		if !found {
			return len(written), nil
		}
		l.partial = rest
		l.whole <- line
	}
}

// running is the program running in the process of the test.
type running struct {
	stdout *lines
	code   chan int
	stop   context.CancelFunc
}

// start runs the program and stops it when the test ends, at the latest.
func start(t *testing.T, arguments ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &running{stdout: newLines(), code: make(chan int, 1), stop: stop}
	var stopped sync.WaitGroup
	stopped.Go(func() { p.code <- run(ctx, arguments, p.stdout, testLog{t}) })
	t.Cleanup(func() { stop(); stopped.Wait() })
	return p
}

// line waits for the next line on standard output.
func (p *running) line(t *testing.T) string {
	t.Helper()
	select {
	case line := <-p.stdout.whole:
		return line
	case code := <-p.code:
		t.Fatalf("the program ended with %d instead of writing a line", code)
	case <-time.After(time.Minute):
		t.Fatal("the program wrote no line")
	}
	return ""
}

// end stops the program and expects its exit status.
func (p *running) end(t *testing.T, want int) {
	t.Helper()
	p.stop()
	select {
	case code := <-p.code:
		if code != want {
			t.Errorf("the program ended with %d, want %d", code, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the program did not end")
	}
}

func TestTheBareApplication(t *testing.T) {
	p := start(t, "-role", "app", "-listen", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "tracks.db"))
	address, found := strings.CutPrefix(p.line(t), "ready app ")
	if !found || !strings.HasPrefix(address, "http://127.0.0.1:") {
		t.Fatalf("the line is not ready app and an address, but ends with %q", address)
	}
	if page := fetch(t, address+"/tracks/7.json"); !strings.Contains(page, trackName(7)) {
		t.Errorf("track 7 is %s", page)
	}
	p.end(t, exitDone)
}

func TestTroubleAtTheStartIsAFailure(t *testing.T) {
	database := filepath.Join(t.TempDir(), "tracks.db")
	missing := filepath.Join(t.TempDir(), "missing", "tracks.db")
	for _, arguments := range [][]string{
		{"-role", "app", "-db", missing},
		{"-role", "app", "-db", database, "-listen", "192.0.2.1:1"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), arguments, &stdout, &stderr); code != exitFailed {
			t.Errorf("%v exits with %d, want %d: %s", arguments, code, exitFailed, stderr.String())
		}
		if stdout.Len() > 0 {
			t.Errorf("%v writes %q", arguments, stdout.String())
		}
	}
}

// Several processes may be the first at the same database.
func TestProcessesMakeTheDatabaseTogetherAndDrain(t *testing.T) {
	database := filepath.Join(t.TempDir(), "tracks.db")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			command := exec.CommandContext(t.Context(), os.Args[0], "-role", "app", "-listen", "127.0.0.1:0", "-db", database)
			command.Env = append(os.Environ(), runProgram+"=1")
			stdout, stderr := newLines(), &bytes.Buffer{}
			command.Stdout, command.Stderr = stdout, stderr
			if err := command.Start(); err != nil {
				t.Error(err)
				return
			}
			select {
			case line := <-stdout.whole:
				address := strings.TrimPrefix(line, "ready app ")
				if page := fetch(t, address+"/"); !strings.Contains(page, "1000 tracks") {
					t.Errorf("the home page is\n%s", page)
				}
			case <-time.After(time.Minute):
				t.Error("the process is not ready")
			}
			if err := command.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			if err := command.Wait(); err != nil {
				t.Errorf("the process ended with %v: %s", err, stderr)
			}
		})
	}
	all.Wait()
}

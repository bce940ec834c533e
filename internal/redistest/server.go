package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// readyTimeout bounds every wait for a redis-server: on a loaded machine
	// a start can take seconds, and longer means that it is broken.
	readyTimeout = 20 * time.Second

	// politeTimeout is how long a server may take to shut down by itself.
	politeTimeout = 2 * time.Second

	host = "127.0.0.1"
)

// Server is a redis-server process on a port of 127.0.0.1, with a temporary
// directory of its own. Its methods are safe for concurrent use. If one of
// them fails it ends the test the server was started for; a server from
// [Launch] belongs to no test, so it panics.
type Server struct {
	binary     string
	directory  string // holds the log, and what the server writes
	port       int
	busPort    int // of the cluster bus; 0 unless the server is part of a cluster
	directives []string
	sentinel   string // the configuration of a Sentinel, "" for any other server
	fail       func(format string, args ...any)

	mu      sync.Mutex // one change of the process's life at a time; guards what follows
	process *process
	paused  bool
	stopped bool // for good, by Stop
}

// Option changes the configuration of a server. The default is Redis's own,
// without persistence.
type Option func(*Server)

// AppendOnly has the server keep what it acknowledged, through [Server.Kill]
// too: an append-only file, synced for every write.
func AppendOnly() Option {
	return func(s *Server) {
		s.directives = append(s.directives, "--appendonly", "yes", "--appendfsync", "always")
	}
}

// Directive adds a directive of redis.conf, such as Directive("maxmemory-policy",
// "allkeys-lru").
func Directive(name string, arguments ...string) Option {
	return func(s *Server) {
		s.directives = append(append(s.directives, "--"+name), arguments...)
	}
}

// Start starts a redis-server for a test and returns when it answers. It is
// stopped, and all it wrote is removed, when the test ends.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	Require(t)
	s, err := Launch(options...)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s.fail = t.Fatalf
	t.Cleanup(s.Stop)
	return s
}

// Launch is [Start] without a test: the caller calls [Server.Stop].
func Launch(options ...Option) (*Server, error) { return launch(false, options) }

func launch(clustered bool, options []Option) (*Server, error) {
	const attempts = 5 // another process may take the port before the server does
	for attempt := 1; ; attempt++ {
		s, err := newServer(clustered, options)
		if err != nil {
			return nil, err
		}
		err = s.start()
		if err == nil {
			return s, nil
		}
		taken := strings.Contains(s.log(), "Address already in use")
		s.Stop()
		if !taken || attempt == attempts {
			return nil, err
		}
	}
}

// newServer prepares a server that does not run yet.
func newServer(clustered bool, options []Option) (*Server, error) {
	binary, err := exec.LookPath(binaryName)
	if err != nil {
		return nil, err
	}
	s := &Server{binary: binary, fail: func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	if clustered {
		if s.busPort, err = freePort(); err != nil {
			return nil, err
		}
	}
	if s.directory, err = os.MkdirTemp("", "redistest-"); err != nil {
		return nil, fmt.Errorf("make the server's directory: %w", err)
	}
	s.directives = []string{"--save", "", "--appendonly", "no"}
	for _, option := range options {
		option(s)
	}
	return s, nil
}

// Addr returns host:port. It stays the same for the server's life.
func (s *Server) Addr() string { return net.JoinHostPort(host, strconv.Itoa(s.port)) }

// Client returns a client of the server that heeds the deadlines of contexts.
// It is closed when the test ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	return newClient(t, s.Addr())
}

func newClient(t testing.TB, address string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true})
	closeWhenDone(t, client)
	return client
}

// closeWhenDone closes the client when the test ends, unless the test has.
func closeWhenDone(t testing.TB, client io.Closer) {
	t.Helper()
	t.Cleanup(func() {
		if err := client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			t.Errorf("redistest: close a client: %v", err)
		}
	})
}

// Kill ends the process with SIGKILL and returns when it has ended. Without
// [AppendOnly] all data is lost.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	if err := s.process.kill(); err != nil {
		s.fail("redistest: %v", err)
	}
}

// Restart starts the server again, on the same port and in the same directory,
// and returns when it answers. A server that still runs is shut down first.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		s.fail("redistest: Restart after Stop")
		return
	}
	if err := s.end(); err != nil {
		s.fail("redistest: %v", err)
		return
	}
	if err := s.start(); err != nil {
		s.fail("redistest: restart: %v", err)
	}
}

// Pause freezes the process with SIGSTOP and returns when it stands still:
// connections stay open, and are accepted by the kernel, but nothing is
// answered until [Server.Resume].
func (s *Server) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := s.process.pause(ctx); err != nil {
		s.fail("redistest: %v", err)
		return
	}
	s.paused = true
}

// Resume lets a paused server go on and returns when it answers.
func (s *Server) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.resume(); err != nil {
		s.fail("redistest: %v", err)
		return
	}
	s.paused = false
	if err := s.awaitReady(); err != nil {
		s.fail("redistest: resume: %v", err)
	}
}

// Stop shuts the server down for good, with SIGKILL if it does not do so by
// itself, and removes its directory. It may be called again.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	if err := s.end(); err != nil {
		s.fail("redistest: %v", err)
		return
	}
	if err := os.RemoveAll(s.directory); err != nil {
		s.fail("redistest: remove the server's directory: %v", err)
	}
}

// start starts the process and waits until it is the one that answers.
func (s *Server) start() error {
	args := []string{"--port", strconv.Itoa(s.port), "--bind", host, "--dir", s.directory}
	if s.busPort != 0 {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.busPort),
			"--cluster-announce-ip", host)
	}
	args = append(args, s.directives...)
	if s.sentinel != "" {
		var err error
		if args, err = s.sentinelArguments(); err != nil {
			return err
		}
	}
	process, err := startProcess(s.binary, s.logPath(), args)
	if err != nil {
		return err
	}
	s.process = process
	return s.awaitReady()
}

func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := await(ctx, s.process.ended, s.answers); err != nil {
		return fmt.Errorf("redis-server on %s does not answer: %w\nits log:\n%s", s.Addr(), err, s.log())
	}
	return nil
}

// answers says why the server does not answer yet. Another redis-server may
// have won a race for the port, so it matters who answers.
func (s *Server) answers(ctx context.Context) error {
	if err := s.listens(ctx); err != nil {
		return err
	}
	client := s.control()
	defer client.Close()
	if err := client.Ping(ctx).Err(); err != nil { // an error too while data is loaded
		return err
	}
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return err
	}
	if answered := info["Server"]["process_id"]; answered != strconv.Itoa(s.process.pid()) {
		return fmt.Errorf("process %s answers instead of process %d", answered, s.process.pid())
	}
	return nil
}

// listens says why nobody can connect. It comes before a client of go-redis,
// which would log every attempt that fails.
func (s *Server) listens(ctx context.Context) error {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return err
	}
	return connection.Close()
}

// end shuts the process down, politely at first, and returns when it has ended.
func (s *Server) end() error {
	if s.process == nil || s.process.hasEnded() {
		return nil
	}
	if !s.paused {
		ctx, cancel := context.WithTimeout(context.Background(), politeTimeout)
		defer cancel()
		client := s.control()
		defer client.Close()
		// Not SIGTERM, which Redis looks at only every 100 ms. Whether it
		// worked shows in the process, not in the answer.
		_ = client.ShutdownNoSave(ctx).Err()
		select {
		case <-s.process.ended:
		case <-ctx.Done():
		}
	}
	s.paused = false
	return s.process.kill()
}

// ended returns a channel that is closed when the process that now runs, or ran
// last, has ended.
func (s *Server) ended() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.ended
}

// control returns a client for our own commands, which tries each only once.
func (s *Server) control() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr(), Protocol: 2, PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

func (s *Server) logPath() string { return filepath.Join(s.directory, "redis.log") }

// log returns the end of the server's log, for an error message.
func (s *Server) log() string {
	const most = 4096
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

// freePort returns a port of 127.0.0.1 that nobody listened on just now. It is
// below the range from which Linux and macOS take the ports of outgoing
// connections: in that range the port of a killed server could be taken by the
// very client that tries to reach it again, which then talks to itself.
func freePort() (int, error) {
	const lowest, count, attempts = 10000, 22000, 100
	var failed error
	for range attempts {
		port := lowest + rand.IntN(count)
		listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			failed = err
			continue
		}
		return port, listener.Close()
	}
	return 0, fmt.Errorf("no free port in %d attempts: %w", attempts, failed)
}

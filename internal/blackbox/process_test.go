package blackbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// readyTimeout is how long a process may take to say that it is ready; the first of a new database makes it.
	readyTimeout = time.Minute
	// stopTimeout is how long a process may take to end after SIGTERM.
	stopTimeout = 30 * time.Second
	// fillTimeout is how long a fill may take.
	fillTimeout = 2 * time.Minute
	// answerTimeout is how long a client waits for an answer. It is longer than any deadline.
	answerTimeout = 2 * time.Minute
)

// tracks is the program that the tests run. plainTracks is the same without the race detector, which makes it several times
// faster: for the application that others are compared with, and where a process only prepares a test.
var tracks, plainTracks program

// program is built by the first test that starts it.
type program struct {
	once      sync.Once
	directory string
	err       error
}

// path returns the path of the program, built with those flags.
func (p *program) path(flags ...string) (string, error) {
	p.once.Do(func() {
		if p.directory, p.err = os.MkdirTemp("", "scales-blackbox-"); p.err != nil {
			return
		}
		arguments := slices.Concat([]string{"build", "-buildvcs=false", "-o", p.directory}, flags)
		command := exec.Command("go", append(arguments, "github.com/itscales/scales/examples/tracks")...)
		if output, err := command.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("build examples/tracks: %w\n%s", err, output)
		}
	})
	return filepath.Join(p.directory, "tracks"), p.err
}

// build returns the path of the program, with the race detector if that is asked for by the flags of the test.
func build(raced bool) (string, error) {
	if raced && *raceBuild {
		return tracks.path("-race")
	}
	return plainTracks.path()
}

// remove deletes what was built.
func (p *program) remove() error {
	if p.directory == "" {
		return nil
	}
	return os.RemoveAll(p.directory)
}

// process is a running program in one role.
type process struct {
	role    string
	command *exec.Cmd
	stdout  output
	stderr  output
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
	told    bool // to end
	url     string
	client  *http.Client
}

// launch starts a process. The test is responsible for its end, see site.
func launch(t *testing.T, role string, raced bool, flags []string) *process {
	t.Helper()
	path, err := build(raced)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		role:    role,
		command: exec.Command(path, append([]string{"-role", role}, flags...)...),
		ended:   make(chan struct{}),
		client: &http.Client{
			Timeout:       answerTimeout,
			Transport:     &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	p.stdout.line = make(chan string, 1)
	p.command.Dir = t.TempDir()
	p.command.Stdout, p.command.Stderr = &p.stdout, &p.stderr
	p.command.SysProcAttr = diesWithParent()
	// A process with the race detector sleeps for a second at its end unless it is told not to.
	p.command.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	return p
}

var readyLine = regexp.MustCompile(`^ready (?:(?:all|server|app) (http://127\.0\.0\.1:[0-9]+)|worker|fill|verify)$`)

// awaitReady returns when the process has said that it is at work.
func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	if err := p.untilReady(); err != nil {
		t.Fatal(err)
	}
}

// untilReady is awaitReady for goroutines that must not end the test.
func (p *process) untilReady() error {
	select {
	case line := <-p.stdout.line:
		match := readyLine.FindStringSubmatch(line)
		if match == nil || !strings.HasPrefix(line, "ready "+p.role) {
			return fmt.Errorf("the first line of the %s is %q, not that it is ready", p.role, line)
		}
		p.url = match[1]
		return nil
	case <-p.ended:
		return fmt.Errorf("the %s ended before it was ready: %v\n%s", p.role, p.err, p.stderr.tail())
	case <-time.After(readyTimeout):
		return fmt.Errorf("the %s was not ready after %v", p.role, readyTimeout)
	}
}

// terminate tells the process to end, as an operator does.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	p.told = true
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// stop tells the process to end and expects that it does so, successfully.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.terminate(t)
	p.awaitEnd(t, stopTimeout)
}

// awaitEnd expects that the process ends with status 0.
func (p *process) awaitEnd(t *testing.T, timeout time.Duration) {
	t.Helper()
	p.told = true
	select {
	case <-p.ended:
	case <-time.After(timeout):
		t.Fatalf("the %s still runs after %v", p.role, timeout)
	}
	if p.err != nil {
		t.Errorf("the %s ended with %v, want exit status 0", p.role, p.err)
	}
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	p.told = true
	_ = p.command.Process.Kill() // an error says that it has ended
	<-p.ended
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// output keeps what a process prints, and hands out its first line.
type output struct {
	line chan string // receives the first line, if it is not nil

	mu      sync.Mutex
	content bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := bytes.IndexByte(o.content.Bytes(), '\n')
	n, err := o.content.Write(p)
	if first, _, complete := bytes.Cut(o.content.Bytes(), []byte("\n")); complete && before < 0 && o.line != nil {
		o.line <- string(first)
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.content.String()
}

// tail returns the end of what was printed.
func (o *output) tail() string {
	const most = 4000
	text := o.String()
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	return text
}

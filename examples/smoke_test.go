// Package examples_test builds the examples and uses them from outside, as
// their documentation tells a reader to.
package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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

	"github.com/itscales/scales/internal/redistest"
)

const (
	readyTimeout = time.Minute
	stopTimeout  = 20 * time.Second

	form         = "application/x-www-form-urlencoded"
	jsonDocument = "application/json"
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

func TestQuickstartShowsANoteAsSoonAsItIsPosted(t *testing.T) {
	binary := build(t, "quickstart")
	for name, environment := range map[string]func(*testing.T) []string{
		"with its own Redis": func(*testing.T) []string { return nil },
		"with the Redis of REDIS_URL": func(t *testing.T) []string {
			return []string{"REDIS_URL=redis://" + redistest.Start(t).Addr()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, binary, environment(t), "-listen", "127.0.0.1:0")
			p.get("/notes").is(http.StatusOK).header("Content-Type", "text/html").lacks("milk")
			p.get("/no-such-page").is(http.StatusNotFound)
			body := url.Values{"text": {"milk & honey"}}.Encode()
			p.post("/notes", form, body).is(http.StatusSeeOther).header("Location", "/notes")
			p.get("/notes").is(http.StatusOK).contains("milk &amp; honey")
			p.stop()
		})
	}
}

func TestEmbedShowsABookAsSoonAsItIsPosted(t *testing.T) {
	p := start(t, build(t, "embed"), nil, "-listen", "127.0.0.1:0")
	p.get("/books").is(http.StatusOK).lacks("Middlemarch")
	created := p.post("/books", jsonDocument, `{"title":"Middlemarch"}`).is(http.StatusCreated).header("Location", "/books/")
	p.get(created.Header.Get("Location")).is(http.StatusOK).contains("Middlemarch")
	p.get("/books").is(http.StatusOK).contains("Middlemarch")
	p.get("/books/no-such-book").is(http.StatusNotFound)
	p.stop()
}

func TestTracksInOneProcessShowsATrackAsSoonAsItIsPosted(t *testing.T) {
	database := filepath.Join(t.TempDir(), "tracks.db")
	p := start(t, build(t, "tracks"), nil, "-role", "all", "-listen", "127.0.0.1:0", "-db", database)
	if !regexp.MustCompile(`(?m)^ready all http://127\.0\.0\.1:\d+$`).Match(p.stdout.bytes()) {
		t.Errorf("standard output: %q, want a line that begins with ready all", p.stdout.bytes())
	}
	if total := p.tracks(); total != 1000 {
		t.Errorf("%d tracks at the start, want 1000", total)
	}
	created := p.post("/tracks", jsonDocument, `{"name":"Feeling Good","artist":"Nina Simone"}`)
	created.is(http.StatusCreated).header("Location", "/tracks/1001")
	p.get("/tracks/1001").is(http.StatusOK).contains("Feeling Good")
	p.get("/artists/nina-simone").is(http.StatusOK).contains("Feeling Good")
	if total := p.tracks(); total != 1001 {
		t.Errorf("%d tracks after a post, want 1001", total)
	}
	p.get("/tracks/1002").is(http.StatusNotFound)
	p.stop()
}

// build builds an example and returns the path of the program.
func build(t *testing.T, example string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), example)
	command := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "./"+example)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", example, err, output)
	}
	return binary
}

// program is an example that runs.
type program struct {
	t       *testing.T
	command *exec.Cmd
	stdout  *output
	stderr  *output
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
	url     string // http://host:port
	client  *http.Client
}

// start starts a program and waits for the line in which it says where it
// listens. It is killed when the test ends, unless it was stopped.
func start(t *testing.T, binary string, environment []string, args ...string) *program {
	t.Helper()
	p := &program{
		t:       t,
		command: exec.Command(binary, args...),
		stdout:  newOutput(),
		stderr:  newOutput(),
		ended:   make(chan struct{}),
		client: &http.Client{
			Timeout:       30 * time.Second,
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	inherited := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "REDIS_URL=") })
	p.command.Env = append(inherited, environment...)
	p.command.Dir = t.TempDir() // what it writes is removed
	p.command.Stdout, p.command.Stderr = p.stdout, p.stderr
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill() // an error says that it has ended
		<-p.ended
		if t.Failed() {
			t.Logf("standard output:\n%s\nstandard error:\n%s", p.stdout.bytes(), p.stderr.bytes())
		}
	})
	select {
	case p.url = <-p.stdout.url:
	case <-p.ended:
		t.Fatalf("%s ended before it was ready: %v", binary, p.err)
	case <-time.After(readyTimeout):
		t.Fatalf("%s was not ready after %v", binary, readyTimeout)
	}
	return p
}

// stop asks the program to end and expects that it does, successfully.
func (p *program) stop() {
	p.t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		p.t.Fatalf("it still ran %v after SIGTERM", stopTimeout)
	}
	if p.err != nil {
		p.t.Errorf("after SIGTERM: %v, want exit status 0", p.err)
	}
}

func (p *program) get(path string) *response {
	p.t.Helper()
	return p.do(http.MethodGet, path, "", "")
}

func (p *program) post(path, contentType, body string) *response {
	p.t.Helper()
	return p.do(http.MethodPost, path, contentType, body)
}

func (p *program) do(method, path, contentType, body string) *response {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	answer, err := p.client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	return &response{Response: answer, t: p.t, what: fmt.Sprintf("%s %s", method, path), body: string(content)}
}

// tracks returns how many tracks there are according to /tracks.json.
func (p *program) tracks() int {
	p.t.Helper()
	var list struct{ Total int }
	answer := p.get("/tracks.json").is(http.StatusOK).header("Content-Type", jsonDocument)
	if err := json.Unmarshal([]byte(answer.body), &list); err != nil {
		p.t.Fatalf("/tracks.json: %v", err)
	}
	return list.Total
}

// response is an answer with what a test expects of it.
type response struct {
	*http.Response
	t    *testing.T
	what string
	body string
}

func (r *response) is(status int) *response {
	r.t.Helper()
	if r.StatusCode != status {
		r.t.Fatalf("%s: got %s, want %d\n%s", r.what, r.Status, status, r.body)
	}
	return r
}

func (r *response) header(name, prefix string) *response {
	r.t.Helper()
	if got := r.Header.Get(name); !strings.HasPrefix(got, prefix) {
		r.t.Errorf("%s: %s is %q, want it to begin with %q", r.what, name, got, prefix)
	}
	return r
}

func (r *response) contains(text string) *response {
	r.t.Helper()
	if !strings.Contains(r.body, text) {
		r.t.Errorf("%s: %q is missing in\n%s", r.what, text, r.body)
	}
	return r
}

func (r *response) lacks(text string) *response {
	r.t.Helper()
	if strings.Contains(r.body, text) {
		r.t.Errorf("%s: unexpected %q in\n%s", r.what, text, r.body)
	}
	return r
}

// output keeps what a program prints, and finds the first line that has a URL.
type output struct {
	url chan string // receives http://host:port once

	mu      sync.Mutex
	content bytes.Buffer
	found   bool
}

var urlLine = regexp.MustCompile(`(http://[0-9.]+:[0-9]+).*\n`)

func newOutput() *output { return &output{url: make(chan string, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.content.Write(p)
	if match := urlLine.FindSubmatch(o.content.Bytes()); match != nil && !o.found {
		o.found = true
		o.url <- string(match[1])
	}
	return n, err
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.content.Bytes())
}

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/itscales/scales"
)

// runProgram is the environment variable that makes the test binary be the program, for tests that need processes.
const runProgram = "TRACKS_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	redis.SetLogger(&logging.VoidLogger{})
	goleak.VerifyTestMain(m)
}

// newDatabase is the content of the file of a new database, which is made once for all tests.
var newDatabase = sync.OnceValues(func() ([]byte, error) {
	directory, err := os.MkdirTemp("", "tracks")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "tracks.db")
	s, err := openStore(context.Background(), path, time.Hour)
	if err != nil {
		return nil, err
	}
	if err := s.close(); err != nil { // which brings the write-ahead log into the file
		return nil, err
	}
	return os.ReadFile(path)
})

// newStore opens a copy of a new database.
func newStore(t testing.TB) *store {
	t.Helper()
	content, err := newDatabase()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tracks.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return reopen(t, path, time.Hour)
}

// reopen opens the database at path.
func reopen(t testing.TB, path string, memory time.Duration) *store {
	t.Helper()
	s, err := openStore(t.Context(), path, memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newApp is the application over s.
func newApp(t testing.TB, s *store) http.Handler {
	t.Helper()
	app, err := newApplication(s, applicationOptions{maxBody: 1 << 20, logger: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// testLog writes to the log of a test.
type testLog struct{ t testing.TB }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

// ask sends a request to app.
func ask(t testing.TB, app http.Handler, method, target, contentType, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return answer(app, r)
}

// get is ask for what is read.
func get(t testing.TB, app http.Handler, target string) *http.Response {
	t.Helper()
	return ask(t, app, http.MethodGet, target, "", "")
}

func answer(app http.Handler, r *http.Request) *http.Response {
	recorder := httptest.NewRecorder()
	app.ServeHTTP(recorder, r)
	return recorder.Result()
}

// body returns the body of a response.
func body(t testing.TB, response *http.Response) string {
	t.Helper()
	defer response.Body.Close()
	var content bytes.Buffer
	if _, err := io.Copy(&content, response.Body); err != nil {
		t.Fatal(err)
	}
	return content.String()
}

// expect fails the test unless the response has status, and returns its body.
func expect(t testing.TB, response *http.Response, status int) string {
	t.Helper()
	content := body(t, response)
	if response.StatusCode != status {
		t.Fatalf("the status is %d, want %d; the body is\n%s", response.StatusCode, status, content)
	}
	return content
}

// text returns a pointer to s.
func text(s string) *string { return &s }

// fetch returns the body of the page at address.
func fetch(t testing.TB, address string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	if err != nil {
		t.Error(err)
		return ""
	}
	return body(t, response)
}

// fillState is the state of a fill that has stored keys keys.
func fillState(keys int, elapsed time.Duration) scales.FillState {
	return scales.FillState{Keys: keys, Stored: keys, Elapsed: elapsed}
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser sends requests to a server, follows no redirects and keeps no connections.
var browser = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send sends a request to the server at address and returns the answer with its body.
func send(t *testing.T, method, address, contentType, content string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := browser.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response, body(t, response)
}

// expectCurrent compares what the server at address says of the pages with what the application itself says. It looks
// at every fifth page, which is at some of every kind.
func expectCurrent(t *testing.T, address string, s *store, app http.Handler) {
	t.Helper()
	n := 0
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%5 != 0 {
			continue
		}
		served, content := send(t, http.MethodGet, address+key, "", "")
		direct := get(t, app, key)
		want := body(t, direct)
		if served.StatusCode != direct.StatusCode || content != want ||
			served.Header.Get("Content-Type") != direct.Header.Get("Content-Type") {
			t.Errorf("%s is %d %q, want %d %q", key, served.StatusCode, content, direct.StatusCode, want)
		}
	}
}

// writes go through every kind of write; each is followed by a look at all pages it could have changed.
var writes = []struct {
	method, target, contentType, body string
	status                            int
	location                          string
}{
	{"POST", "/tracks", asJSON, `{"name":"First","artist":"New & Come"}`, 201, "/tracks/1001"},
	{"POST", "/tracks", asForm, values("name", "Second", "artist", "Ada Vance"), 303, "/tracks/1002"},
	{"PUT", "/tracks/1002", asJSON, `{"name":"Renamed"}`, 200, ""},
	{"PUT", "/tracks/1002", asJSON, `{"artist":"New & Come"}`, 200, ""},
	{"PUT", "/tracks/7", asJSON, `{"name":"Renamed, too","artist":"Another"}`, 200, ""},
	{"POST", "/tracks/7", asForm, values("_method", "PUT", "artist", "Ada Vance"), 303, "/tracks/7"},
	{"POST", "/tracks/8", asForm, values("_method", "DELETE"), 303, "/tracks"},
	{"DELETE", "/tracks/1001", "", "", 204, ""},
	{"DELETE", "/tracks/1001", "", "", 404, ""},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`, 200, ""},
	{"POST", "/artists/orourkes-orchestra/merge", asForm, values("into", "ada-vance"), 303, "/artists/ada-vance"},
	{"PUT", "/tracks/9", asJSON, `{"name":""}`, 422, ""},
	{"PUT", "/tracks/9", "text/plain", `x`, 415, ""},
}

// makeWrites sends the writes to the server at address; after each, the pages it touches must be current on it.
func makeWrites(t *testing.T, address string, s *store, app http.Handler) {
	t.Helper()
	fixed := []string{"/", "/tracks", "/tracks.json", "/artists", "/artists.json",
		"/artists/ada-vance", "/artists/ada-vance.json", "/artists/orourkes-orchestra.json"}
	for _, write := range writes {
		what := write.method + " " + write.target + " of " + write.body
		response, content := send(t, write.method, address+write.target, write.contentType, write.body)
		if response.StatusCode != write.status || response.Header.Get("Location") != write.location {
			t.Errorf("%s answers %d with the Location %q, want %d with %q: %s",
				what, response.StatusCode, response.Header.Get("Location"), write.status, write.location, content)
		}
		look := fixed
		for _, path := range []string{"/tracks/1001", "/tracks/1002", "/tracks/7", "/tracks/8", "/artists/new-and-come", "/artists/another"} {
			look = append(look, path, path+".json")
		}
		for _, key := range append(look, "/tracks/7/edit", "/tracks/1001/edit") {
			served, content := send(t, http.MethodGet, address+key, "", "")
			direct := get(t, app, key)
			want := body(t, direct)
			if served.StatusCode != direct.StatusCode || direct.StatusCode == http.StatusOK && content != want {
				t.Errorf("after %s, %s is %d %q, want %d %q", what, key, served.StatusCode, content, direct.StatusCode, want)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	expectCurrent(t, address, s, app)
}

func TestAllInOneProcess(t *testing.T) {
	database := filepath.Join(t.TempDir(), "tracks.db")
	p := start(t, "-role", "all", "-codings", testCodings, "-listen", "127.0.0.1:0", "-db", database, "-partitions", "3")
	address, found := strings.CutPrefix(p.line(t), "ready all ")
	if !found {
		t.Fatal("the line is not ready all and an address")
	}
	s := reopen(t, database, time.Hour)
	app := newApp(t, s)
	expectCurrent(t, address, s, app)
	makeWrites(t, address, s, app)
	p.end(t, exitDone)
}

// someRedis starts an embedded Redis and returns its URL.
func someRedis(t *testing.T) string {
	t.Helper()
	embedded, closeEmbedded, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeEmbedded)
	return "redis://" + embedded.Addr()
}

func TestKeysOfTheEmbeddedRedisExpire(t *testing.T) {
	client, closeClient, err := settings{redisURL: someRedis(t)}.connectRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeClient(); err != nil {
			t.Error(err)
		}
	}()
	if err := client.Set(t.Context(), "key", "value", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		left, err := client.Exists(t.Context(), "key").Result()
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the key does not expire")
		}
	}
}

func TestModulesApart(t *testing.T) {
	database, url := filepath.Join(t.TempDir(), "tracks.db"), someRedis(t)
	server := start(t, "-role", "server", "-listen", "127.0.0.1:0", "-redis", url)
	address := strings.TrimPrefix(server.line(t), "ready server ")
	other := start(t, "-role", "server", "-listen", "127.0.0.1:0", "-redis", url)
	otherAddress := strings.TrimPrefix(other.line(t), "ready server ")

	if response, content := send(t, "GET", address+"/tracks", "", ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before the fill a page is %d %s, want 503", response.StatusCode, content)
	}
	if response, content := send(t, "DELETE", address+"/tracks/7", "", ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a worker a write answers %d %s, want 503", response.StatusCode, content)
	}

	worker := start(t, "-role", "worker", "-redis", url, "-db", database)
	if line := worker.line(t); line != "ready worker" {
		t.Errorf("the worker says %q", line)
	}
	fill := start(t, "-role", "fill", "-codings", testCodings, "-redis", url, "-db", database)
	if line := fill.line(t); line != "ready fill" {
		t.Errorf("the fill says %q", line)
	}
	var counted map[string]float64
	if err := json.Unmarshal([]byte(fill.line(t)), &counted); err != nil {
		t.Errorf("the fill does not end with a JSON object: %v", err)
	}
	if seconds := counted["seconds"]; seconds <= 0 {
		t.Errorf("the fill took %v seconds", seconds)
	}
	delete(counted, "seconds")
	if got := fmt.Sprint(counted); got != "map[failed:0 keys:3208 refused:0 resumed:0 stored:3208]" {
		t.Errorf("the fill counts %s", got)
	}
	if code := <-fill.code; code != exitDone {
		t.Errorf("the fill ended with %d, want %d", code, exitDone)
	}

	s := reopen(t, database, time.Hour)
	app := newApp(t, s)
	makeWrites(t, address, s, app)
	expectCurrent(t, otherAddress, s, app)

	worker.end(t, exitDone)
	server.end(t, exitDone)
	other.end(t, exitDone)
}

func TestAFillWithFailedKeysIsAFailure(t *testing.T) {
	database := filepath.Join(t.TempDir(), "tracks.db")
	s := reopen(t, database, time.Hour)
	// A count that is no number breaks the list of artists, in both its forms.
	if _, err := s.write.ExecContext(t.Context(), `UPDATE artists SET tracks = 'many' WHERE id = 1`); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-role", "fill", "-codings", testCodings, "-redis", someRedis(t), "-db", database}, &stdout, &stderr); code != exitFailed {
		t.Errorf("the fill ended with %d, want %d", code, exitFailed)
	}
	said := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var counted summary
	if err := json.Unmarshal([]byte(said[len(said)-1]), &counted); err != nil {
		t.Errorf("the fill does not end with a JSON object: %v", err)
	}
	if counted.Failed != 2 || counted.Keys != counted.Stored+2 {
		t.Errorf("the fill counts %+v, want 2 failed and the others stored", counted)
	}
	for _, name := range []string{"key=/artists ", "key=/artists.json "} {
		if !strings.Contains(stderr.String(), name) {
			t.Errorf("the fill does not name %s", name)
		}
	}
}

// What links lead to is a part of what there is. In this application they lead to everything.
func TestAFillFollowsLinks(t *testing.T) {
	database, url := filepath.Join(t.TempDir(), "tracks.db"), someRedis(t)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-role", "fill", "-codings", testCodings, "-keys", "links", "-redis", url, "-db", database}, &stdout, &stderr); code != exitDone {
		t.Fatalf("the fill ended with %d: %s", code, stderr.String())
	}
	p := &program{settings: settings{redisURL: url, namespace: "tracks", partitions: 1, origin: "http://localhost", lease: time.Second}, logger: slog.New(slog.DiscardHandler)}
	c, err := p.openCache()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	found := make(map[string]bool)
	for key, err := range c.cache.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		found[key] = true
	}
	s := reopen(t, database, time.Hour)
	there := make(map[string]bool)
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		there[key] = true
		if strings.HasPrefix(key, "/artists/") && !found[key] {
			t.Errorf("no link leads to the artist's page %s", key)
		}
	}
	for key := range found {
		if !there[key] {
			t.Errorf("a link leads to %s, which is none of the keys", key)
		}
	}
	for _, key := range []string{"/tracks/1000", "/tracks/1000.json", "/tracks/new", "/assets/app.css", "/assets/cover.png"} {
		if !found[key] {
			t.Errorf("no link leads to %s", key)
		}
	}
	t.Logf("links lead to %d of %d keys", len(found), len(there))
}

func TestAFillThatIsStoppedIsAFailure(t *testing.T) {
	p := start(t, "-role", "fill", "-codings", testCodings, "-redis", someRedis(t), "-db", filepath.Join(t.TempDir(), "tracks.db"), "-render-delay", "5s")
	if line := p.line(t); line != "ready fill" {
		t.Errorf("the fill says %q", line)
	}
	p.end(t, exitFailed)
	var counted summary
	if err := json.Unmarshal([]byte(p.line(t)), &counted); err != nil {
		t.Errorf("the fill does not end with a JSON object: %v", err)
	}
	if counted.Stored == 3208 {
		t.Error("the fill was not stopped at all")
	}
}

func TestAllStopsBeforeItIsReady(t *testing.T) {
	p := start(t, "-role", "all", "-codings", testCodings, "-listen", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "tracks.db"), "-render-delay", "2s")
	p.end(t, exitDone)
	select {
	case line := <-p.stdout.whole:
		t.Errorf("it says %q, and was never ready", line)
	default:
	}
}

func TestAWorkerWithoutRedisIsAFailure(t *testing.T) {
	for _, role := range []string{"worker", "fill"} {
		var stdout, stderr bytes.Buffer
		arguments := []string{"-role", role, "-redis", "redis://127.0.0.1:1", "-db", filepath.Join(t.TempDir(), "tracks.db")}
		if code := run(t.Context(), arguments, &stdout, &stderr); code != exitFailed {
			t.Errorf("%s ended with %d, want %d", role, code, exitFailed)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s says %q", role, stdout.String())
		}
		if !strings.Contains(stderr.String(), "reaching Redis") {
			t.Errorf("%s does not say what is wrong: %s", role, stderr.String())
		}
	}
}

func TestAServerWithoutRedisAnswersAllTheSame(t *testing.T) {
	server := start(t, "-role", "server", "-listen", "127.0.0.1:0", "-redis", "redis://127.0.0.1:1")
	address := strings.TrimPrefix(server.line(t), "ready server ")
	for _, method := range []string{"GET", "DELETE"} {
		if response, content := send(t, method, address+"/tracks/7", "", ""); response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s answers %d %s, want 503", method, response.StatusCode, content)
		}
	}
	server.end(t, exitDone)
}

func TestProgressIsToldInLines(t *testing.T) {
	stderr := newLines()
	p := &program{stderr: stderr}
	show := p.progressLines(3)
	for _, state := range []struct {
		keys    int
		elapsed time.Duration
		resumed int
	}{{1, 10 * time.Millisecond, 0}, {2, 1500 * time.Millisecond, 0}, {3, 1600 * time.Millisecond, 1}} {
		shown := fillState(state.keys, state.elapsed)
		shown.Resumed = state.resumed
		show(shown)
	}
	close(stderr.whole)
	var told []string
	for line := range stderr.whole {
		told = append(told, line)
	}
	want := []string{
		"fill: 2 of 3 keys, 2 stored, 0 refused, 0 failed, 1.5 s, 1 entries/s",
		"fill: 3 of 3 keys, 3 stored (1 of them before), 0 refused, 0 failed, 1.6 s, 1 entries/s",
	}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("the lines are %q, want %q", told, want)
	}
}

func TestProgressIsDrawnAsABar(t *testing.T) {
	for _, test := range []struct {
		keys int
		want string
	}{
		{1, "50%"}, {2, "100%"}, {3, "100%"}, // 3 is one more than there were at the beginning
	} {
		var screen bytes.Buffer
		show, end := progressBar(&screen, 2)
		for keys := 1; keys <= test.keys; keys++ {
			show(fillState(keys, time.Second))
		}
		end()
		drawn := strings.Split(screen.String(), "\r")
		if last := drawn[len(drawn)-1]; !strings.Contains(last, test.want) || !strings.HasSuffix(last, "\n") {
			t.Errorf("after %d of 2 keys the bar ends as %q, want %s and a new line", test.keys, last, test.want)
		}
	}
}

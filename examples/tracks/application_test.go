package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// contentTypeOf is the Content-Type that the page of a key must have.
func contentTypeOf(key string) string {
	switch {
	case strings.HasSuffix(key, ".json"):
		return "application/json; charset=utf-8"
	case strings.HasSuffix(key, ".css"):
		return "text/css; charset=utf-8"
	case strings.HasSuffix(key, ".png"):
		return "image/png"
	default:
		return "text/html; charset=utf-8"
	}
}

func TestEveryKeyIsAPage(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	seen := map[string]bool{}
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[key] {
			t.Errorf("%s is named twice", key)
		}
		seen[key] = true
		response := get(t, app, key)
		content := expect(t, response, http.StatusOK)
		if got, want := response.Header.Get("Content-Type"), contentTypeOf(key); got != want {
			t.Errorf("%s has the Content-Type %q, want %q", key, got, want)
		}
		if got, want := response.Header.Get("Content-Length"), fmt.Sprint(len(content)); got != want {
			t.Errorf("%s has the Content-Length %q, want %q", key, got, want)
		}
		for _, field := range []string{"Set-Cookie", "Vary", "Cache-Control", "Last-Modified", "Date"} {
			if value := response.Header.Get(field); value != "" {
				t.Errorf("%s has %s: %s", key, field, value)
			}
		}
	}
	if counted, err := s.countKeys(t.Context()); err != nil || len(seen) != 3208 || counted != 3208 {
		t.Errorf("there are %d keys, counted as %d (%v), want 3208", len(seen), counted, err)
	}
}

func TestFollowingTheLinksFindsEveryKey(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	links := regexp.MustCompile(`(?:href|src)="(/[^"]*)"`)
	found, next := map[string]bool{"/": true}, []string{"/"}
	for len(next) > 0 {
		key := next[0]
		next = next[1:]
		for _, link := range links.FindAllStringSubmatch(expect(t, get(t, app, key), http.StatusOK), -1) {
			if !found[link[1]] {
				found[link[1]] = true
				next = append(next, link[1])
			}
		}
	}
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !found[key] {
			t.Errorf("no link leads to %s", key)
		}
		delete(found, key)
	}
	for key := range found {
		t.Errorf("%s is linked, and is not among the keys", key)
	}
}

func TestTheKeysEndWhenTheCallerHasEnough(t *testing.T) {
	s := newStore(t)
	for _, enough := range []int{1, 100, 1500} {
		n := 0
		for range s.keys(t.Context()) {
			if n++; n == enough {
				break
			}
		}
		if n != enough {
			t.Errorf("%d keys were yielded, want %d", n, enough)
		}
	}
}

func TestKeysThatCannotBeReadAreAnError(t *testing.T) {
	s := newStore(t)
	if err := s.read.Close(); err != nil {
		t.Fatal(err)
	}
	var failed error
	for _, err := range s.keys(t.Context()) {
		if failed != nil {
			t.Error("there is something after the error")
		}
		failed = err
	}
	if failed == nil {
		t.Error("a closed database gave no error")
	}
}

func TestPagesOfUnknownThingsAreNotFound(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, target := range []string{
		"/tracks/1001", "/tracks/1001/edit", "/tracks/1001.json", "/tracks/0", "/tracks/-1", "/tracks/+1", "/tracks/007", "/tracks/1e3",
		"/tracks/007.json", "/tracks/1e3.json", "/tracks/0x1/edit", "/tracks/99999999999999999999", "/tracks/1.5", "/tracks/x",
		"/tracks/1.json.json", "/tracks/.json", "/tracks/", "/tracks/1/", "/tracks/%31", "/artists/nobody", "/artists/nobody.json",
		"/artists/Ada-Vance", "/artists/", "/artists/.json", "/assets/", "/assets/missing.css", "/assets/app.css.json", "/nothing",
	} {
		response := get(t, app, target)
		want := "text/html; charset=utf-8"
		if strings.HasSuffix(target, ".json") {
			want = "application/json; charset=utf-8"
		}
		if expect(t, response, http.StatusNotFound); response.Header.Get("Content-Type") != want {
			t.Errorf("%s has the Content-Type %q, want %q", target, response.Header.Get("Content-Type"), want)
		}
	}
}

func TestHEADAnswersLikeGET(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, target := range []string{"/", "/tracks.json", "/tracks/7", "/artists/ada-vance.json", "/assets/cover.png", "/tracks/1001"} {
		head, whole := ask(t, app, http.MethodHead, target, "", ""), get(t, app, target)
		if head.StatusCode != whole.StatusCode || fmt.Sprint(head.Header) != fmt.Sprint(whole.Header) {
			t.Errorf("HEAD %s answers %d %v, GET %d %v", target, head.StatusCode, head.Header, whole.StatusCode, whole.Header)
		}
	}
}

func TestOtherMethodsAreNotAllowed(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, request := range []struct{ method, target, allow string }{
		{"PATCH", "/tracks/7", "PUT"}, {"PUT", "/tracks", "POST"}, {"DELETE", "/", "GET"}, {"POST", "/tracks/7.json", "GET"},
		{"DELETE", "/artists/ada-vance", "PUT"}, {"PUT", "/artists", "GET"},
		{"PUT", "/artists/ada-vance/merge", "POST"}, {"GET", "/artists/ada-vance/merge", "POST"},
	} {
		response := ask(t, app, request.method, request.target, "application/json", `{}`)
		expect(t, response, http.StatusMethodNotAllowed)
		if allow := response.Header.Values("Allow"); !slices.Contains(allow, request.allow) {
			t.Errorf("%s %s allows %v, want %s among them", request.method, request.target, allow, request.allow)
		}
	}
}

// decode reads the JSON document at target, which must have no other fields than content.
func decode(t *testing.T, app http.Handler, target string, content any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(expect(t, get(t, app, target), http.StatusOK)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(content); err != nil {
		t.Fatalf("%s: %v", target, err)
	}
}

func TestDocuments(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)

	want := `{"id":3,"name":"Burning Highway","artist":"Harbour \u0026 Sons","artist_slug":"harbour-and-sons"}` + "\n"
	if got := expect(t, get(t, app, "/tracks/3.json"), http.StatusOK); got != want {
		t.Errorf("a track is %s, want %s", got, want)
	}

	var newest trackList
	decode(t, app, "/tracks.json", &newest)
	if newest.Total != 1000 || len(newest.Tracks) != 50 {
		t.Errorf("%d of %d tracks are listed, want 50 of 1000", len(newest.Tracks), newest.Total)
	}
	for i, one := range newest.Tracks {
		if one.ID != int64(1000-i) || one.Name != trackName(1000-i) || one.Artist == "" || one.ArtistSlug == "" {
			t.Errorf("the newest but %d is %+v", i, one)
		}
	}

	var artists artistList
	decode(t, app, "/artists.json", &artists)
	if len(artists.Artists) != 100 {
		t.Errorf("%d artists are listed, want 100", len(artists.Artists))
	}
	if !slices.IsSortedFunc(artists.Artists, func(a, b artist) int { return strings.Compare(a.Slug, b.Slug) }) {
		t.Error("the artists are not listed by slug")
	}
	for _, one := range artists.Artists {
		if one.Tracks != 10 {
			t.Errorf("%+v is listed, want 10 tracks", one)
		}
	}

	var one artistTracks
	decode(t, app, "/artists/harbour-and-sons.json", &one)
	if one.Slug != "harbour-and-sons" || one.Name != "Harbour & Sons" || len(one.Tracks) != 10 {
		t.Errorf("the artist is %+v", one)
	}
	for i, x := range one.Tracks {
		if x.ID != int64(3+100*i) || x.Artist != one.Name || x.ArtistSlug != one.Slug || x.Name != trackName(3+100*i) {
			t.Errorf("track %d of the artist is %+v", i, x)
		}
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	if _, err := s.write.ExecContext(t.Context(), `DELETE FROM tracks`); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/tracks.json":            `{"total":0,"tracks":[]}`,
		"/artists/ada-vance.json": `{"slug":"ada-vance","name":"Ada Vance","tracks":[]}`,
	} {
		if got := strings.TrimSpace(expect(t, get(t, app, target), http.StatusOK)); got != want {
			t.Errorf("%s says %s, want %s", target, got, want)
		}
	}
	if _, err := s.write.ExecContext(t.Context(), `DELETE FROM departures; DELETE FROM artists`); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(expect(t, get(t, app, "/artists.json"), http.StatusOK)); got != `{"artists":[]}` {
		t.Errorf("the list of no artists is %s", got)
	}
	if page := expect(t, get(t, app, "/"), http.StatusOK); !strings.Contains(page, "0 tracks") {
		t.Errorf("the home page counts wrongly:\n%s", page)
	}
}

func TestPagesEscapeWhatTheyShow(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	const hostile = `"><script>alert('x')</script>&amp;`
	created, _, err := s.create(t.Context(), hostile, hostile+" Band")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{
		"/tracks", trackPath(created.ID), trackPath(created.ID) + "/edit", "/artists", artistPath(created.ArtistSlug),
		"/tracks.json", trackPath(created.ID) + ".json",
	} {
		page := expect(t, get(t, app, target), http.StatusOK)
		if strings.Contains(page, "<script") {
			t.Errorf("%s lets a name be markup:\n%s", target, page)
		}
		if !strings.Contains(page, "script") {
			t.Errorf("%s does not show the name at all", target)
		}
	}
	var back track
	decode(t, app, trackPath(created.ID)+".json", &back)
	if back != created || back.Name != hostile {
		t.Errorf("the JSON says %+v, want %+v", back, created)
	}
}

func TestTheCoverIsAPicture(t *testing.T) {
	picture, err := png.Decode(bytes.NewReader([]byte(expect(t, get(t, newApp(t, newStore(t)), "/assets/cover.png"), http.StatusOK))))
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size.X != 240 || size.Y != 240 {
		t.Errorf("the cover is %v, want 240 by 240 as the pages say", size)
	}
}

func TestARenderDelayIsSleptAfterReading(t *testing.T) {
	s := newStore(t)
	app, err := newApplication(s, applicationOptions{renderDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	expect(t, get(t, app, "/tracks/7"), http.StatusOK)
	if took := time.Since(begin); took < time.Millisecond {
		t.Errorf("the page took %v, want at least the delay", took)
	}
}

func TestATroubledDatabaseIsAServerError(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/", "/tracks", "/tracks.json", "/tracks/7", "/artists.json", "/artists/ada-vance"} {
		if page := expect(t, get(t, app, target), http.StatusInternalServerError); strings.Contains(page, "sql") {
			t.Errorf("%s tells a client what only the log should say:\n%s", target, page)
		}
	}
	response := ask(t, app, http.MethodPost, "/tracks", "application/json", `{"name":"A","artist":"B"}`)
	expect(t, response, http.StatusInternalServerError)
}

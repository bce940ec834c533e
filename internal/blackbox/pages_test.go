package blackbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	seededTracks = 1000
	seededKeys   = 3208
	// readers is how many clients read all pages together.
	readers = 8
)

// The documents that the application serves as JSON.
type (
	track struct {
		ID         int64  `json:"id"`
		Name       string `json:"name"`
		Artist     string `json:"artist"`
		ArtistSlug string `json:"artist_slug"`
	}
	trackList struct {
		Total  int     `json:"total"`
		Tracks []track `json:"tracks"`
	}
	artistPage struct {
		Slug   string  `json:"slug"`
		Name   string  `json:"name"`
		Tracks []track `json:"tracks"`
	}
	artistList struct {
		Artists []struct {
			Slug   string `json:"slug"`
			Name   string `json:"name"`
			Tracks int    `json:"tracks"`
		} `json:"artists"`
	}
)

// read returns a document.
func read[T any](t *testing.T, p *process, target string) T {
	t.Helper()
	var content T
	if err := p.get(t, target).is(t, http.StatusOK).decode(&content); err != nil {
		t.Fatal(err)
	}
	return content
}

// allKeys returns the resources of an application whose tracks have the ids 1 to newest. Those of deleted tracks are among
// them.
func allKeys(t *testing.T, app *process, newest int64) []string {
	t.Helper()
	keys := []string{
		"/", "/tracks", "/tracks.json", "/tracks/new", "/artists", "/artists.json", "/assets/app.css", "/assets/cover.png",
	}
	for id := range newest {
		keys = append(keys, trackKeys(id+1)...)
	}
	for _, artist := range read[artistList](t, app, "/artists.json").Artists {
		keys = append(keys, artistKeys(artist.Slug)...)
	}
	return keys
}

// someKeys is allKeys without most of the tracks that were there from the beginning.
func someKeys(t *testing.T, app *process, newest int64) []string {
	t.Helper()
	keys := allKeys(t, app, 20)
	for id := int64(seededTracks + 1); id <= newest; id++ {
		keys = append(keys, trackKeys(id)...)
	}
	return keys
}

func trackKeys(id int64) []string {
	path := trackPath(id)
	return []string{path, path + ".json", path + "/edit"}
}

func artistKeys(slug string) []string {
	path := artistPath(slug)
	return []string{path, path + ".json"}
}

// page is what must be the same, whoever answers.
type page struct {
	status            int
	contentType, body string
}

// readAll gets all keys, with several clients.
func readAll(ctx context.Context, p *process, keys []string) (map[string]*answer, error) {
	var (
		group   sync.WaitGroup
		mu      sync.Mutex
		problem error
		answers = make(map[string]*answer, len(keys))
	)
	for part := range slices.Chunk(keys, len(keys)/readers+1) {
		group.Go(func() {
			for _, key := range part {
				a, err := p.do(ctx, call{method: http.MethodGet, target: key})
				mu.Lock()
				answers[key], problem = a, errors.Join(problem, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return answers, problem
}

// isCurrent expects that every server answers the keys as the application does, at a time when nothing changes.
func (s *site) isCurrent(t *testing.T, keys []string) {
	t.Helper()
	want, err := readAll(t.Context(), s.app, keys)
	if err != nil {
		t.Fatal(err)
	}
	for number, server := range s.servers {
		got, err := readAll(t.Context(), server, keys)
		if err != nil {
			t.Fatal(err)
		}
		if differences := compare(want, got); len(differences) > 0 {
			most := min(len(differences), 5)
			t.Fatalf("server %d of %d differs from the application in %d of %d resources:\n%s",
				number+1, len(s.servers), len(differences), len(keys), strings.Join(differences[:most], "\n"))
		}
	}
}

// compare returns how the answers of a server differ from those of the application.
func compare(want, got map[string]*answer) []string {
	var differences []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if err := compareOne(want[key], got[key]); err != nil {
			differences = append(differences, fmt.Sprintf("%s: %v", key, err))
		}
	}
	return differences
}

// compareOne returns how the answer of a server differs from that of the application, or from what a server owes to its
// clients.
func compareOne(want, got *answer) error {
	switch {
	case want.status == http.StatusNotFound:
		return got.problem(http.StatusNotFound, "not-found") // the page that says so is the server's own
	case want.page() != got.page():
		return fmt.Errorf("got %s, want %s", got.page(), want.page())
	case got.header.Get("Cache-Status") != "scales; hit":
		return fmt.Errorf("Cache-Status is %q, want a hit", got.header.Get("Cache-Status"))
	case got.header.Get("Content-Length") != fmt.Sprint(len(got.body)):
		return fmt.Errorf("Content-Length is %q with %d bytes", got.header.Get("Content-Length"), len(got.body))
	case got.header.Get("Cache-Control") != "no-cache":
		return fmt.Errorf("Cache-Control is %q, want no-cache", got.header.Get("Cache-Control"))
	case got.header.Get("Date") == "" || got.header.Get("Age") != "" || got.header.Get("Set-Cookie") != "":
		return fmt.Errorf("the header is not that of an origin without cookies: %v", got.header)
	}
	return nil
}

func (a *answer) page() page {
	return page{a.status, a.header.Get("Content-Type"), a.body}
}

func (p page) String() string {
	return fmt.Sprintf("%d %s %.300q", p.status, p.contentType, p.body)
}

var links = regexp.MustCompile(`(?:href|src)="(/[^"]*)"`)

// linked returns what the pages link to. Where a form is sent to need not be a resource.
func linked(answers map[string]*answer) map[string]bool {
	found := map[string]bool{}
	for _, a := range answers {
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			continue
		}
		for _, match := range links.FindAllStringSubmatch(a.body, -1) {
			found[match[1]] = true
		}
	}
	return found
}

// typeOf is the Content-Type of a resource.
func typeOf(key string) string {
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

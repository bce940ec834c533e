package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Every resource of a site with many processes is what the application answers, before and after changes of each kind.
func TestEveryPageIsWhatTheApplicationAnswers(t *testing.T) {
	eachStore(t, func(t *testing.T, at store) {
		s := newSite(t, at)
		s.raceFill = true
		s.open(t, 2, 3)
		s.knowsOfNoMissingPage(t)
		if stored := s.fill(t); stored != seededKeys {
			t.Fatalf("fill has stored %d pages, want %d", stored, seededKeys)
		}
		keys := allKeys(t, s.app, seededTracks)
		s.isWhole(t, keys)
		s.isCurrent(t, keys)
		s.answersHead(t, keys)
		s.isReadableInRedis(t)

		newest := s.takesJSON(t)
		newest = s.takesForms(t, newest)
		s.refusesWhatMakesNoSense(t, newest)
		s.isCurrent(t, allKeys(t, s.app, newest+1))
		s.isIdle(t)
		s.readsNeedNoWorker(t)
	})
}

// knowsOfNoMissingPage expects a cache that was never filled to tell nobody that a page is missing.
func (s *site) knowsOfNoMissingPage(t *testing.T) {
	t.Helper()
	for _, server := range s.servers {
		for _, key := range []string{"/", "/tracks/7", "/assets/cover.png", "/no-such-page"} {
			server.get(t, key).isProblem(t, http.StatusServiceUnavailable, "not-filled")
			server.send(t, call{method: http.MethodHead, target: key}).is(t, http.StatusServiceUnavailable)
		}
	}
}

// isWhole expects that the keys are all there are: each of the right type, and everything that a page links to.
func (s *site) isWhole(t *testing.T, keys []string) {
	t.Helper()
	if len(keys) != seededKeys {
		t.Fatalf("there are %d resources, want %d", len(keys), seededKeys)
	}
	answers, err := readAll(t.Context(), s.app, keys)
	if err != nil {
		t.Fatal(err)
	}
	for key, a := range answers {
		if a.status != http.StatusOK || a.header.Get("Content-Type") != typeOf(key) || a.body == "" {
			t.Errorf("%s: the application answers %s", key, a.page())
		}
	}
	found := linked(answers)
	for _, key := range keys {
		if !found[key] {
			t.Errorf("no page links to %s", key)
		}
		delete(found, key)
	}
	if len(found) > 0 {
		t.Errorf("pages link to what is no resource: %v", found)
	}
}

// answersHead expects HEAD to be answered as GET, without a body.
func (s *site) answersHead(t *testing.T, keys []string) {
	t.Helper()
	sample := slices.Concat(keys[:8], keys[len(keys)-4:], trackKeys(7), trackKeys(seededTracks))
	for _, server := range s.servers {
		for _, key := range sample {
			get := server.get(t, key)
			head := server.send(t, call{method: http.MethodHead, target: key}).is(t, get.status)
			for _, name := range []string{"Content-Type", "Content-Length", "Cache-Control", "Cache-Status"} {
				if head.header.Get(name) != get.header.Get(name) {
					t.Errorf("HEAD %s: %s is %q, with GET %q", key, name, head.header.Get(name), get.header.Get(name))
				}
			}
			if head.body != "" {
				t.Errorf("HEAD %s has a body", key)
			}
		}
		server.get(t, "/tracks/1001").isProblem(t, http.StatusNotFound, "not-found")
		server.send(t, call{method: http.MethodHead, target: "/tracks/1001"}).is(t, http.StatusNotFound)
	}
}

// isReadableInRedis expects that redis-cli shows an entry as documented: a line of JSON, then the body.
func (s *site) isReadableInRedis(t *testing.T) {
	t.Helper()
	for _, key := range []string{"/", "/tracks/7.json", "/tracks/7", "/assets/cover.png"} {
		stored, err := s.client.Get(t.Context(), s.redisKey(key, "e:"+key)).Bytes()
		if err != nil {
			t.Fatalf("the entry of %s: %v", key, err)
		}
		line, body, _ := bytes.Cut(stored, []byte("\n"))
		var metadata struct {
			Ticket string
			Status int
			Header map[string][]string
			Size   int
		}
		if err := json.Unmarshal(line, &metadata); err != nil {
			t.Fatalf("the entry of %s begins with %q: %v", key, line, err)
		}
		want := s.app.get(t, key)
		if metadata.Status != want.status || metadata.Size != len(body) || len(metadata.Ticket) != 20 ||
			!slices.Equal(metadata.Header["Content-Type"], []string{typeOf(key)}) {
			t.Errorf("the entry of %s begins with %s", key, line)
		}
		if string(body) != want.body {
			t.Errorf("the entry of %s ends with %.100q, want %.100q", key, body, want.body)
		}
	}
}

// shows expects that every server shows a track, right now, wherever it belongs: with its name on its own pages and its
// artist's, and on the lists if it is among the newest. was are slugs of artists that must not show it.
func (s *site) shows(t *testing.T, want track, listed bool, was ...string) {
	t.Helper()
	keys := append(trackKeys(want.ID), artistKeys(want.ArtistSlug)...)
	for _, slug := range was {
		keys = append(keys, artistKeys(slug)...)
	}
	s.isCurrent(t, append(keys, "/", "/tracks", "/tracks.json", "/artists", "/artists.json"))
	shown := html.EscapeString(want.Name)
	for _, server := range s.servers {
		if got := read[track](t, server, trackPath(want.ID)+".json"); got != want {
			t.Errorf("a server shows %+v, want %+v", got, want)
		}
		for _, key := range []string{trackPath(want.ID), trackPath(want.ID) + "/edit", artistPath(want.ArtistSlug)} {
			if !strings.Contains(server.get(t, key).is(t, http.StatusOK).body, shown) {
				t.Errorf("%s does not show %q", key, want.Name)
			}
		}
		if !slices.Contains(read[artistPage](t, server, artistPath(want.ArtistSlug)+".json").Tracks, want) {
			t.Errorf("%s.json does not show %q", artistPath(want.ArtistSlug), want.Name)
		}
		list := read[trackList](t, server, "/tracks.json").Tracks
		page := server.get(t, "/tracks").is(t, http.StatusOK).body
		if slices.Contains(list, want) != listed || strings.Contains(page, shown) != listed {
			t.Errorf("track %d with its name on the lists: want %v", want.ID, listed)
		}
		for _, slug := range was {
			s.lacks(t, server, want.ID, slug)
		}
	}
}

// lacks expects that the artist's page does not show a track.
func (s *site) lacks(t *testing.T, server *process, id int64, slug string) {
	t.Helper()
	for _, other := range read[artistPage](t, server, artistPath(slug)+".json").Tracks {
		if other.ID == id {
			t.Errorf("%s.json still shows track %d", artistPath(slug), id)
		}
	}
	if strings.Contains(server.get(t, artistPath(slug)).is(t, http.StatusOK).body, fmt.Sprintf("%q", trackPath(id))) {
		t.Errorf("%s still links to track %d", artistPath(slug), id)
	}
}

// isGone expects that no server shows a deleted track anywhere.
func (s *site) isGone(t *testing.T, deleted track) {
	t.Helper()
	keys := append(trackKeys(deleted.ID), artistKeys(deleted.ArtistSlug)...)
	s.isCurrent(t, append(keys, "/", "/tracks", "/tracks.json", "/artists", "/artists.json"))
	for _, server := range s.servers {
		for _, key := range trackKeys(deleted.ID) {
			server.get(t, key).isProblem(t, http.StatusNotFound, "not-found")
		}
		if slices.Contains(read[trackList](t, server, "/tracks.json").Tracks, deleted) {
			t.Errorf("/tracks.json still shows track %d", deleted.ID)
		}
		s.lacks(t, server, deleted.ID, deleted.ArtistSlug)
	}
}

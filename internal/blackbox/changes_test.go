package blackbox_test

import (
	"html"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// writing is the header of a client whose requests carry what must not find its way into any page.
func writing() http.Header {
	return http.Header{
		"Cookie":           {"session=secret-cookie"},
		"Authorization":    {"Bearer secret-token"},
		"X-Forwarded-Host": {"evil.example"},
		"X-Forwarded-For":  {"192.0.2.66"},
		"Accept":           {"text/plain"},
		"Accept-Language":  {"tlh"},
		"Accept-Encoding":  {"gzip"},
		"Range":            {"bytes=0-9"},
		"If-None-Match":    {"*"},
	}
}

// write sends a change through the first server.
func (s *site) write(t *testing.T, c call) *answer {
	t.Helper()
	c.header = writing()
	return s.servers[0].send(t, c)
}

// writeTrack sends a change and expects a track as the answer.
func (s *site) writeTrack(t *testing.T, c call, status int) (track, *answer) {
	t.Helper()
	var got track
	a := s.write(t, c).is(t, status)
	if err := a.decode(&got); err != nil {
		t.Fatal(err)
	}
	return got, a
}

// takesJSON changes tracks as a program does, and returns the newest id.
func (s *site) takesJSON(t *testing.T) int64 {
	t.Helper()
	const name, artist, other = `<b>Tom & "Jerry"</b> – Žluťoučký`, "Band & Söhne <1>", "The Other 'Band'"
	made, reply := s.writeTrack(t, postJSON(name, artist), http.StatusCreated)
	if made.ID != seededTracks+1 || made.Name != name || made.Artist != artist || reply.header.Get("Location") != trackPath(made.ID) {
		t.Fatalf("the new track is %+v at %q", made, reply.header.Get("Location"))
	}
	s.shows(t, made, true)

	moved, _ := s.writeTrack(t, putJSON(made.ID, map[string]string{"artist": other}), http.StatusOK)
	if moved.Artist != other || moved.Name != name || moved.ArtistSlug == made.ArtistSlug {
		t.Fatalf("the moved track is %+v", moved)
	}
	s.shows(t, moved, true, made.ArtistSlug)

	before := read[track](t, s.app, "/tracks/7.json")
	renamed, _ := s.writeTrack(t, putJSON(7, map[string]string{"name": "Seven & more"}), http.StatusOK)
	if renamed.Artist != before.Artist || renamed.Name != "Seven & more" {
		t.Fatalf("the renamed track is %+v", renamed)
	}
	s.shows(t, renamed, false)

	seeded := read[track](t, s.app, "/tracks/8.json")
	both := map[string]string{"name": "Eight", "artist": before.Artist}
	changed, _ := s.writeTrack(t, putJSON(8, both), http.StatusOK)
	s.shows(t, changed, false, seeded.ArtistSlug)

	for _, deleted := range []track{moved, read[track](t, s.app, "/tracks/990.json"), read[track](t, s.app, "/tracks/9.json")} {
		a := s.write(t, call{method: http.MethodDelete, target: trackPath(deleted.ID)}).is(t, http.StatusNoContent)
		if a.body != "" {
			t.Errorf("%v is answered with a body", a.call)
		}
		s.isGone(t, deleted)
	}
	return made.ID
}

// takesForms changes tracks as a browser does, and returns the newest id.
func (s *site) takesForms(t *testing.T, newest int64) int64 {
	t.Helper()
	id := newest + 1
	fields := map[string]string{"name": "Feeling Good & Fine", "artist": "Nina Simone"}
	made := s.writeForm(t, postForm("/tracks", "", fields), trackPath(id))
	if made.ID != id || made.Name != fields["name"] || made.Artist != fields["artist"] {
		t.Fatalf("the new track is %+v", made)
	}
	s.shows(t, made, true)

	fields = map[string]string{"name": "Sinnerman", "artist": "Zoë Simone"}
	moved := s.writeForm(t, postForm(trackPath(id), http.MethodPut, fields), trackPath(id))
	if moved.Name != fields["name"] || moved.Artist != fields["artist"] {
		t.Fatalf("the changed track is %+v", moved)
	}
	s.shows(t, moved, true, made.ArtistSlug)

	a := s.write(t, postForm(trackPath(id), http.MethodDelete, nil)).is(t, http.StatusSeeOther)
	if a.header.Get("Location") != "/tracks" {
		t.Errorf("after a deletion the browser is sent to %q, want /tracks", a.header.Get("Location"))
	}
	s.isGone(t, moved)
	return id
}

// writeForm sends a form and follows where the browser is sent, through another server.
func (s *site) writeForm(t *testing.T, c call, location string) track {
	t.Helper()
	a := s.write(t, c).is(t, http.StatusSeeOther)
	if a.header.Get("Location") != location {
		t.Fatalf("%v: the browser is sent to %q, want %q", c, a.header.Get("Location"), location)
	}
	return read[track](t, s.servers[len(s.servers)-1], location+".json")
}

// refusesWhatMakesNoSense sends changes that must not change anything.
func (s *site) refusesWhatMakesNoSense(t *testing.T, newest int64) {
	t.Helper()
	bad := `Nobody & "Sons"`
	form := s.write(t, postForm("/tracks", "", map[string]string{"name": "", "artist": bad})).is(t, http.StatusUnprocessableEntity)
	if !strings.Contains(form.body, html.EscapeString(bad)) {
		t.Errorf("the refused form does not show what was sent:\n%s", form.body)
	}
	var refusal struct{ Errors map[string]string }
	if err := s.write(t, postJSON("", bad)).is(t, http.StatusUnprocessableEntity).decode(&refusal); err != nil {
		t.Fatal(err)
	}
	if len(refusal.Errors) != 1 || refusal.Errors["name"] == "" {
		t.Errorf("the refused document is answered with the errors %v, want one about the name", refusal.Errors)
	}
	for _, id := range []int64{newest, newest + 1, 1 << 40} { // deleted, and never there
		s.write(t, putJSON(id, map[string]string{"name": "nobody"})).is(t, http.StatusNotFound)
		s.write(t, call{method: http.MethodDelete, target: trackPath(id)}).is(t, http.StatusNotFound)
		s.write(t, postForm("/tracks/"+strconv.FormatInt(id, 10), http.MethodDelete, nil)).is(t, http.StatusNotFound)
	}
	for _, server := range s.servers {
		for _, artist := range read[artistList](t, server, "/artists.json").Artists {
			if artist.Name == bad {
				t.Error("a refused track has brought an artist into being")
			}
		}
	}
}

// readsNeedNoWorker stops everything but the servers, and expects them to answer as before.
func (s *site) readsNeedNoWorker(t *testing.T) {
	t.Helper()
	keys := allKeys(t, s.app, 100)
	want, err := readAll(t.Context(), s.app, keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(s.workers, s.app) {
		p.stop(t)
	}
	for _, server := range s.servers {
		got, err := readAll(t.Context(), server, keys)
		if err != nil {
			t.Fatal(err)
		}
		if differences := compare(want, got); len(differences) > 0 {
			t.Errorf("without workers a server differs: %s", differences[0])
		}
	}
}

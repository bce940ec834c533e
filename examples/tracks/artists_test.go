package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// expectArtist fails the test unless the artist has that name and the tracks, by its document and by those of the tracks.
func expectArtist(t *testing.T, app http.Handler, slug, name string, tracks ...int64) {
	t.Helper()
	var found artistTracks
	decode(t, app, artistPath(slug)+".json", &found)
	var ids []int64
	for _, one := range found.Tracks {
		ids = append(ids, one.ID)
		var alone track
		if decode(t, app, trackPath(one.ID)+".json", &alone); alone != one || one.Artist != name || one.ArtistSlug != slug {
			t.Errorf("track %d of %s is %+v there and %+v alone", one.ID, slug, one, alone)
		}
	}
	if found.Slug != slug || found.Name != name || !slices.Equal(ids, tracks) {
		t.Errorf("the artist %s is %q with the slug %s and the tracks %v, want %q with %v", slug, found.Name, found.Slug, ids, name, tracks)
	}
}

func TestPUTOfJSONRenamesAnArtist(t *testing.T) {
	app := newApp(t, smallStore(t))
	for _, name := range []string{"Ada V", "Ada V", "The Paper Lantern", "Ada Vance", "ada vance"} {
		document, _ := json.Marshal(map[string]any{"name": " " + name + " ", "slug": "other", "into": 5, "artist": ""})
		response := ask(t, app, http.MethodPut, "/artists/ada-vance", asJSON, string(document))
		answered := expect(t, response, http.StatusOK)
		if got := response.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("the Content-Type is %q", got)
		}
		if read := expect(t, get(t, app, "/artists/ada-vance.json"), http.StatusOK); read != answered {
			t.Errorf("the answer is %s, and reading it gives %s", answered, read)
		}
		expectArtist(t, app, "ada-vance", name, 1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56)
	}
}

func TestANewTrackFindsARenamedArtistByTheNewName(t *testing.T) {
	app := newApp(t, smallStore(t))
	expect(t, ask(t, app, http.MethodPut, "/artists/ada-vance", asJSON, `{"name":"Ada V"}`), http.StatusOK)
	for name, slug := range map[string]string{"Ada V": "ada-vance", "Ada Vance": "ada-vance-2"} {
		document := fmt.Sprintf(`{"name":"New","artist":%q}`, name)
		created := parseTrack(t, expect(t, ask(t, app, http.MethodPost, "/tracks", asJSON, document), http.StatusCreated))
		if created.Artist != name || created.ArtistSlug != slug {
			t.Errorf("a track of %s is %+v, want the slug %s", name, created, slug)
		}
	}
	// The old name belongs to somebody else now.
	expect(t, ask(t, app, http.MethodPut, "/artists/ada-vance", asJSON, `{"name":"Ada Vance"}`), http.StatusUnprocessableEntity)
}

func TestPOSTOfJSONMergesArtists(t *testing.T) {
	app := newApp(t, smallStore(t))
	both := []int64{1, 2, 6, 7, 11, 12, 16, 17, 21, 22, 26, 27, 31, 32, 36, 37, 41, 42, 46, 47, 51, 52, 56, 57}
	for range 2 { // the second time there is nothing left to move
		response := ask(t, app, http.MethodPost, "/artists/ada-vance/merge", asJSON, `{"into":"harbour-and-sons"}`)
		answered := expect(t, response, http.StatusOK)
		if read := expect(t, get(t, app, "/artists/harbour-and-sons.json"), http.StatusOK); read != answered {
			t.Errorf("the answer is %s, and reading it gives %s", answered, read)
		}
		expectArtist(t, app, "harbour-and-sons", "Harbour & Sons", both...)
		expectArtist(t, app, "ada-vance", "Ada Vance")
	}
	var list artistList
	decode(t, app, "/artists.json", &list)
	if len(list.Artists) != 5 || list.Artists[0] != (artist{"ada-vance", "Ada Vance", 0}) {
		t.Errorf("the artists are %+v", list.Artists)
	}
	created := parseTrack(t, expect(t, ask(t, app, http.MethodPost, "/tracks", asJSON, `{"name":"New","artist":"Ada Vance"}`), 201))
	expectArtist(t, app, "ada-vance", "Ada Vance", created.ID)
}

func TestFormsRenameAndMerge(t *testing.T) {
	app := newApp(t, smallStore(t))
	for _, step := range []struct{ target, body, location string }{
		{"/artists/ada-vance", values("_method", "PUT", "name", "Née & Co"), "/artists/ada-vance"},
		{"/artists/ada-vance", values("_method", "put", "name", "Ada <V>"), "/artists/ada-vance"},
		{"/artists/harbour-and-sons/merge", values("into", "bjorn-ekstrom"), "/artists/bjorn-ekstrom"},
		{"/artists/bjorn-ekstrom/merge", values("into", " ada-vance ", "_method", "POST"), "/artists/ada-vance"},
	} {
		response := ask(t, app, http.MethodPost, step.target, asForm, step.body)
		expect(t, response, http.StatusSeeOther)
		if location := response.Header.Get("Location"); location != step.location {
			t.Errorf("POST %s of %s leads to %q, want %q", step.target, step.body, location, step.location)
		}
	}
	var merged artistTracks
	if decode(t, app, "/artists/ada-vance.json", &merged); merged.Name != "Ada <V>" || len(merged.Tracks) != 36 {
		t.Errorf("the artist is %q with %d tracks, want Ada <V> with 36", merged.Name, len(merged.Tracks))
	}
	page := expect(t, get(t, app, "/artists/ada-vance"), http.StatusOK)
	for _, want := range []string{
		`action="/artists/ada-vance"`, `value="PUT"`, `name="name" value="Ada &lt;V&gt;"`,
		`action="/artists/ada-vance/merge"`, `name="into" value=""`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the artist does not show %q:\n%s", want, page)
		}
	}
}

// badArtistWrites are writes that are refused, with the status and, for JSON, the whole answer.
var badArtistWrites = []struct {
	method, target, contentType, body string
	status                            int
	want                              string
}{
	{"PUT", "/artists/ada-vance", asJSON, `{}`, 422, `{"errors":{"name":"is required"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"Name":"A"}`, 422, `{"errors":{"name":"is required"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":" "}`, 422, `{"errors":{"name":"is required"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":null}`, 422, `{"errors":{"name":"must be a string"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":"\u0007"}`, 422, `{"errors":{"name":"must not contain control characters"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":"` + strings.Repeat("é", maxFieldLength+1) + `"}`, 422,
		`{"errors":{"name":"must not be longer than 200 characters"}}`},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":" Harbour & Sons "}`, 422, `{"errors":{"name":"belongs to another artist"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{}`, 422, `{"errors":{"into":"is required"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{"into":""}`, 422, `{"errors":{"into":"is required"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{"into":["harbour-and-sons"]}`, 422, `{"errors":{"into":"must be a string"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"nobody"}`, 422, `{"errors":{"into":"names no artist"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"Harbour & Sons"}`, 422, `{"errors":{"into":"names no artist"}}`},
	{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"ada-vance"}`, 422, `{"errors":{"into":"names the same artist"}}`},

	{"PUT", "/artists/nobody", asJSON, `{"name":"A"}`, 404, ""},
	{"PUT", "/artists/nobody", asJSON, `{"name":""}`, 404, ""},
	{"PUT", "/artists/nobody", asJSON, `{"name":"Ada Vance"}`, 404, ""},
	{"PUT", "/artists/Ada-Vance", asJSON, `{"name":"A"}`, 404, ""},
	{"POST", "/artists/nobody", asForm, values("_method", "PUT", "name", "A"), 404, ""},
	{"POST", "/artists/nobody/merge", asJSON, `{"into":"ada-vance"}`, 404, ""},
	{"POST", "/artists/nobody/merge", asJSON, `{"into":"nobody"}`, 404, ""},
	{"POST", "/artists/nobody/merge", asJSON, `{}`, 404, ""},
	{"POST", "/artists/nobody/merge", asForm, values("into", "ada-vance"), 404, ""},

	{"PUT", "/artists/ada-vance", asJSON, ``, 400, ""},
	{"PUT", "/artists/ada-vance", asJSON, `{"name":"A"`, 400, ""},
	{"PUT", "/artists/ada-vance", asJSON, `"A"`, 400, ""},
	{"POST", "/artists/ada-vance", asForm, `_method=PUT&name=%zz`, 400, ""},
	{"POST", "/artists/ada-vance/merge", asJSON, `into=nobody`, 400, ""},
	{"POST", "/artists/ada-vance/merge", asJSON, "{\"into\":\"\xff\"}", 400, ""},

	{"PUT", "/artists/ada-vance", "", `{"name":"A"}`, 415, ""},
	{"PUT", "/artists/ada-vance", asForm, `name=A`, 415, ""},
	{"POST", "/artists/ada-vance", "text/plain", `name=A`, 415, ""},
	{"POST", "/artists/ada-vance/merge", "", `{"into":"harbour-and-sons"}`, 415, ""},
	{"POST", "/artists/ada-vance/merge", "multipart/form-data; boundary=x", `--x--`, 415, ""},

	{"POST", "/artists/ada-vance", asForm, values("name", "A"), 405, ""},
	{"POST", "/artists/ada-vance", asForm, values("_method", "DELETE"), 405, ""},
	{"POST", "/artists/ada-vance", asJSON, `{"name":"A"}`, 405, ""},
	{"POST", "/artists/ada-vance/merge", asForm, values("_method", "PUT", "into", "harbour-and-sons"), 405, ""},

	{"PUT", "/artists/ada-vance", asJSON, `{"name":"` + strings.Repeat("A", 1<<20) + `"}`, 413, ""},
}

func TestWritesOfArtistsThatAreRefusedChangeAndInvalidateNothing(t *testing.T) {
	s := smallStore(t)
	app := newApp(t, s)
	before := take(t, app, s, nil)
	for _, request := range badArtistWrites {
		what := fmt.Sprintf("%s %s as %q of %.60s", request.method, request.target, request.contentType, request.body)
		response := ask(t, app, request.method, request.target, request.contentType, request.body)
		content := body(t, response)
		if response.StatusCode != request.status {
			t.Errorf("%s answers %d, want %d", what, response.StatusCode, request.status)
		}
		if request.want != "" && strings.TrimSpace(content) != request.want {
			t.Errorf("%s answers %s, want %s", what, content, request.want)
		}
		if request.contentType == asJSON && !json.Valid([]byte(content)) {
			t.Errorf("%s answers what is not JSON: %s", what, content)
		}
		if request.status == 405 && response.Header.Get("Allow") == "" {
			t.Errorf("%s does not say what is allowed", what)
		}
		if groups := response.Header.Values(invalidationField); len(groups) > 0 {
			t.Errorf("%s invalidates %v", what, groups)
		}
	}
	if keys := changed(before, take(t, app, s, before)); len(keys) > 0 {
		t.Errorf("they changed %v", keys)
	}
}

func TestTheFormsOfAnArtistComeBackWithTheReasons(t *testing.T) {
	app := newApp(t, smallStore(t))
	for _, request := range []struct {
		target, body string
		shows        []string
	}{
		{"/artists/ada-vance", values("_method", "PUT"), []string{
			"<h1>Ada Vance</h1>", "The name is required.", `name="name" value="Ada Vance"`}},
		{"/artists/ada-vance", values("_method", "PUT", "name", `A"><b>`+"\x00\xff"), []string{
			"The name must be valid UTF-8.", `name="name" value="A&#34;&gt;&lt;b&gt;`}},
		{"/artists/ada-vance", values("_method", "PUT", "name", "Harbour & Sons"), []string{
			"<h1>Ada Vance</h1>", "The name belongs to another artist.", `name="name" value="Harbour &amp; Sons"`}},
		{"/artists/ada-vance/merge", values("into", ""), []string{
			"The slug is required.", `name="name" value="Ada Vance"`, `name="into" value=""`, "12 tracks"}},
		{"/artists/ada-vance/merge", values("into", `"nobody"`), []string{
			"The slug names no artist.", `name="into" value="&#34;nobody&#34;"`}},
		{"/artists/ada-vance/merge", values("into", "ada-vance"), []string{"The slug names the same artist."}},
	} {
		response := ask(t, app, http.MethodPost, request.target, asForm, request.body)
		page := expect(t, response, http.StatusUnprocessableEntity)
		if got := response.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("the Content-Type is %q", got)
		}
		for _, want := range request.shows {
			if !strings.Contains(page, want) {
				t.Errorf("the page for %s does not show %q:\n%s", request.body, want, page)
			}
		}
	}
}

func TestAWorkDelayIsSleptAfterAChangeOfArtists(t *testing.T) {
	app, err := newApplication(smallStore(t), applicationOptions{maxBody: 1 << 20, workDelay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []struct{ method, target, body string }{
		{"PUT", "/artists/ada-vance", `{"name":"Ada V"}`},
		{"POST", "/artists/ada-vance/merge", `{"into":"harbour-and-sons"}`},
	} {
		begin := time.Now()
		expect(t, ask(t, app, request.method, request.target, asJSON, request.body), http.StatusOK)
		if took := time.Since(begin); took < 20*time.Millisecond {
			t.Errorf("%s %s took %v, want at least the delay", request.method, request.target, took)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const (
	asJSON = "application/json"
	asForm = "application/x-www-form-urlencoded"
)

// values encodes a form from pairs of field and value.
func values(pairs ...string) string {
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return form.Encode()
}

func parseTrack(t *testing.T, document string) track {
	t.Helper()
	var parsed track
	if err := json.Unmarshal([]byte(document), &parsed); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	return parsed
}

func TestPOSTOfJSONMakesATrack(t *testing.T) {
	app := newApp(t, newStore(t))
	response := ask(t, app, http.MethodPost, "/tracks", asJSON+"; charset=utf-8", `{"name":" New Song ","artist":"Newcomer","id":5}`)
	created := parseTrack(t, expect(t, response, http.StatusCreated))
	if want := (track{ID: 1001, Name: "New Song", Artist: "Newcomer", ArtistSlug: "newcomer"}); created != want {
		t.Errorf("the answer is %+v, want %+v", created, want)
	}
	if location := response.Header.Get("Location"); location != "/tracks/1001" {
		t.Errorf("the Location is %q, want /tracks/1001", location)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("the Content-Type is %q", got)
	}
	var read track
	if decode(t, app, "/tracks/1001.json", &read); read != created {
		t.Errorf("reading it gives %+v, want %+v", read, created)
	}
}

func TestPUTOfJSONChangesWhatItNames(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, step := range []struct {
		body string
		want track
	}{
		{`{"name":"Other"}`, track{7, "Other", "O'Rourke's Orchestra", "orourkes-orchestra"}},
		{`{"artist":"Ada Vance"}`, track{7, "Other", "Ada Vance", "ada-vance"}},
		{`{}`, track{7, "Other", "Ada Vance", "ada-vance"}},
		{`{"name":"Both","artist":"Somebody New","x":[1]}`, track{7, "Both", "Somebody New", "somebody-new"}},
		{`{"id":8,"name":"Both","artist":"Somebody New","artist_slug":"y"}`, track{7, "Both", "Somebody New", "somebody-new"}},
	} {
		response := ask(t, app, http.MethodPut, "/tracks/7", asJSON, step.body)
		if got := parseTrack(t, expect(t, response, http.StatusOK)); got != step.want {
			t.Errorf("PUT of %s answers %+v, want %+v", step.body, got, step.want)
		}
		var read track
		if decode(t, app, "/tracks/7.json", &read); read != step.want {
			t.Errorf("after PUT of %s the track is %+v, want %+v", step.body, read, step.want)
		}
	}
}

func TestDELETEDeletesATrackOnce(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, step := range []struct{ target, contentType string }{{"/tracks/7", ""}, {"/tracks/8", asJSON}} {
		if content := expect(t, ask(t, app, http.MethodDelete, step.target, step.contentType, ""), http.StatusNoContent); content != "" {
			t.Errorf("the answer to DELETE has the body %q", content)
		}
		expect(t, get(t, app, step.target), http.StatusNotFound)
		expect(t, ask(t, app, http.MethodDelete, step.target, step.contentType, ""), http.StatusNotFound)
	}
}

func TestAnArtistStaysWithoutTracksAndKeepsItsSlug(t *testing.T) {
	app := newApp(t, newStore(t))
	created := parseTrack(t, expect(t, ask(t, app, http.MethodPost, "/tracks", asJSON, `{"name":"A","artist":"Lone Wolf"}`), 201))
	expect(t, ask(t, app, http.MethodDelete, trackPath(created.ID), "", ""), http.StatusNoContent)
	var alone artistTracks
	decode(t, app, "/artists/lone-wolf.json", &alone)
	if alone.Name != "Lone Wolf" || len(alone.Tracks) != 0 {
		t.Errorf("the artist is %+v", alone)
	}
	again := parseTrack(t, expect(t, ask(t, app, http.MethodPost, "/tracks", asJSON, `{"name":"B","artist":"Lone Wolf"}`), 201))
	if again.ArtistSlug != "lone-wolf" {
		t.Errorf("the artist has the slug %q now", again.ArtistSlug)
	}
}

func TestFormsMakeChangeAndDelete(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, step := range []struct {
		target, body, location string
		want                   track // as it is afterwards; ID 0 for a track that is gone
	}{
		{"/tracks", values("name", "Née & Co", "artist", "Newcomer"), "/tracks/1001", track{1001, "Née & Co", "Newcomer", "newcomer"}},
		{"/tracks/1001", values("_method", "PUT", "name", "Other"), "/tracks/1001", track{1001, "Other", "Newcomer", "newcomer"}},
		{"/tracks/1001", values("_method", "put", "artist", "Ada Vance"), "/tracks/1001", track{1001, "Other", "Ada Vance", "ada-vance"}},
		{"/tracks/1001", values("_method", "DELETE"), "/tracks", track{}},
	} {
		response := ask(t, app, http.MethodPost, step.target, asForm, step.body)
		expect(t, response, http.StatusSeeOther)
		if location := response.Header.Get("Location"); location != step.location {
			t.Errorf("POST %s of %s leads to %q, want %q", step.target, step.body, location, step.location)
		}
		if step.want.ID == 0 {
			expect(t, get(t, app, "/tracks/1001"), http.StatusNotFound)
			continue
		}
		var read track
		if decode(t, app, "/tracks/1001.json", &read); read != step.want {
			t.Errorf("after POST %s of %s the track is %+v, want %+v", step.target, step.body, read, step.want)
		}
	}
}

func TestValuesThatAreNoGoodAreNamed(t *testing.T) {
	s := newStore(t)
	app := newApp(t, s)
	long := strings.Repeat("é", maxFieldLength)
	for _, request := range []struct {
		method, target, body, want string
	}{
		{"POST", "/tracks", `{}`, `{"errors":{"artist":"is required","name":"is required"}}`},
		{"POST", "/tracks", `{"name":"  ","artist":"B"}`, `{"errors":{"name":"is required"}}`},
		{"POST", "/tracks", `{"name":"A","artist":null}`, `{"errors":{"artist":"must be a string"}}`},
		{"POST", "/tracks", `{"name":5,"artist":["B"]}`, `{"errors":{"artist":"must be a string","name":"must be a string"}}`},
		{"POST", "/tracks", `{"Name":"A","artist":"B"}`, `{"errors":{"name":"is required"}}`},
		{"POST", "/tracks", `{"name":"A\u0000","artist":"B\n"}`,
			`{"errors":{"artist":"must not contain control characters","name":"must not contain control characters"}}`},
		{"POST", "/tracks", `{"name":"` + long + `x","artist":"B"}`, `{"errors":{"name":"must not be longer than 200 characters"}}`},
		{"PUT", "/tracks/7", `{"name":""}`, `{"errors":{"name":"is required"}}`},
		{"PUT", "/tracks/7", `{"name":"Fine","artist":"\u0007"}`, `{"errors":{"artist":"must not contain control characters"}}`},
		{"PUT", "/tracks/7", `{"artist":{}}`, `{"errors":{"artist":"must be a string"}}`},
	} {
		response := ask(t, app, request.method, request.target, asJSON, request.body)
		if got := strings.TrimSpace(expect(t, response, http.StatusUnprocessableEntity)); got != request.want {
			t.Errorf("%s of %s answers %s, want %s", request.method, request.body, got, request.want)
		}
	}
	if total, err := s.totals(t.Context()); err != nil || total != (totals{Tracks: 1000, Artists: 100}) {
		t.Errorf("there are %+v (%v) now", total, err)
	}
	var untouched track
	if decode(t, app, "/tracks/7.json", &untouched); untouched.Name != trackName(7) {
		t.Errorf("track 7 is %+v now", untouched)
	}
	expect(t, ask(t, app, http.MethodPost, "/tracks", asJSON, `{"name":"`+long+`","artist":"B"}`), http.StatusCreated)
}

func TestAFormComesBackWithTheReasons(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, request := range []struct {
		target, body string
		shows        []string
	}{
		{"/tracks", values("artist", `<b>"Band"`), []string{
			"The name is required.", `value="&lt;b&gt;&#34;Band&#34;"`, `action="/tracks"`, "<title>New track"}},
		{"/tracks", values("name", "A\x00B", "artist", "C\xffD"), []string{
			"The name must not contain control characters.", "The artist must be valid UTF-8."}},
		{"/tracks/7", values("_method", "PUT", "name", " "), []string{
			"The name is required.", `value="O&#39;Rourke&#39;s Orchestra"`, `action="/tracks/7"`, `value="PUT"`, `value="DELETE"`}},
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

func TestRequestsThatCannotBeUnderstood(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, request := range []struct {
		method, target, contentType, body string
		status                            int
	}{
		{"POST", "/tracks", asJSON, ``, 400},
		{"POST", "/tracks", asJSON, `{"name":"A","artist":"B"`, 400},
		{"POST", "/tracks", asJSON, `{"name":"A","artist":"B"} {}`, 400},
		{"POST", "/tracks", asJSON, `{"name":"A","artist":"B"}x`, 400},
		{"POST", "/tracks", asJSON, `null`, 400},
		{"POST", "/tracks", asJSON, `["A","B"]`, 400},
		{"POST", "/tracks", asJSON, "{\"name\":\"\xff\",\"artist\":\"B\"}", 400},
		{"PUT", "/tracks/7", asJSON, `name=A`, 400},
		{"POST", "/tracks", asForm, `name=%zz&artist=B`, 400},

		{"POST", "/tracks", "", `{"name":"A","artist":"B"}`, 415},
		{"POST", "/tracks", "text/plain", `{"name":"A","artist":"B"}`, 415},
		{"POST", "/tracks", "multipart/form-data; boundary=x", `--x--`, 415},
		{"POST", "/tracks", "application/jsonp", `{"name":"A","artist":"B"}`, 415},
		{"POST", "/tracks", "/;", `{"name":"A","artist":"B"}`, 415},
		{"PUT", "/tracks/7", "", `{"name":"A"}`, 415},
		{"PUT", "/tracks/7", asForm, `name=A`, 415},
		{"DELETE", "/tracks/7", "text/plain", ``, 415},

		{"PUT", "/tracks/1001", asJSON, `{"name":"A"}`, 404},
		{"PUT", "/tracks/1001", asJSON, `{"name":""}`, 404},
		{"PUT", "/tracks/007", asJSON, `{"name":"A"}`, 404},
		{"DELETE", "/tracks/1001", "", ``, 404},
		{"DELETE", "/tracks/1e3", "", ``, 404},
		{"POST", "/tracks/1001", asForm, values("_method", "PUT", "name", "A"), 404},
		{"POST", "/tracks/1001", asForm, values("_method", "DELETE"), 404},
		{"POST", "/elsewhere", asJSON, `{}`, 404},

		{"POST", "/tracks/7", asForm, values("name", "A"), 405},
		{"POST", "/tracks/7", asForm, values("_method", "PATCH"), 405},
		{"POST", "/tracks/7", asJSON, `{"name":"A"}`, 405},
		{"POST", "/tracks", asForm, values("_method", "DELETE"), 405},

		{"POST", "/tracks", asJSON, `{"name":"A","artist":"` + strings.Repeat("B", 1<<20) + `"}`, 413},
		{"POST", "/tracks", asForm, `name=A&artist=` + strings.Repeat("B", 1<<20), 413},
	} {
		what := fmt.Sprintf("%s %s as %q of %.60s", request.method, request.target, request.contentType, request.body)
		response := ask(t, app, request.method, request.target, request.contentType, request.body)
		content := body(t, response)
		if response.StatusCode != request.status {
			t.Errorf("%s answers %d, want %d", what, response.StatusCode, request.status)
		}
		jsonAnswer := request.contentType == asJSON || request.method == "DELETE" && request.contentType == ""
		want := "text/html; charset=utf-8"
		if jsonAnswer {
			want = "application/json; charset=utf-8"
		}
		if got := response.Header.Get("Content-Type"); got != want {
			t.Errorf("%s answers as %q, want %q", what, got, want)
		}
		if jsonAnswer && !json.Valid([]byte(content)) {
			t.Errorf("%s answers what is not JSON: %s", what, content)
		}
		if request.status == 405 && response.Header.Get("Allow") == "" {
			t.Errorf("%s does not say what is allowed", what)
		}
	}
	if page := expect(t, get(t, app, "/"), 200); !strings.Contains(page, "1000 tracks") {
		t.Error("something was changed all the same")
	}
}

func TestChangesFromOtherSitesAreForbidden(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, field := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://elsewhere.example"}} {
		r := httptest.NewRequest(http.MethodPost, "/tracks/7", strings.NewReader(values("_method", "DELETE")))
		r.Header.Set("Content-Type", asForm)
		r.Header.Set(field[0], field[1])
		expect(t, answer(app, r), http.StatusForbidden)
		expect(t, get(t, app, "/tracks/7"), http.StatusOK)
	}
	r := httptest.NewRequest(http.MethodPost, "/tracks/7", strings.NewReader(values("_method", "DELETE")))
	r.Header.Set("Content-Type", asForm)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Origin", "http://"+r.Host)
	expect(t, answer(app, r), http.StatusSeeOther)
}

func FuzzSubmission(f *testing.F) {
	f.Add(true, `{"name":"A","artist":"B"}`)
	f.Add(true, `{"name":5}`)
	f.Add(false, "name=A&artist=B&_method=put")
	f.Add(false, "name=%00&artist=%ff")
	f.Fuzz(func(t *testing.T, asDocument bool, body string) {
		r := httptest.NewRequest(http.MethodPost, "/tracks", strings.NewReader(body))
		r.Header.Set("Content-Type", map[bool]string{true: asJSON, false: asForm}[asDocument])
		in, err := readSubmission(httptest.NewRecorder(), r, 1<<10, trackFields...)
		if err != nil {
			return
		}
		for field, value := range in.fields {
			if in.errors[field] != "" {
				continue
			}
			if again, reason := checkField(value); reason != "" || again != value {
				t.Errorf("the value %q was taken, and is %q (%s) the second time", value, again, reason)
			}
			if strings.TrimSpace(value) == "" {
				t.Errorf("an empty %s was taken", field)
			}
		}
	})
}

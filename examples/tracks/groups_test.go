package main

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// groupsIn returns the groups that a field of a response names, after checking that every cache can take them.
func groupsIn(t *testing.T, response *http.Response, field string) []string {
	t.Helper()
	value := strings.Join(response.Header.Values(field), ", ")
	if value == "" {
		return nil
	}
	// A List of Strings without escapes, of no more than 128 printable characters each.
	if !regexp.MustCompile(`^"[ !#-\[\]-~]{1,128}"(, "[ !#-\[\]-~]{1,128}")*$`).MatchString(value) {
		t.Fatalf("%s: %s is not a list of groups", field, value)
	}
	groups := strings.Split(strings.Trim(value, `"`), `", "`)
	if len(groups) > 128 {
		t.Fatalf("%s names %d groups, want at most 128", field, len(groups))
	}
	return groups
}

func TestEveryKindOfPageIsInTheGroupsOfWhatItShows(t *testing.T) {
	app := newApp(t, newStore(t))
	for _, page := range []struct {
		target string
		groups []string
	}{
		{"/", nil},
		{"/tracks", []string{"artists"}},
		{"/tracks.json", []string{"artists"}},
		{"/tracks/new", nil},
		{"/tracks/7", []string{"artist-orourkes-orchestra"}},
		{"/tracks/7.json", []string{"artist-orourkes-orchestra"}},
		{"/tracks/7/edit", []string{"artist-orourkes-orchestra"}},
		{"/tracks/1001", nil},
		{"/artists", []string{"artists"}},
		{"/artists.json", []string{"artists"}},
		{"/artists/ada-vance", []string{"artist-ada-vance"}},
		{"/artists/ada-vance.json", []string{"artist-ada-vance"}},
		{"/artists/nobody", nil},
		{"/assets/app.css", nil},
		{"/assets/cover.png", nil},
	} {
		if groups := groupsIn(t, get(t, app, page.target), groupsField); !slices.Equal(groups, page.groups) {
			t.Errorf("%s is in the groups %v, want %v", page.target, groups, page.groups)
		}
	}
}

func TestAPageThatNamesAnArtistIsInAGroupOfThisArtist(t *testing.T) {
	s := smallStore(t)
	app := newApp(t, s)
	list, err := s.artists(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		response := get(t, app, key)
		groups, content := groupsIn(t, response, groupsField), html.UnescapeString(body(t, response))
		named := 0
		for _, one := range list.Artists {
			inJSON, err := json.Marshal(one.Name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(content, one.Name) && !strings.Contains(content, string(inJSON)) {
				continue
			}
			named++
			if !slices.Contains(groups, artistGroup(one.Slug)) && !slices.Contains(groups, artistsGroup) {
				t.Errorf("%s names %s and is in the groups %v", key, one.Name, groups)
			}
		}
		if named == 0 && len(groups) > 0 {
			t.Errorf("%s names no artist and is in the groups %v", key, groups)
		}
	}
}

func TestTheGroupOfTheLongestSlugIsShortEnough(t *testing.T) {
	longest := strings.Repeat("a", maxSlugLength) + "-" + strconv.FormatInt(math.MaxInt64, 10)
	if length := len(artistGroup(longest)); length > 128 {
		t.Errorf("the longest group has %d characters, want at most 128", length)
	}
	s := smallStore(t)
	app := newApp(t, s)
	name := strings.Repeat("a", maxSlugLength-2) + " " + strings.Repeat("b", 100)
	for _, name := range []string{name, name + "c"} {
		created, _, err := s.create(t.Context(), "Song", name)
		if err != nil {
			t.Fatal(err)
		}
		if len(created.ArtistSlug) < maxSlugLength {
			t.Errorf("the slug %s is not as long as it may be", created.ArtistSlug)
		}
		want := []string{"artist-" + created.ArtistSlug}
		if groups := groupsIn(t, get(t, app, trackPath(created.ID)), groupsField); !slices.Equal(groups, want) {
			t.Errorf("the track is in the groups %v, want %v", groups, want)
		}
	}
}

func TestWritesOfArtistsInvalidateTheirGroups(t *testing.T) {
	app := newApp(t, smallStore(t))
	renamed := []string{"artists", "artist-ada-vance"}
	merged := []string{"artists", "artist-ada-vance", "artist-harbour-and-sons"}
	for _, write := range []struct {
		method, target, contentType, body string
		status                            int
		groups                            []string
	}{
		{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`, 200, renamed},
		// The second run of a request, whose first run has made the change and did not live to answer.
		{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`, 200, renamed},
		{"POST", "/artists/ada-vance", asForm, values("_method", "PUT", "name", "Ada"), 303, renamed},
		{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"harbour-and-sons"}`, 200, merged},
		{"POST", "/artists/ada-vance/merge", asForm, values("into", "harbour-and-sons"), 303, merged},
		{"POST", "/artists/harbour-and-sons/merge", asJSON, `{"into":"ada-vance"}`, 200, merged},
		{"POST", "/tracks", asJSON, `{"name":"A","artist":"B"}`, 201, nil},
	} {
		what := write.method + " " + write.target + " of " + write.body
		response := ask(t, app, write.method, write.target, write.contentType, write.body)
		expect(t, response, write.status)
		if groups := groupsIn(t, response, invalidationField); !slices.Equal(groups, write.groups) {
			t.Errorf("%s invalidates %v, want %v", what, groups, write.groups)
		}
		if groups := response.Header.Values(groupsField); len(groups) > 0 {
			t.Errorf("%s answers with a page in the groups %v, which only the answer to GET can be", what, groups)
		}
	}
}

// model is a cache that does nothing but what the fields about groups say. Of a page it knows the groups that it was in
// when it was last rendered.
type model struct {
	app    http.Handler
	pages  snapshot
	groups map[string][]string
	// ignored is a group of which the model hears nothing, "" for none.
	ignored string
}

// newModel returns a model that holds all pages.
func newModel(t *testing.T, app http.Handler, s *store, ignored string) *model {
	t.Helper()
	m := &model{app: app, pages: snapshot{}, groups: map[string][]string{}, ignored: ignored}
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		m.render(t, key)
	}
	return m
}

func (m *model) render(t *testing.T, key string) {
	t.Helper()
	response := get(t, m.app, key)
	m.groups[key] = groupsIn(t, response, groupsField)
	m.pages[key] = fmt.Sprint(response.StatusCode, body(t, response))
}

// invalidate renders the pages in groups again.
func (m *model) invalidate(t *testing.T, groups []string) {
	t.Helper()
	var keys []string
	for key, in := range m.groups {
		if slices.ContainsFunc(in, func(group string) bool { return group != m.ignored && slices.Contains(groups, group) }) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		m.render(t, key)
	}
}

// write sends a write of artists and does what its response says.
func (m *model) write(t *testing.T, w artistWrite) {
	t.Helper()
	response := ask(t, m.app, w.method, w.target, w.contentType, w.body)
	if content := body(t, response); response.StatusCode >= 500 {
		t.Fatalf("%s %s of %s answers %d: %s", w.method, w.target, w.body, response.StatusCode, content)
	}
	m.invalidate(t, groupsIn(t, response, invalidationField))
}

type artistWrite struct{ method, target, contentType, body string }

// A rename and a merge are compared with what they changed: a page that changed and was in none of the groups when it was
// last rendered would stay stale in a cache.
func TestEveryPageThatAWriteOfArtistsChangesIsInAnInvalidatedGroup(t *testing.T) {
	for _, write := range []artistWrite{
		{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`},
		{"POST", "/artists/harbour-and-sons", asForm, values("_method", "PUT", "name", "Harbour < Sons")},
		{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"bjorn-ekstrom"}`},
		{"POST", "/artists/bjorn-ekstrom/merge", asForm, values("into", "ada-vance")},
	} {
		s := smallStore(t)
		app := newApp(t, s)
		before, cached := take(t, app, s, nil), newModel(t, app, s, "")
		response := ask(t, app, write.method, write.target, write.contentType, write.body)
		body(t, response)
		invalidated := groupsIn(t, response, invalidationField)
		keys := changed(before, take(t, app, s, before))
		for _, key := range keys {
			in := cached.groups[key]
			if !slices.ContainsFunc(in, func(group string) bool { return slices.Contains(invalidated, group) }) {
				t.Errorf("%s %s changed %s, which is in %v, and invalidates %v", write.method, write.target, key, in, invalidated)
			}
		}
		// Both pages of at least one artist, three for each of twelve tracks, and the lists.
		if len(keys) < 2+3*12+2 {
			t.Errorf("%s %s changed %v only", write.method, write.target, keys)
		}
	}
}

// Pages change their groups when tracks move. Over many writes, of tracks as well, a cache that follows the groups must
// hold what the application answers.
func TestACacheThatFollowsTheGroupsStaysCurrent(t *testing.T) {
	s := smallStore(t)
	app := newApp(t, s)
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	slugs := []string{"the-paper-lanterns", "ada-vance", "harbour-and-sons", "bjorn-ekstrom", "midnight-cartographers", "newcomer"}
	cached := newModel(t, app, s, "")
	for step := range 20 {
		slug, other := slugs[random.IntN(len(slugs))], slugs[random.IntN(len(slugs))]
		name := fmt.Sprintf("Name %d", random.IntN(20)) // now and then that of another artist, or the one it has
		var what string
		var made change
		var err error
		switch random.IntN(5) {
		case 0, 1:
			what = "rename " + slug + " to " + name
			cached.write(t, artistWrite{"PUT", artistPath(slug), asJSON, fmt.Sprintf(`{"name":%q}`, name)})
		case 2:
			what = "merge " + slug + " into " + other
			cached.write(t, artistWrite{"POST", artistPath(slug) + "/merge", asForm, values("into", other)})
		case 3:
			id := random.Int64N(60) + 1
			what = fmt.Sprintf("move %d to %s", id, name)
			_, made, err = s.update(t.Context(), id, nil, &name)
		default:
			what = "create by Newcomer"
			_, made, err = s.create(t.Context(), fmt.Sprintf("Song %d", step), "Newcomer")
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if made.id > 0 { // what the handlers of tracks name by key
			for _, key := range made.keys() {
				cached.render(t, key)
			}
		}
		if stale := changed(cached.pages, take(t, app, s, cached.pages)); len(stale) > 0 {
			t.Fatalf("after step %d, %s, these are stale: %v", step, what, stale)
		}
	}
}

// This shows that each kind of group is what keeps pages current.
func TestWithoutAGroupItsPagesStayStale(t *testing.T) {
	merge := artistWrite{"POST", "/artists/ada-vance/merge", asJSON, `{"into":"harbour-and-sons"}`}
	for _, test := range []struct {
		ignored string
		write   artistWrite
		stale   string
	}{
		{"artists", artistWrite{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`}, "/artists.json"},
		{"artist-ada-vance", artistWrite{"PUT", "/artists/ada-vance", asJSON, `{"name":"Ada V"}`}, "/tracks/6/edit"},
		{"artists", merge, "/tracks"},
		{"artist-ada-vance", merge, "/tracks/6"},
		{"artist-harbour-and-sons", merge, "/artists/harbour-and-sons"},
	} {
		s := smallStore(t)
		app := newApp(t, s)
		cached := newModel(t, app, s, test.ignored)
		cached.write(t, test.write)
		if stale := changed(cached.pages, take(t, app, s, cached.pages)); !slices.Contains(stale, test.stale) {
			t.Errorf("without the group %s, %s is not stale after %s %s; the stale pages are %v",
				test.ignored, test.stale, test.write.method, test.write.target, stale)
		}
	}
}

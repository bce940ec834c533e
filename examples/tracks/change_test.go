package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// snapshot is what every page says, by key: status and body.
type snapshot map[string]string

// take looks at all pages there are, and at those of before that may be gone.
func take(t *testing.T, app http.Handler, s *store, before snapshot) snapshot {
	t.Helper()
	now := snapshot{}
	look := func(key string) {
		response := get(t, app, key)
		now[key] = fmt.Sprint(response.StatusCode, body(t, response))
	}
	for key, err := range s.keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		look(key)
	}
	for key := range before {
		if _, seen := now[key]; !seen {
			look(key)
		}
	}
	return now
}

// changed returns the keys whose pages differ.
func changed(before, after snapshot) []string {
	var keys []string
	for key, page := range after {
		if before[key] != page {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// smallStore is a database with a few artists and a few more tracks than the list of the newest shows, in which looking
// at all pages is quick.
func smallStore(t *testing.T) *store {
	t.Helper()
	s := newStore(t)
	if _, err := s.write.ExecContext(t.Context(), `
		DELETE FROM tracks WHERE id > 60;
		UPDATE tracks SET artist = id % 5 + 1;
		DELETE FROM artists WHERE id > 5`); err != nil {
		t.Fatal(err)
	}
	return s
}

// What a write names is compared with what it changed: a page that changed and is not named would stay stale in a cache,
// and one that is named and did not change would be rendered for nothing.
func TestAWriteNamesThePagesThatItChanges(t *testing.T) {
	s := smallStore(t)
	app := newApp(t, s)
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	artists := []string{"The Paper Lanterns", "Ada Vance", "Harbour & Sons", "Björn Ekström", "Newcomer", "Late < Comer"}
	now := take(t, app, s, nil)
	ids := func() []int64 {
		var ids []int64
		rows, err := s.read.QueryContext(t.Context(), `SELECT id FROM tracks`)
		err = each(rows, err, func() error { ids = append(ids, 0); return rows.Scan(&ids[len(ids)-1]) })
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for step := range 30 {
		name, artist := fmt.Sprintf("Song %d", step), artists[random.IntN(len(artists))]
		all := ids()
		id := all[random.IntN(len(all))]
		if step%2 == 0 {
			id = all[random.IntN(5)] // the oldest are the ones that the list of the newest may not show
		}
		var what string
		var made change
		var err error
		switch random.IntN(5) {
		case 0:
			what = "create by " + artist
			_, made, err = s.create(t.Context(), name, artist)
		case 1:
			what = fmt.Sprintf("delete %d", id)
			made, err = s.remove(t.Context(), id)
		case 2:
			what = fmt.Sprintf("rename %d", id)
			_, made, err = s.update(t.Context(), id, &name, nil)
		case 3:
			what = fmt.Sprintf("move %d to %s", id, artist)
			_, made, err = s.update(t.Context(), id, nil, &artist)
		default:
			what = fmt.Sprintf("rename %d and move it to %s", id, artist)
			_, made, err = s.update(t.Context(), id, &name, &artist)
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		before := now
		now = take(t, app, s, before)
		named := made.keys()
		for _, key := range changed(before, now) {
			if !slices.Contains(named, key) {
				t.Errorf("%s changed %s, which is not among the named %v", what, key, named)
			}
		}
	}
}

func TestAWriteNamesNoMoreThanItChanges(t *testing.T) {
	s := smallStore(t)
	app := newApp(t, s)
	newest, oldest := int64(60), int64(1)
	for _, write := range []struct {
		name string
		do   func() (change, error)
	}{
		{"create", func() (change, error) { _, made, err := s.create(t.Context(), "New", "Newcomer"); return made, err }},
		{"rename a new track", func() (change, error) {
			_, made, err := s.update(t.Context(), newest, text("Renamed"), nil)
			return made, err
		}},
		{"rename an old track", func() (change, error) {
			_, made, err := s.update(t.Context(), oldest, text("Renamed"), nil)
			return made, err
		}},
		{"move to a new artist", func() (change, error) {
			_, made, err := s.update(t.Context(), newest, nil, text("Another Newcomer"))
			return made, err
		}},
		{"delete", func() (change, error) { return s.remove(t.Context(), 30) }},
	} {
		before := take(t, app, s, nil)
		made, err := write.do()
		if err != nil {
			t.Fatalf("%s: %v", write.name, err)
		}
		named := made.keys()
		slices.Sort(named)
		if really := changed(before, take(t, app, s, before)); !slices.Equal(named, really) {
			t.Errorf("%s named\n%v\nand changed\n%v", write.name, named, really)
		}
	}
}

// The worker of a first run dies after the change of the database: what it named is lost. The second run finds the work
// done, and must name all of it.
func TestASecondRunNamesWhatTheFirstOneChanged(t *testing.T) {
	for _, write := range []struct {
		name string
		do   func(s *store) (change, error)
	}{
		{"move", func(s *store) (change, error) {
			_, made, err := s.update(t.Context(), 60, nil, text("Newcomer"))
			return made, err
		}},
		{"rename", func(s *store) (change, error) {
			_, made, err := s.update(t.Context(), 60, text("Renamed"), nil)
			return made, err
		}},
		{"delete", func(s *store) (change, error) { return s.remove(t.Context(), 60) }},
	} {
		s := smallStore(t)
		app := newApp(t, s)
		before := take(t, app, s, nil)
		if _, err := write.do(s); err != nil {
			t.Fatal(err)
		}
		lost := changed(before, take(t, app, s, before))
		second, _ := write.do(s) // a second deletion says that the track is not found, and names its pages all the same
		for _, key := range lost {
			if !slices.Contains(second.keys(), key) {
				t.Errorf("the second run of %s names %v, without %s", write.name, second.keys(), key)
			}
		}
	}
}

// This shows that the memory of departures is what makes the second run complete.
func TestWithoutMemoryASecondRunForgetsTheArtistThatWasLeft(t *testing.T) {
	s := smallStore(t)
	s.memory = -time.Minute
	before, err := s.track(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	var second change
	for range 2 {
		if _, second, err = s.update(t.Context(), 60, nil, text("Newcomer")); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(second.artists, before.ArtistSlug) {
		t.Errorf("the second run still names %s", before.ArtistSlug)
	}
	if left := departures(t, s); left > 1 {
		t.Errorf("%d departures are kept after their time", left)
	}
}

func TestDeparturesAreForgotten(t *testing.T) {
	s := smallStore(t)
	s.memory = -time.Minute // every departure is too old at once
	for id := int64(1); id <= 10; id++ {
		if _, err := s.remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if left := departures(t, s); left != 1 {
		t.Errorf("%d departures are kept, want only the last", left)
	}
}

func departures(t *testing.T, s *store) int {
	t.Helper()
	var n int
	if err := s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM departures`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestANewDatabaseHoldsTheSameTracksEveryTime(t *testing.T) {
	one := contents(t, reopen(t, filepath.Join(t.TempDir(), "one.db"), time.Hour))
	other := contents(t, reopen(t, filepath.Join(t.TempDir(), "other.db"), time.Hour))
	if !slices.Equal(one, other) {
		t.Error("two new databases differ")
	}
	if len(one) != seededTracks {
		t.Errorf("a new database holds %d tracks, want %d", len(one), seededTracks)
	}
	for id, want := range map[int]string{
		1:    "1: Blue River by The Paper Lanterns (the-paper-lanterns)",
		7:    "7: Golden Harbour by O'Rourke's Orchestra (orourkes-orchestra)",
		1000: "1000: Home to the Garden by Polar Postcards (polar-postcards)",
	} {
		if got := one[id-1]; got != want {
			t.Errorf("track %d is %q, want %q", id, got, want)
		}
	}
}

// contents describes all tracks of a database by id.
func contents(t *testing.T, s *store) []string {
	t.Helper()
	var all []string
	rows, err := s.read.QueryContext(t.Context(),
		`SELECT t.id, t.name, a.name, a.slug FROM tracks t JOIN artists a ON a.id = t.artist ORDER BY t.id`)
	err = each(rows, err, func() error {
		var x track
		err := rows.Scan(&x.ID, &x.Name, &x.Artist, &x.ArtistSlug)
		all = append(all, fmt.Sprintf("%d: %s by %s (%s)", x.ID, x.Name, x.Artist, x.ArtistSlug))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSeededNamesDifferAndAreValid(t *testing.T) {
	names := map[string]bool{}
	for id := 1; id <= seededTracks; id++ {
		names[trackName(id)] = true
	}
	if len(names) != seededTracks {
		t.Errorf("%d tracks have %d names", seededTracks, len(names))
	}
	artists := map[string]bool{}
	for _, name := range strings.Split(artistNames, "\n") {
		artists[name], names[name] = true, true
	}
	if len(artists) != 100 {
		t.Errorf("there are %d artists, want 100", len(artists))
	}
	for name := range names {
		if trimmed, reason := checkField(name); reason != "" || trimmed != name {
			t.Errorf("the name %q would be refused or changed: %s", name, reason)
		}
	}
}

func TestManyMayOpenANewDatabaseAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tracks.db")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := openStore(t.Context(), path, time.Hour)
			if err != nil {
				t.Error(err)
				return
			}
			if total, err := s.totals(t.Context()); err != nil || total.Tracks != seededTracks || total.Artists != 100 {
				t.Errorf("there are %+v (%v), want %d tracks of 100 artists", total, err, seededTracks)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestADatabaseKeepsItsContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tracks #1 100%.db") // a name that has to be escaped in a URI
	s, err := openStore(t.Context(), path, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.create(t.Context(), "One More", "Ada Vance"); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the database is not where it should be: %v", err)
	}
	if kept := contents(t, reopen(t, path, time.Hour)); len(kept) != seededTracks+1 {
		t.Errorf("%d tracks were kept, want %d", len(kept), seededTracks+1)
	}
}

func TestADatabaseOfAnotherVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tracks.db")
	s := reopen(t, path, time.Hour)
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t.Context(), path, time.Hour); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("opening it says %v, want an error about version 2", err)
	}
}

func TestAnUnusableFileIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "tracks.db")
	if _, err := openStore(t.Context(), path, time.Hour); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("opening a file in a missing directory says %v, want an error that names it", err)
	}
}

func TestIDsAreNeverUsedAgain(t *testing.T) {
	s := newStore(t)
	first, _, err := s.create(t.Context(), "First", "Ada Vance")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	second, _, err := s.create(t.Context(), "Second", "Ada Vance")
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != seededTracks+1 || second.ID != seededTracks+2 {
		t.Errorf("the ids are %d and %d, want %d and %d", first.ID, second.ID, seededTracks+1, seededTracks+2)
	}
}

func TestManyConnectionsWriteAtOnce(t *testing.T) {
	const writers, writes = 4, 25
	path := filepath.Join(t.TempDir(), "tracks.db")
	var all sync.WaitGroup
	for range writers {
		s := reopen(t, path, time.Hour) // a pool of its own, as another process has
		all.Go(func() {
			for range writes {
				created, _, err := s.create(t.Context(), "New", "Crowd")
				if err == nil {
					_, _, err = s.update(t.Context(), created.ID, nil, text("Ada Vance"))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	s := reopen(t, path, time.Hour)
	total, err := s.totals(t.Context())
	if want := (totals{Tracks: seededTracks + writers*writes, Artists: 101}); err != nil || total != want {
		t.Errorf("there are %+v (%v), want %+v", total, err, want)
	}
}

func TestTheNumberOfTracksOfAnArtistIsKept(t *testing.T) {
	s := newStore(t)
	created, _, err := s.create(t.Context(), "One", "Newcomer")
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name string
		do   func() error
		want map[string]int
	}{
		{"create", func() error { return nil }, map[string]int{"newcomer": 1, "ada-vance": 10}},
		{"move", func() error {
			_, _, err := s.update(t.Context(), created.ID, nil, text("Ada Vance"))
			return err
		}, map[string]int{"newcomer": 0, "ada-vance": 11}},
		{"rename", func() error {
			_, _, err := s.update(t.Context(), created.ID, text("Two"), nil)
			return err
		}, map[string]int{"newcomer": 0, "ada-vance": 11}},
		{"delete", func() error {
			_, err := s.remove(t.Context(), created.ID)
			return err
		}, map[string]int{"newcomer": 0, "ada-vance": 10}},
		{"merge", func() error {
			_, err := s.merge(t.Context(), "ada-vance", "newcomer")
			return err
		}, map[string]int{"newcomer": 10, "ada-vance": 0}},
		{"merge with more", func() error {
			_, err := s.merge(t.Context(), "newcomer", "bjorn-ekstrom")
			return err
		}, map[string]int{"newcomer": 0, "ada-vance": 0, "bjorn-ekstrom": 20}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		list, err := s.artists(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list.Artists {
			if want, asked := step.want[a.Slug]; asked && a.Tracks != want {
				t.Errorf("after %s, %s has %d tracks, want %d", step.name, a.Slug, a.Tracks, want)
			}
		}
	}
}

func TestOneOfManyGetsAName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tracks.db")
	var all sync.WaitGroup
	var renamed, refused atomic.Int32
	for _, slug := range []string{"ada-vance", "harbour-and-sons", "bjorn-ekstrom", "zoe-marchetti"} {
		s := reopen(t, path, time.Hour) // a pool of its own, as another process has
		all.Go(func() {
			_, err := s.rename(t.Context(), slug, "The Only One")
			var taken *fieldError
			switch {
			case err == nil:
				renamed.Add(1)
			case errors.As(err, &taken):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if renamed.Load() != 1 || refused.Load() != 3 {
		t.Errorf("%d artists got the name and %d did not, want 1 and 3", renamed.Load(), refused.Load())
	}
}

func TestSlugs(t *testing.T) {
	for name, want := range map[string]string{
		"Ada Vance":              "ada-vance",
		"  Ada -- Vance!  ":      "ada-vance",
		"Łucja Wrońska":          "lucja-wronska",
		"Ingrid Sæther":          "ingrid-saether",
		"O'Rourke’s":             "orourkes",
		"Salt & Smoke":           "salt-and-smoke",
		"Elif Yıldız":            "elif-yildiz",
		"Zoe\u0308":              "zoe",
		"2nd <Take>":             "2nd-take",
		"東京":                     "artist",
		"../etc":                 "etc",
		"!":                      "artist",
		strings.Repeat("a", 200): strings.Repeat("a", maxSlugLength-1),
	} {
		if got := slugBase(name); got != want {
			t.Errorf("the slug of %q is %q, want %q", name, got, want)
		}
	}
}

func TestSlugsAreUniqueAndNamesAreExact(t *testing.T) {
	s := newStore(t)
	for _, step := range []struct{ artist, slug string }{
		{"Twin", "twin"}, {"TWIN", "twin-2"}, {"twin!", "twin-3"}, {"Twin 2", "twin-2-2"}, {"Twin", "twin"}, {"twin!", "twin-3"},
		{"東京", "artist"}, {"大阪", "artist-2"},
	} {
		created, _, err := s.create(t.Context(), "Song", step.artist)
		if err != nil {
			t.Fatal(err)
		}
		if created.ArtistSlug != step.slug || created.Artist != step.artist {
			t.Errorf("%q became %q with the slug %q, want %q", step.artist, created.Artist, created.ArtistSlug, step.slug)
		}
	}
}

func TestAFailedWriteChangesNothing(t *testing.T) {
	s := newStore(t)
	before := contents(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.create(ctx, "Never", "Nobody"); !errors.Is(err, context.Canceled) {
		t.Errorf("creating a track says %v, want %v", err, context.Canceled)
	}
	if _, err := s.rename(ctx, "ada-vance", "Never"); !errors.Is(err, context.Canceled) {
		t.Errorf("renaming an artist says %v, want %v", err, context.Canceled)
	}
	if _, err := s.merge(ctx, "ada-vance", "harbour-and-sons"); !errors.Is(err, context.Canceled) {
		t.Errorf("merging artists says %v, want %v", err, context.Canceled)
	}
	for _, err := range []error{
		func() error { _, _, err := s.update(t.Context(), 5000, text("Never"), text("Nobody")); return err }(),
		func() error { _, err := s.remove(t.Context(), 5000); return err }(),
		func() error { _, err := s.rename(t.Context(), "nobody", "Never"); return err }(),
		func() error { _, err := s.merge(t.Context(), "nobody", "ada-vance"); return err }(),
	} {
		if !errors.Is(err, errNotFound) {
			t.Errorf("changing what is unknown says %v, want %v", err, errNotFound)
		}
	}
	for want, err := range map[fieldError]error{
		{"name", "belongs to another artist"}: func() error { _, err := s.rename(t.Context(), "ada-vance", "Zoë Marchetti"); return err }(),
		{"into", "names no artist"}:           func() error { _, err := s.merge(t.Context(), "ada-vance", "nobody"); return err }(),
		{"into", "names the same artist"}:     func() error { _, err := s.merge(t.Context(), "ada-vance", "ada-vance"); return err }(),
	} {
		if refused := (*fieldError)(nil); !errors.As(err, &refused) || *refused != want {
			t.Errorf("a change that is refused says %v, want %v", err, want)
		}
	}
	if total, err := s.totals(t.Context()); err != nil || total.Artists != 100 || !slices.Equal(before, contents(t, s)) {
		t.Errorf("there are %+v (%v) now, want what there was", total, err)
	}
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// change says what a write did, as far as pages show it.
//
// A worker may die between the change of the database and its reply. A PUT or DELETE is then run again, and finds its
// change already made: the track is not where it was, and nothing in the tables that the pages show says where it came
// from. Yet the second run has to name the pages that the first one did not live to name. That is why the store
// remembers, for as long as a request may be repeated, which artists a track has left (the table departures), and why
// a write counts them among the artists it touched.
type change struct {
	// id is the track's.
	id int64
	// artists are the slugs of all artists whose page shows the track or has shown it lately.
	artists []string
	// listed says that the list of the newest tracks, or its total, may show the change.
	listed bool
	// counted says that the number of tracks of some artist, or the number of artists, may have changed.
	counted bool
}

// keys names the cache keys of all pages that show the change.
func (c change) keys() []string {
	path := trackPath(c.id)
	keys := []string{path, path + ".json", path + "/edit"}
	for _, slug := range c.artists {
		keys = append(keys, artistPath(slug), artistPath(slug)+".json")
	}
	if c.listed {
		keys = append(keys, "/tracks", "/tracks.json")
	}
	if c.counted {
		keys = append(keys, "/", "/artists", "/artists.json")
	}
	return keys
}

// trackPath is the path of the page of a track.
func trackPath(id int64) string { return "/tracks/" + strconv.FormatInt(id, 10) }

// artistPath is the path of the page of an artist.
func artistPath(slug string) string { return "/artists/" + slug }

// create adds a track. Its artist comes into being if need be.
func (s *store) create(ctx context.Context, name, artist string) (track, change, error) {
	var created track
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		by, err := artistID(ctx, tx, artist)
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO tracks (name, artist) VALUES (?, ?)`, name, by)
		if err != nil {
			return fmt.Errorf("adding the track: %w", err)
		}
		id, err := result.LastInsertId()
		if err != nil {
			return fmt.Errorf("adding the track: %w", err)
		}
		created, err = findTrack(ctx, tx, id)
		return err
	})
	if err != nil {
		return track{}, change{}, err
	}
	return created, change{id: created.ID, artists: []string{created.ArtistSlug}, listed: true, counted: true}, nil
}

// update changes the name and the artist of a track; what is nil stays. It returns errNotFound for an unknown id, with
// the pages that may still show the track.
func (s *store) update(ctx context.Context, id int64, name, artist *string) (track, change, error) {
	var updated track
	made := change{id: id}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		before, err := findTrack(ctx, tx, id)
		if err != nil {
			return s.missing(ctx, tx, &made, err)
		}
		if artist != nil && *artist != before.Artist {
			if err := s.depart(ctx, tx, id); err != nil {
				return err
			}
			to, err := artistID(ctx, tx, *artist)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE tracks SET artist = ? WHERE id = ?`, to, id); err != nil {
				return fmt.Errorf("moving track %d: %w", id, err)
			}
		}
		if name != nil {
			if _, err := tx.ExecContext(ctx, `UPDATE tracks SET name = ? WHERE id = ?`, *name, id); err != nil {
				return fmt.Errorf("renaming track %d: %w", id, err)
			}
		}
		if updated, err = findTrack(ctx, tx, id); err != nil {
			return err
		}
		left, err := s.departed(ctx, tx, id)
		if err != nil {
			return err
		}
		made.artists = distinct(append(left, before.ArtistSlug, updated.ArtistSlug))
		made.counted = len(left) > 0 || before.ArtistSlug != updated.ArtistSlug
		made.listed, err = listed(ctx, tx, id)
		return err
	})
	return updated, made, err
}

// remove deletes a track. It returns errNotFound for an unknown id, with the pages that may still show the track.
func (s *store) remove(ctx context.Context, id int64) (change, error) {
	made := change{id: id, listed: true, counted: true}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		before, err := findTrack(ctx, tx, id)
		if err != nil {
			return s.missing(ctx, tx, &made, err)
		}
		if err := s.depart(ctx, tx, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM tracks WHERE id = ?`, id); err != nil {
			return fmt.Errorf("deleting track %d: %w", id, err)
		}
		left, err := s.departed(ctx, tx, id)
		made.artists = distinct(append(left, before.ArtistSlug))
		return err
	})
	return made, err
}

// fieldError is the reason why a value was refused that only the database could tell to be no good.
type fieldError struct{ field, reason string }

func (e *fieldError) Error() string { return e.field + " " + e.reason }

// rename changes the name of an artist; the slug stays. It returns errNotFound for an unknown slug, and a *fieldError for
// the name of another artist: new tracks find their artist by name.
func (s *store) rename(ctx context.Context, slug, name string) (artistTracks, error) {
	var renamed artistTracks
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		id, err := artistBySlug(ctx, tx, slug)
		if err != nil {
			return err
		}
		var others int
		row := tx.QueryRowContext(ctx, `SELECT count(*) FROM artists WHERE name = ? AND id <> ?`, name, id)
		if err := row.Scan(&others); err != nil {
			return fmt.Errorf("looking up the artists of a name: %w", err)
		}
		if others > 0 {
			return &fieldError{"name", "belongs to another artist"}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE artists SET name = ? WHERE id = ?`, name, id); err != nil {
			return fmt.Errorf("renaming the artist %q: %w", slug, err)
		}
		renamed, err = findArtist(ctx, tx, slug)
		return err
	})
	return renamed, err
}

// merge moves all tracks of an artist, who stays without any, to the artist with the slug into, whom it returns. It
// returns errNotFound for an unknown slug, and a *fieldError if into is not the slug of another artist.
func (s *store) merge(ctx context.Context, slug, into string) (artistTracks, error) {
	var merged artistTracks
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		from, err := artistBySlug(ctx, tx, slug)
		if err != nil {
			return err
		}
		to, err := artistBySlug(ctx, tx, into)
		if errors.Is(err, errNotFound) {
			return &fieldError{"into", "names no artist"}
		}
		if err != nil {
			return err
		}
		if to == from {
			return &fieldError{"into", "names the same artist"}
		}
		// No departure is remembered: this is done by POST, which is not run again, and every page of both artists, with
		// those of all their tracks, is rendered after it.
		if _, err := tx.ExecContext(ctx, `UPDATE tracks SET artist = ? WHERE artist = ?`, to, from); err != nil {
			return fmt.Errorf("moving the tracks of %q to %q: %w", slug, into, err)
		}
		merged, err = findArtist(ctx, tx, into)
		return err
	})
	return merged, err
}

// artistBySlug returns the id of an artist, errNotFound for an unknown slug.
func artistBySlug(ctx context.Context, tx *sql.Tx, slug string) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM artists WHERE slug = ?`, slug).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, errNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("looking up the artist %q: %w", slug, err)
	}
	return id, nil
}

// distinct returns each of slugs once.
func distinct(slugs []string) []string {
	slices.Sort(slugs)
	return slices.Compact(slugs)
}

// missing completes made for a track that is not there: if it was lately, its pages may not have been told. It returns
// reason, unless it fails itself.
func (s *store) missing(ctx context.Context, tx *sql.Tx, made *change, reason error) error {
	left, err := s.departed(ctx, tx, made.id)
	if err != nil {
		return err
	}
	made.artists, made.listed, made.counted = left, len(left) > 0, len(left) > 0
	return reason
}

// depart remembers that a track leaves its artist, and forgets what is too old to matter.
func (s *store) depart(ctx context.Context, tx *sql.Tx, id int64) error {
	now := time.Now()
	if _, err := tx.ExecContext(ctx, `DELETE FROM departures WHERE at <= ?`, now.Add(-s.memory).UnixMilli()); err != nil {
		return fmt.Errorf("forgetting old departures: %w", err)
	}
	_, err := tx.ExecContext(ctx, `
		INSERT OR REPLACE INTO departures (track, artist, at) SELECT id, artist, ? FROM tracks WHERE id = ?`, now.UnixMilli(), id)
	if err != nil {
		return fmt.Errorf("remembering a departure: %w", err)
	}
	return nil
}

// departed returns the slugs of the artists that a track has left lately, without the one it has.
func (s *store) departed(ctx context.Context, tx *sql.Tx, id int64) ([]string, error) {
	var slugs []string
	rows, err := tx.QueryContext(ctx, `
		SELECT a.slug FROM departures d JOIN artists a ON a.id = d.artist
		WHERE d.track = ?1 AND d.at > ?2 AND d.artist IS NOT (SELECT artist FROM tracks WHERE id = ?1)`,
		id, time.Now().Add(-s.memory).UnixMilli())
	err = each(rows, err, func() error {
		var slug string
		err := rows.Scan(&slug)
		slugs = append(slugs, slug)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the departures of track %d: %w", id, err)
	}
	return slugs, nil
}

// listed reports whether a track is among the newest. Being asked in the transaction of the change, the answer is exact:
// a track that joins the newest later does so by a deletion, which renders the list anyway.
func listed(ctx context.Context, tx *sql.Tx, id int64) (bool, error) {
	var newer int
	row := tx.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM tracks WHERE id > ? LIMIT ?)`, id, newestTracks)
	if err := row.Scan(&newer); err != nil {
		return false, fmt.Errorf("ranking track %d: %w", id, err)
	}
	return newer < newestTracks, nil
}

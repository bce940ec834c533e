package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// newestTracks is how many tracks the list of the newest holds.
const newestTracks = 50

// errNotFound says that there is no such track or artist.
var errNotFound = errors.New("not found")

// track is a track as the pages and the JSON documents show it.
type track struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Artist     string `json:"artist"`
	ArtistSlug string `json:"artist_slug"`
}

// artist is an artist in the list of all artists; Tracks counts the artist's tracks.
type artist struct {
	Slug   string `json:"slug"`
	Name   string `json:"name"`
	Tracks int    `json:"tracks"`
}

// totals counts what there is.
type totals struct {
	Tracks  int
	Artists int
}

// trackList is the list of the newest tracks, highest id first; Total counts all there are.
type trackList struct {
	Total  int     `json:"total"`
	Tracks []track `json:"tracks"`
}

// artistList is the list of all artists, by slug.
type artistList struct {
	Artists []artist `json:"artists"`
}

// artistTracks is an artist with all tracks, lowest id first.
type artistTracks struct {
	Slug   string  `json:"slug"`
	Name   string  `json:"name"`
	Tracks []track `json:"tracks"`
}

// Each of the following reads is a single statement, so that what a page shows belongs to one moment.

func (s *store) totals(ctx context.Context) (totals, error) {
	var t totals
	row := s.read.QueryRowContext(ctx, `SELECT coalesce(sum(tracks), 0), count(*) FROM artists`)
	if err := row.Scan(&t.Tracks, &t.Artists); err != nil {
		return totals{}, fmt.Errorf("counting: %w", err)
	}
	return t, nil
}

func (s *store) newest(ctx context.Context) (trackList, error) {
	// Without tracks there is no row, and the total is rightly 0.
	list := trackList{Tracks: []track{}}
	rows, err := s.read.QueryContext(ctx, `
		SELECT (SELECT sum(tracks) FROM artists), t.id, t.name, a.name, a.slug
		FROM tracks t JOIN artists a ON a.id = t.artist ORDER BY t.id DESC LIMIT ?`, newestTracks)
	err = each(rows, err, func() error {
		var t track
		err := rows.Scan(&list.Total, &t.ID, &t.Name, &t.Artist, &t.ArtistSlug)
		list.Tracks = append(list.Tracks, t)
		return err
	})
	if err != nil {
		return trackList{}, fmt.Errorf("listing the newest tracks: %w", err)
	}
	return list, nil
}

// track returns errNotFound for an unknown id.
func (s *store) track(ctx context.Context, id int64) (track, error) {
	return findTrack(ctx, s.read, id)
}

// querier is what a pool and a transaction have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, arguments ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, arguments ...any) *sql.Row
}

func findTrack(ctx context.Context, q querier, id int64) (track, error) {
	var t track
	row := q.QueryRowContext(ctx, `
		SELECT t.id, t.name, a.name, a.slug FROM tracks t JOIN artists a ON a.id = t.artist WHERE t.id = ?`, id)
	err := row.Scan(&t.ID, &t.Name, &t.Artist, &t.ArtistSlug)
	if errors.Is(err, sql.ErrNoRows) {
		return track{}, errNotFound
	}
	if err != nil {
		return track{}, fmt.Errorf("reading track %d: %w", id, err)
	}
	return t, nil
}

func (s *store) artists(ctx context.Context) (artistList, error) {
	list := artistList{Artists: []artist{}}
	rows, err := s.read.QueryContext(ctx, `SELECT slug, name, tracks FROM artists ORDER BY slug`)
	err = each(rows, err, func() error {
		var a artist
		err := rows.Scan(&a.Slug, &a.Name, &a.Tracks)
		list.Artists = append(list.Artists, a)
		return err
	})
	if err != nil {
		return artistList{}, fmt.Errorf("listing the artists: %w", err)
	}
	return list, nil
}

// artist returns errNotFound for an unknown slug.
func (s *store) artist(ctx context.Context, slug string) (artistTracks, error) {
	return findArtist(ctx, s.read, slug)
}

func findArtist(ctx context.Context, q querier, slug string) (artistTracks, error) {
	found := artistTracks{Tracks: []track{}}
	rows, err := q.QueryContext(ctx, `
		SELECT a.slug, a.name, t.id, t.name
		FROM artists a LEFT JOIN tracks t ON t.artist = a.id WHERE a.slug = ? ORDER BY t.id`, slug)
	err = each(rows, err, func() error {
		// An artist without tracks is one row without a track.
		var id sql.NullInt64
		var name sql.NullString
		err := rows.Scan(&found.Slug, &found.Name, &id, &name)
		if id.Valid {
			t := track{ID: id.Int64, Name: name.String, Artist: found.Name, ArtistSlug: found.Slug}
			found.Tracks = append(found.Tracks, t)
		}
		return err
	})
	if err != nil {
		return artistTracks{}, fmt.Errorf("reading the artist %q: %w", slug, err)
	}
	if found.Slug == "" {
		return artistTracks{}, errNotFound
	}
	return found, nil
}

// each calls scan for each row and closes rows. It takes the error of the query too, to be the only check a caller needs.
func each(rows *sql.Rows, err error, scan func() error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return rows.Err()
}

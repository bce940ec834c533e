package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// fixedKeys are the resources that are there whatever the database holds.
var fixedKeys = []string{
	"/", "/tracks", "/tracks.json", "/tracks/new", "/artists", "/artists.json", "/assets/app.css", "/assets/cover.png",
}

// startKeys are where a fill begins that follows links.
var startKeys = []string{"/", "/tracks", "/tracks.json", "/artists", "/artists.json"}

const (
	// keysOfTrack and keysOfArtist are how many resources one of them has.
	keysOfTrack  = 3
	keysOfArtist = 2
	// keyBatch is how many tracks or artists are read from the database at once, so that no read of it lasts as long as
	// a fill.
	keyBatch = 500
)

// countKeys returns how many keys there are.
func (s *store) countKeys(ctx context.Context) (int, error) {
	t, err := s.totals(ctx)
	if err != nil {
		return 0, err
	}
	return len(fixedKeys) + keysOfTrack*t.Tracks + keysOfArtist*t.Artists, nil
}

// keys yields the cache keys of all resources of the application, or an error, after which there are no more. What is
// added meanwhile may or may not be among them.
func (s *store) keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, key := range fixedKeys {
			if !yield(key, nil) {
				return
			}
		}
		more := s.yieldKeys(ctx, yield, `SELECT id, slug FROM artists WHERE id > ? ORDER BY id LIMIT ?`,
			func(_ int64, slug string) []string {
				path := artistPath(slug)
				return []string{path, path + ".json"}
			})
		if !more {
			return
		}
		s.yieldKeys(ctx, yield, `SELECT id, '' FROM tracks WHERE id > ? ORDER BY id LIMIT ?`,
			func(id int64, _ string) []string {
				path := trackPath(id)
				return []string{path, path + ".json", path + "/edit"}
			})
	}
}

// yieldKeys yields the keys of each row of query, which takes the last id seen and a number of rows, and gives an id and
// a slug. It reports whether the caller wants more.
func (s *store) yieldKeys(
	ctx context.Context, yield func(string, error) bool, query string, keysOf func(id int64, slug string) []string,
) bool {
	var last int64
	for {
		var keys []string
		found := 0
		rows, err := s.read.QueryContext(ctx, query, last, keyBatch)
		err = each(rows, err, func() error {
			var slug string
			err := rows.Scan(&last, &slug)
			keys = append(keys, keysOf(last, slug)...)
			found++
			return err
		})
		if err != nil {
			yield("", fmt.Errorf("listing the keys: %w", err))
			return false
		}
		for key := range slices.Values(keys) {
			if !yield(key, nil) {
				return false
			}
		}
		if found < keyBatch {
			return true
		}
	}
}

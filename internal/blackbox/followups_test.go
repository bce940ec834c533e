package blackbox_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// followUp reads, through the server of the write and at once, the pages that it changed: the resource itself, a list, in
// either order, and a third one by chance. The artists are those that the track has left and has come to, "" for none or one
// not known.
func (c *client) followUp(ctx context.Context, id int64, left, to string) error {
	looks := []func() error{
		func() error { return c.lookAtTrack(ctx, id, trackPath(id)) },
		func() error { return c.lookAt(ctx, []string{"/tracks", "/tracks.json"}[c.random.IntN(2)]) },
	}
	if c.random.IntN(2) == 0 {
		slices.Reverse(looks)
	}
	others := []func() error{
		func() error { return c.lookAtTrack(ctx, id, trackPath(id)+".json") },
		func() error { return c.lookAtTrack(ctx, id, trackPath(id)+"/edit") },
		func() error { return c.lookAtArtist(ctx, to) },
		func() error { return c.lookAtArtist(ctx, left) },
		func() error { return c.lookAt(ctx, "/artists.json") },
		func() error { return c.lookAt(ctx, "/") },
	}
	for _, look := range append(looks, others[c.random.IntN(len(others))]) {
		if err := look(); err != nil {
			return err
		}
	}
	return nil
}

// lookAt reads one of the pages about all tracks.
func (c *client) lookAt(ctx context.Context, page string) error {
	w := c.history.look(c.server, page)
	a, err := c.expect(ctx, "GET", call{method: http.MethodGet, target: page}, http.StatusOK)
	if err != nil {
		return err
	}
	switch page {
	case "/tracks", "/tracks.json":
		list, err := parseList(a)
		if err == nil {
			err = c.history.checkNewest(w, list)
		}
		return stale(page, err)
	case "/artists.json":
		var list artistList
		if err := a.decode(&list); err != nil {
			return err
		}
		total := 0
		for _, artist := range list.Artists {
			total += artist.Tracks
		}
		return stale(page, c.history.checkCount(w, total))
	default:
		total, err := parseTotal(a)
		if err == nil {
			err = c.history.checkCount(w, total)
		}
		return stale(page, err)
	}
}

// lookAtTrack reads a page of a track.
func (c *client) lookAtTrack(ctx context.Context, id int64, page string) error {
	w := c.history.look(c.server, page)
	a, err := c.send(ctx, "GET", call{method: http.MethodGet, target: page})
	if err != nil {
		return err
	}
	shown := state{gone: true}
	switch a.status {
	case http.StatusOK:
		if shown, err = parseTrack(a, id); err != nil {
			return err
		}
	case http.StatusNotFound:
	default:
		return fmt.Errorf("%v: got %d", a.call, a.status)
	}
	return stale(page, c.history.checkTrack(w, id, shown))
}

// lookAtArtist reads the page of an artist, if its slug is known.
func (c *client) lookAtArtist(ctx context.Context, artist string) error {
	slug, known := c.slugs.Load(artist)
	if !known {
		return nil
	}
	page := artistPath(slug.(string)) + ".json"
	w := c.history.look(c.server, page)
	a, err := c.send(ctx, "GET", call{method: http.MethodGet, target: page})
	if err != nil {
		return err
	}
	var content artistPage
	if err := a.is200(&content); err != nil {
		return err
	}
	if content.Name != artist || content.Slug != slug {
		return fmt.Errorf("%s is the page of %q", page, content.Name)
	}
	return stale(page, c.history.checkArtist(w, artist, content.Tracks))
}

// is200 reads the answer as JSON, or returns an error.
func (a *answer) is200(content any) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("%v: got %d", a.call, a.status)
	}
	return a.decode(content)
}

// stale adds the page to an error about it.
func stale(page string, err error) error {
	if err != nil {
		return fmt.Errorf("%s is not current: %w", page, err)
	}
	return nil
}

var (
	listedTrack = regexp.MustCompile(`(?s)href="/tracks/([0-9]+)"[^>]*>([^<]*)</a>.*?href="/artists/([^"]+)"[^>]*>([^<]*)</a>`)
	trackCount  = regexp.MustCompile(`([0-9]+) tracks`)
	trackName   = regexp.MustCompile(`<h1>([^<]*)</h1>`)
	artistLink  = regexp.MustCompile(`href="/artists/[^"]+"[^>]*>([^<]*)</a>`)
	nameField   = regexp.MustCompile(`name="name" value="([^"]*)"`)
	artistField = regexp.MustCompile(`name="artist" value="([^"]*)"`)
)

// parseList reads /tracks or /tracks.json.
func parseList(a *answer) (trackList, error) {
	var list trackList
	if strings.HasSuffix(a.call.target, ".json") {
		return list, a.decode(&list)
	}
	var err error
	list.Total, err = parseTotal(a)
	for _, match := range listedTrack.FindAllStringSubmatch(a.body, -1) {
		id, _ := strconv.ParseInt(match[1], 10, 64) // the expression has digits only
		list.Tracks = append(list.Tracks, track{
			ID: id, Name: html.UnescapeString(match[2]), Artist: html.UnescapeString(match[4]), ArtistSlug: match[3],
		})
	}
	return list, err
}

// parseTotal reads how many tracks a page counts.
func parseTotal(a *answer) (int, error) {
	match := trackCount.FindStringSubmatch(a.body)
	if match == nil {
		return 0, fmt.Errorf("%v: it counts no tracks:\n%.500s", a.call, a.body)
	}
	return strconv.Atoi(match[1])
}

// parseTrack reads a page of a track.
func parseTrack(a *answer, id int64) (state, error) {
	if strings.HasSuffix(a.call.target, ".json") {
		var t track
		err := a.decode(&t)
		if err == nil && t.ID != id {
			err = fmt.Errorf("%v: it is about track %d", a.call, t.ID)
		}
		return state{name: t.Name, artist: t.Artist}, err
	}
	name, artist := trackName, artistLink
	if strings.HasSuffix(a.call.target, "/edit") {
		name, artist = nameField, artistField
	}
	names, artists := name.FindStringSubmatch(a.body), artist.FindStringSubmatch(a.body)
	if names == nil || artists == nil {
		return state{}, errors.New(a.call.String() + ": it shows no track:\n" + a.body)
	}
	return state{name: html.UnescapeString(names[1]), artist: html.UnescapeString(artists[1])}, nil
}

package blackbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// create makes a track. The reply has to be about it, and about no other.
func (c *client) create(ctx context.Context) error {
	s := state{name: c.name(), artist: c.artist()}
	form := c.form()
	request, status := postJSON(s.name, s.artist), http.StatusCreated
	if form {
		request = postForm("/tracks", "", map[string]string{"name": s.name, "artist": s.artist})
		status = http.StatusSeeOther
	}
	v := c.history.create(c.server, s)
	a, err := c.expect(ctx, "POST", request, status)
	if err != nil {
		return err
	}
	id, err := strconv.ParseInt(strings.TrimPrefix(a.header.Get("Location"), "/tracks/"), 10, 64)
	if err != nil {
		return fmt.Errorf("%v: Location is %q", request, a.header.Get("Location"))
	}
	if !form {
		if err := c.isReply(a, id, s); err != nil {
			return err
		}
	}
	if err := c.history.answered(v, id, c.pages(id, s.artist)); err != nil {
		return err
	}
	c.own = append(c.own, id)
	c.states[id] = s
	return c.followUp(ctx, id, "", s.artist)
}

// isReply returns an error unless the answer is the JSON document of a track.
func (c *client) isReply(a *answer, id int64, want state) error {
	var got track
	if err := a.decode(&got); err != nil {
		return err
	}
	if got.ID != id || got.Name != want.name || got.Artist != want.artist {
		return fmt.Errorf("%v %.200q: the reply is about %+v, want %v", a.call, a.call.body, got, want)
	}
	return c.learn(got.Artist, got.ArtistSlug)
}

// learn takes note of the slug of an artist, who keeps it for ever.
func (c *client) learn(artist, slug string) error {
	if known, _ := c.slugs.LoadOrStore(artist, slug); known != slug {
		return fmt.Errorf("the artist %q has the slugs %q and %q", artist, known, slug)
	}
	return nil
}

// pages returns the pages that show a track to those who look for it, as far as they are known.
func (c *client) pages(id int64, artists ...string) []string {
	pages := trackKeys(id)
	for _, artist := range artists {
		if slug, ok := c.slugs.Load(artist); ok {
			pages = append(pages, artistKeys(slug.(string))...)
		}
	}
	return pages
}

// changeOwn renames or moves one of the client's tracks, or both.
func (c *client) changeOwn(ctx context.Context) error {
	id := c.pick()
	before := c.states[id]
	after, fields := before, map[string]string{}
	what := c.random.IntN(3)
	if what != 0 {
		after.name = c.name()
		fields["name"] = after.name
	}
	if what != 1 {
		after.artist = c.artist()
		fields["artist"] = after.artist
	}
	if err := c.change(ctx, id, after, fields, before.artist); err != nil {
		return err
	}
	c.states[id] = after
	return nil
}

// changeContested changes a track that others change at the same time.
func (c *client) changeContested(ctx context.Context) error {
	after := state{name: c.name(), artist: c.artist()}
	fields := map[string]string{"name": after.name, "artist": after.artist}
	return c.change(ctx, c.contestedID(), after, fields, "")
}

// change sends a PUT, or the form that stands for one. left is the artist that the track has had, if that is known.
func (c *client) change(ctx context.Context, id int64, after state, fields map[string]string, left string) error {
	form := c.form()
	request, status := putJSON(id, fields), http.StatusOK
	if form {
		request, status = postForm(trackPath(id), http.MethodPut, fields), http.StatusSeeOther
	}
	v := c.history.change(c.server, id, after)
	a, err := c.expect(ctx, "PUT", request, status)
	switch {
	case err != nil:
		return err
	case form && a.header.Get("Location") != trackPath(id):
		return fmt.Errorf("%v: Location is %q", request, a.header.Get("Location"))
	case !form:
		if err := c.isReply(a, id, after); err != nil {
			return err
		}
	}
	pages := c.pages(id, after.artist)
	if left != "" {
		pages = c.pages(id, after.artist, left)
	}
	if err := c.history.answered(v, id, pages); err != nil {
		return err
	}
	return c.followUp(ctx, id, left, after.artist)
}

// remove deletes one of the client's tracks.
func (c *client) remove(ctx context.Context) error {
	id := c.pick()
	before := c.states[id]
	form := c.form()
	request, status := call{method: http.MethodDelete, target: trackPath(id)}, http.StatusNoContent
	if form {
		request, status = postForm(trackPath(id), http.MethodDelete, nil), http.StatusSeeOther
	}
	v := c.history.change(c.server, id, state{gone: true})
	a, err := c.expect(ctx, "DELETE", request, status)
	if err != nil {
		return err
	}
	if form && a.header.Get("Location") != "/tracks" {
		return fmt.Errorf("%v: Location is %q", request, a.header.Get("Location"))
	}
	if err := c.history.answered(v, id, c.pages(id, before.artist)); err != nil {
		return err
	}
	c.own = slices.DeleteFunc(c.own, func(one int64) bool { return one == id })
	delete(c.states, id)
	return c.followUp(ctx, id, before.artist, "")
}

// sendNonsense sends what is refused, with something that the refusal has to repeat where it can.
func (c *client) sendNonsense(ctx context.Context) error {
	unknown := int64(1)<<40 + int64(c.random.IntN(1000))
	switch c.random.IntN(4) {
	case 0:
		a, err := c.expect(ctx, "refused", postForm("/tracks", "", map[string]string{"artist": c.name()}), http.StatusUnprocessableEntity)
		if err == nil && !strings.Contains(a.body, html.EscapeString(c.name())) {
			return fmt.Errorf("the refusal of a form by %q is somebody else's:\n%s", c.name(), a.body)
		}
		return err
	case 1:
		request := call{method: http.MethodPut, target: trackPath(c.contestedID()), contentType: jsonType, body: `{"artist":7}`}
		a, err := c.expect(ctx, "refused", request, http.StatusUnprocessableEntity)
		if err != nil {
			return err
		}
		var refusal struct{ Errors map[string]string }
		if err := json.Unmarshal([]byte(a.body), &refusal); err != nil || refusal.Errors["artist"] == "" {
			return fmt.Errorf("the refusal of an artist is %q", a.body)
		}
		return nil
	case 2:
		_, err := c.expect(ctx, "refused", putJSON(unknown, map[string]string{"name": c.name()}), http.StatusNotFound)
		return err
	default:
		_, err := c.expect(ctx, "refused", call{method: http.MethodDelete, target: trackPath(unknown)}, http.StatusNotFound)
		return err
	}
}

// contestedID returns one of the tracks that all clients change.
func (c *client) contestedID() int64 { return int64(1 + c.random.IntN(contested)) }

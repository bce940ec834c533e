package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// artistPage is the content of the page of an artist, which has a form for a new name and one to merge the artist into
// another. It is asked for by slug, since a list to choose from would change with every artist.
type artistPage struct {
	artistTracks
	// NewName and Into are what the fields name and into hold.
	NewName string
	Into    string
	// Errors are the reasons why the values were refused, by field.
	Errors map[string]string
}

// putArtist renames an artist.
func (a *application) putArtist(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, "name")
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	a.renameArtist(w, r, in)
}

// postArtist renames an artist if a form asks for it in _method.
func (a *application) postArtist(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, "name")
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	if in.method != http.MethodPut {
		w.Header().Set("Allow", "GET, HEAD, PUT")
		a.fail(w, r, in.json, &refusal{http.StatusMethodNotAllowed, "An artist takes PUT; a form says so in _method."})
		return
	}
	a.renameArtist(w, r, in)
}

func (a *application) renameArtist(w http.ResponseWriter, r *http.Request, in submission) {
	in.require("name")
	a.changeArtist(w, r, in, func(ctx context.Context, slug string) (artistTracks, error) {
		return a.store.rename(ctx, slug, in.fields["name"])
	})
}

// mergeArtist moves all tracks of an artist to another one.
func (a *application) mergeArtist(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, "into")
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	if in.method != "" && in.method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		a.fail(w, r, in.json, &refusal{http.StatusMethodNotAllowed, "Artists are merged with POST."})
		return
	}
	in.require("into")
	a.changeArtist(w, r, in, func(ctx context.Context, slug string) (artistTracks, error) {
		return a.store.merge(ctx, slug, in.fields["into"])
	})
}

// changeArtist does a write to the artist in the path, and answers with the artist that do returns. The response
// invalidates the groups of both, and that of the pages that name several artists; every page that shows the change is in
// one of them. It does so whether or not there was something to change: a second run of a PUT, whose first run did not
// live to answer, finds its change made, and the pages may not show it yet.
func (a *application) changeArtist(
	w http.ResponseWriter, r *http.Request, in submission, do func(ctx context.Context, slug string) (artistTracks, error),
) {
	slug := r.PathValue("slug")
	if len(in.errors) > 0 {
		a.rejectArtist(w, r, in)
		return
	}
	changed, err := do(r.Context(), slug)
	if refused := (*fieldError)(nil); errors.As(err, &refused) {
		in.errors[refused.field] = refused.reason
		a.rejectArtist(w, r, in)
		return
	}
	if err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	pause(r.Context(), a.workDelay)
	groups := []string{artistsGroup}
	for _, one := range distinct([]string{slug, changed.Slug}) {
		groups = append(groups, artistGroup(one))
	}
	setGroups(w, invalidationField, groups)
	if !in.json {
		seeOther(w, artistPath(changed.Slug))
		return
	}
	a.writeJSON(w, r, http.StatusOK, changed)
}

// rejectArtist answers with the reasons why values were refused: to a form with the page of the artist, in which the
// fields hold what was sent.
func (a *application) rejectArtist(w http.ResponseWriter, r *http.Request, in submission) {
	current, err := a.store.artist(r.Context(), r.PathValue("slug"))
	if err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	if in.json {
		a.writeJSON(w, r, http.StatusUnprocessableEntity, map[string]any{"errors": in.errors})
		return
	}
	page := artistPage{artistTracks: current, NewName: current.Name, Errors: in.errors}
	if name := in.field("name"); name != nil {
		page.NewName = strings.ToValidUTF8(*name, "\uFFFD")
	}
	if into := in.field("into"); into != nil {
		page.Into = strings.ToValidUTF8(*into, "\uFFFD")
	}
	a.writePage(w, r, http.StatusUnprocessableEntity, "artist.html", page)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/itscales/scales"
)

// trackFields are what a client may say of a track.
var trackFields = []string{"name", "artist"}

// postTracks makes a track.
func (a *application) postTracks(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, trackFields...)
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	if in.method != "" && in.method != http.MethodPost {
		w.Header().Set("Allow", "GET, HEAD, POST")
		a.fail(w, r, in.json, &refusal{http.StatusMethodNotAllowed, "The list of tracks takes new tracks only."})
		return
	}
	in.require("name", "artist")
	if len(in.errors) > 0 {
		a.reject(w, r, in, form{})
		return
	}
	created, made, err := a.store.create(r.Context(), in.fields["name"], in.fields["artist"])
	if err = a.finish(r.Context(), made, err); err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	w.Header().Set("Location", trackPath(created.ID))
	if !in.json {
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	a.writeJSON(w, r, http.StatusCreated, created)
}

// putTrack changes a track.
func (a *application) putTrack(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, trackFields...)
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	a.change(w, r, in)
}

// deleteTrack deletes a track.
func (a *application) deleteTrack(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, trackFields...)
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	a.delete(w, r, in)
}

// postTrack does what a form asks for in _method, because a form knows no other method than POST.
func (a *application) postTrack(w http.ResponseWriter, r *http.Request) {
	in, err := readSubmission(w, r, a.maxBody, trackFields...)
	if err != nil {
		a.fail(w, r, wantsJSON(r), err)
		return
	}
	switch in.method {
	case http.MethodPut:
		a.change(w, r, in)
	case http.MethodDelete:
		a.delete(w, r, in)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		a.fail(w, r, in.json, &refusal{http.StatusMethodNotAllowed, "A track takes PUT and DELETE; a form says so in _method."})
	}
}

func (a *application) change(w http.ResponseWriter, r *http.Request, in submission) {
	id, err := pathID(r)
	if err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	if len(in.errors) > 0 {
		current, err := a.store.track(r.Context(), id)
		if err != nil {
			a.fail(w, r, in.json, err)
			return
		}
		a.reject(w, r, in, form{ID: id, Name: current.Name, Artist: current.Artist})
		return
	}
	updated, made, err := a.store.update(r.Context(), id, in.field("name"), in.field("artist"))
	if err = a.finish(r.Context(), made, err); err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	if !in.json {
		seeOther(w, trackPath(id))
		return
	}
	a.writeJSON(w, r, http.StatusOK, updated)
}

func (a *application) delete(w http.ResponseWriter, r *http.Request, in submission) {
	id, err := pathID(r)
	if err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	made, err := a.store.remove(r.Context(), id)
	if err = a.finish(r.Context(), made, err); err != nil {
		a.fail(w, r, in.json, err)
		return
	}
	if !in.json {
		seeOther(w, "/tracks")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// finish ends a write that the store answered with made and err. It names the pages that show the change, so that they
// are current when the reply leaves. A cache renders what HTTP says anyway, the target of the request and the Location
// of its response; that both are named here as well costs nothing.
//
// A track that is not there any more may be one that this same request has deleted in an earlier run (see change).
// That is told as not found, but its pages are named.
func (a *application) finish(ctx context.Context, made change, err error) error {
	gone := errors.Is(err, errNotFound) && len(made.artists) > 0
	if err != nil && !gone {
		return err
	}
	if err := scales.Writer(ctx).Update(ctx, made.keys()...); err != nil {
		return fmt.Errorf("naming the changed pages: %w", err)
	}
	if !gone {
		pause(ctx, a.workDelay)
	}
	return err
}

// reject answers with the reasons why values were refused: to a form with the page of the form, in which a field holds
// what was sent, or else what it holds in current.
func (a *application) reject(w http.ResponseWriter, r *http.Request, in submission, current form) {
	if in.json {
		a.writeJSON(w, r, http.StatusUnprocessableEntity, map[string]any{"errors": in.errors})
		return
	}
	if name := in.field("name"); name != nil {
		current.Name = strings.ToValidUTF8(*name, "\uFFFD")
	}
	if artist := in.field("artist"); artist != nil {
		current.Artist = strings.ToValidUTF8(*artist, "\uFFFD")
	}
	current.Errors = in.errors
	a.writePage(w, r, http.StatusUnprocessableEntity, "form.html", current)
}

// seeOther sends a browser on to path after a form.
func seeOther(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
}

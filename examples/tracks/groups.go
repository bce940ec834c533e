package main

import (
	"net/http"
	"strings"
)

// Every page that names an artist is in a group (RFC 9875), and a write to artists invalidates groups instead of naming
// pages: the cache knows which pages are in them. There is a group for each artist, with the pages about this artist alone
// and about each of the artist's tracks. One more holds all lists: these are few, a cache need not take more than 128
// groups of one response, and a list may name any number of artists. The home page is in no group, because it names no
// artist, and how many tracks and artists there are stays the same when one is renamed or merged.

const (
	// groupsField is the field of a response to GET that says in which groups it is.
	groupsField = "Cache-Groups"
	// invalidationField is the field of a response to a write that says which groups are out of date.
	invalidationField = "Cache-Group-Invalidation"
)

// artistsGroup is the name of the group of the lists of tracks and of artists.
const artistsGroup = "artists"

// artistGroup is the name of the group of the pages about one artist. The longest slug, with the largest number at its end,
// makes it shorter than the 128 characters that a cache has to take. None of them has to be escaped.
func artistGroup(slug string) string { return "artist-" + slug }

// grouped is the content of a page that names artists.
type grouped interface {
	// groups returns the groups that the page is in.
	groups() []string
}

func (t track) groups() []string        { return []string{artistGroup(t.ArtistSlug)} }
func (a artistTracks) groups() []string { return []string{artistGroup(a.Slug)} }
func (trackList) groups() []string      { return []string{artistsGroup} }
func (artistList) groups() []string     { return []string{artistsGroup} }

// groups returns none for a track that is to be made, of whose artist nothing is known.
func (f form) groups() []string {
	if f.ArtistSlug == "" {
		return nil
	}
	return []string{artistGroup(f.ArtistSlug)}
}

// setGroups writes groups to a field of the header of w as a List of Strings (RFC 9651). Without any there is no field.
func setGroups(w http.ResponseWriter, field string, groups []string) {
	if len(groups) > 0 {
		w.Header().Set(field, `"`+strings.Join(groups, `", "`)+`"`)
	}
}

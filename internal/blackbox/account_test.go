package blackbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// outcome is what a client knows of a write, by its answer.
type outcome int

const (
	unknown outcome = iota // 502, 504, or no answer: it was carried out, or not
	applied                // 2xx and 3xx, and 404 for a deletion that was carried out before: it was carried out
	refused                // 503, or it was never sent: it was not carried out, and never will be
)

// deed is one write to a track, by the one client that writes to it.
type deed struct {
	name    string // that no other deed has; the track is named after it, and the request has it in its header
	kind    string // the method, also where a form travels in the place of it
	form    bool
	request call
	id      int64 // the track; 0 for a creation of which the id is not known
	state   state // what the track is after it
	outcome outcome
	told    string // the status, and the type of the problem if the answer is one
}

func (d *deed) String() string {
	return fmt.Sprintf("%s %s (%v of track %d, %s)", d.name, d.kind, d.request, d.id, d.told)
}

// writeField is the field of a request's header with the name of the deed. What becomes of a request keeps it.
const writeField = "X-Write"

// account is what clients know of the tracks to which they write, each to its own.
type account struct {
	mu     sync.Mutex
	deeds  map[string]*deed
	tracks map[int64][]state // what each track may be. After a deed that is unknown nobody writes to it any more
	told   map[string]int    // how many deeds were told what
}

func newAccount() *account {
	return &account{deeds: map[string]*deed{}, tracks: map[int64][]state{}, told: map[string]int{}}
}

// begin takes down a deed before it is done.
func (a *account) begin(d *deed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deeds[d.name] = d
}

// end takes down what became of a deed. The id of another track for a new one is an error.
func (a *account) end(d *deed) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told[d.kind+" "+d.told]++
	switch {
	case d.outcome == refused, d.outcome == unknown && d.kind == http.MethodPost:
	case d.outcome == unknown:
		a.tracks[d.id] = append(a.tracks[d.id], d.state)
	case d.kind == http.MethodPost && a.tracks[d.id] != nil:
		return fmt.Errorf("two tracks were made with the id %d: %v", d.id, d)
	default:
		a.tracks[d.id] = []state{d.state}
	}
	return nil
}

// count returns how many deeds have an outcome.
func (a *account) count(o outcome) (n int) {
	for _, d := range a.deeds {
		if d.outcome == o {
			n++
		}
	}
	return n
}

// findings are the ways in which the application may hold something else than the account.
type findings struct {
	lost     []string // what was answered to be carried out is not there
	again    []string // what was carried out before was carried out once more
	refused  []string // what was answered never to be carried out is there
	invented []string // nobody has written it
	happened int      // how many creations were carried out of those of which nobody knew
}

// compare returns how the application differs from the account. All clients have ended.
func (a *account) compare(there map[int64]state) findings {
	var f findings
	for id, possible := range a.tracks {
		is, ok := there[id]
		if !ok {
			is = state{gone: true}
		}
		if slices.Contains(possible, is) {
			continue
		}
		text := fmt.Sprintf("track %d is %v, want one of %v; written by %v", id, is, possible, a.of(id))
		if d := a.deedOf(is); d != nil && d.id == id && d.outcome == applied {
			f.again = append(f.again, text)
		} else if d != nil && d.id == id && d.outcome == refused {
			f.refused = append(f.refused, text)
		} else {
			f.lost = append(f.lost, text)
		}
	}
	seen := map[string]bool{}
	for id, is := range there {
		if a.tracks[id] != nil {
			continue
		}
		d := a.deedOf(is)
		switch {
		case d == nil || d.kind != http.MethodPost || d.state != is:
			f.invented = append(f.invented, fmt.Sprintf("track %d, %v, was made by nobody", id, is))
		case d.outcome == applied, seen[d.name]:
			f.again = append(f.again, fmt.Sprintf("track %d, %v, was made twice: %v", id, is, d))
		case d.outcome == refused:
			f.refused = append(f.refused, fmt.Sprintf("track %d, %v, was made and refused: %v", id, is, d))
		default:
			f.happened++
		}
		if d != nil {
			seen[d.name] = true
		}
	}
	return f
}

// deedOf returns the deed after which a track is like that, if there is one.
func (a *account) deedOf(s state) *deed {
	name, _, _ := strings.Cut(s.name, " ")
	return a.deeds[name]
}

// of returns the deeds that have a track for their target, in no order.
func (a *account) of(id int64) (all []*deed) {
	for _, d := range a.deeds {
		if d.id == id {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *deed) int { return strings.Compare(a.name, b.name) })
	return all
}

// contents returns all tracks of an application.
func contents(t *testing.T, app *process) map[int64]state {
	t.Helper()
	there := map[int64]state{}
	for _, artist := range read[artistList](t, app, "/artists.json").Artists {
		for _, one := range read[artistPage](t, app, artistPath(artist.Slug)+".json").Tracks {
			if _, double := there[one.ID]; double {
				t.Errorf("two artists have track %d", one.ID)
			}
			there[one.ID] = state{name: one.Name, artist: one.Artist}
		}
	}
	if total := read[trackList](t, app, "/tracks.json").Total; total != len(there) {
		t.Errorf("the application counts %d tracks and lists %d", total, len(there))
	}
	return there
}

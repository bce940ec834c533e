package blackbox_test

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"time"
)

// never is the end of a write that is not answered yet.
const never = time.Duration(math.MaxInt64)

// newestTracks is how many tracks the list of the newest holds.
const newestTracks = 50

// state is what pages say about a track.
type state struct {
	name, artist string
	gone         bool
}

func (s state) String() string {
	if s.gone {
		return "deleted"
	}
	return fmt.Sprintf("%q by %q", s.name, s.artist)
}

// version is what a track is from one write to the next. The write took effect at some moment between start and end.
type version struct {
	state
	start, end time.Duration
	server     int // through which it was written
	// listed says that the list of the newest tracks shows the write, or has to stop showing the track.
	listed bool
}

// history knows every write of a run, and which states of a track a page may show.
//
// What makes a page stale: a page that was made at a moment m shows all writes that took effect before m. The client does
// not know m, but bounds. If the client had the reply to a write W before it asked, and the page has to show W, then the
// page was made after W took effect, so after W started; so it must also show every write that was answered before W
// started, through whichever server. Writes that were under way at the same time as W it may show or not.
//
// All times are taken under the mutex, so that they have one order.
type history struct {
	mu     sync.Mutex
	began  time.Time
	tracks map[int64][]*version
	// made are the creations by the name of the track, which is used only once; ids are their ids, once these are known.
	made     map[string]*version
	ids      map[*version]int64
	byArtist map[string]map[int64]bool // tracks that have or had an artist, by the artist's name
	newest   int64
	seeded   int
	// The times of creations and deletions, ascending.
	creations, deletions tally
	// floors has for each server and page the latest start of a write that the page has to show.
	floors []map[string]time.Duration
}

// tally is when writes of one kind started and were answered.
type tally struct{ starts, ends []time.Duration }

// endedBefore counts the writes that were answered up to a moment.
func (t *tally) endedBefore(moment time.Duration) int {
	return sort.Search(len(t.ends), func(i int) bool { return t.ends[i] > moment })
}

func newHistory(servers int) *history {
	h := &history{
		began: time.Now(), tracks: map[int64][]*version{}, made: map[string]*version{}, ids: map[*version]int64{},
		byArtist: map[string]map[int64]bool{},
	}
	for range servers {
		h.floors = append(h.floors, map[string]time.Duration{})
	}
	return h
}

// now is called with the mutex held.
func (h *history) now() time.Duration { return time.Since(h.began) }

// seed adds a track that was there before.
func (h *history) seed(t track) {
	h.tracks[t.ID] = []*version{{state: state{name: t.Name, artist: t.Artist}, listed: true}}
	h.newest = max(h.newest, t.ID)
	h.seeded++
	h.note(t.Artist, t.ID)
}

func (h *history) note(artist string, id int64) {
	if h.byArtist[artist] == nil {
		h.byArtist[artist] = map[int64]bool{}
	}
	h.byArtist[artist][id] = true
}

// create begins the creation of a track with a name that no other has had.
func (h *history) create(server int, s state) *version {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := &version{state: s, start: h.now(), end: never, server: server, listed: true}
	h.made[s.name] = v
	h.creations.starts = append(h.creations.starts, v.start)
	return v
}

// change begins a change of a track, to a state that no other write gives it, or its deletion.
func (h *history) change(server int, id int64, s state) *version {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := &version{state: s, start: h.now(), end: never, server: server, listed: s.gone}
	h.tracks[id] = append(h.tracks[id], v)
	if s.gone {
		h.deletions.starts = append(h.deletions.starts, v.start)
	} else {
		h.note(s.artist, id)
	}
	return v
}

// answered ends a write. pages are those that have to show it from now on; the lists are added where they do. An id that
// another creation was answered with is an error.
func (h *history) answered(v *version, id int64, pages []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v.end = h.now()
	lists := []string{"/", "/tracks", "/tracks.json", "/artists", "/artists.json"}
	switch {
	case v.gone:
		h.deletions.ends = append(h.deletions.ends, v.end)
	case h.made[v.name] == v:
		if h.tracks[id] != nil {
			return fmt.Errorf("two tracks were made with the id %d", id)
		}
		h.tracks[id] = []*version{{state: state{gone: true}, start: -1, end: -1}, v}
		h.ids[v] = id
		h.newest = max(h.newest, id)
		h.note(v.artist, id)
		h.creations.ends = append(h.creations.ends, v.end)
	case h.surelyListed(id):
		v.listed = true
		lists = []string{"/tracks", "/tracks.json"}
	default:
		lists = nil
	}
	floors := h.floors[v.server]
	for _, page := range slices.Concat(pages, lists) {
		floors[page] = max(floors[page], v.start)
	}
	return nil
}

// surelyListed reports whether a track must be among the newest now, whatever is under way.
func (h *history) surelyListed(id int64) bool {
	newer := h.seeded - int(id) + len(h.creations.starts)
	if id > int64(h.seeded) {
		newer = len(h.creations.starts) - h.creations.endedBefore(h.tracks[id][1].start) - 1
	}
	return newer < newestTracks
}

// view is a look at a page through a server.
type view struct {
	server int
	list   bool          // a page that shows changes only while the track is among the newest
	at     time.Duration // when the page was asked for
	floor  time.Duration // a moment after which the page was made
}

// look is called before a page is asked for.
func (h *history) look(server int, page string) view {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := page == "/tracks" || page == "/tracks.json"
	return view{server: server, list: list, at: h.now(), floor: h.floors[server][page]}
}

// shows reports whether a page that was looked at must show v or a later version.
func (w view) shows(v *version) bool {
	return v.end <= w.floor || v.server == w.server && v.end <= w.at && (!w.list || v.listed)
}

// admits reports whether a page may show one of the versions that match.
func (w view) admits(versions []*version, match func(state) bool) bool {
	for _, v := range versions {
		overwritten := func(later *version) bool { return later.start > v.end && w.shows(later) }
		if match(v.state) && !slices.ContainsFunc(versions, overwritten) {
			return true
		}
	}
	return false
}

// explain tells the last versions of a track, for an error.
func (w view) explain(versions []*version) string {
	text := fmt.Sprintf("asked at %v, made after %v;", w.at, w.floor)
	for _, v := range versions[max(0, len(versions)-5):] {
		end := "not answered"
		if v.end != never {
			end = v.end.String()
		}
		text += fmt.Sprintf(" %v (%v to %s, server %d)", v.state, v.start, end, v.server)
	}
	return text
}

// checkTrack returns an error if a page of a track may not show that state.
func (h *history) checkTrack(w view, id int64, shown state) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.check(w, id, shown, func(s state) bool { return s == shown })
}

func (h *history) check(w view, id int64, shown any, match func(state) bool) error {
	if versions := h.tracks[id]; !w.admits(versions, match) {
		return fmt.Errorf("track %d is shown as %v; %s", id, shown, w.explain(versions))
	}
	return nil
}

// checkNewest returns an error if /tracks may not show that list.
func (h *history) checkNewest(w view, list trackList) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.checkTotal(w, list.Total); err != nil {
		return err
	}
	if want := min(newestTracks, list.Total); len(list.Tracks) != want {
		return fmt.Errorf("%d tracks are listed, want %d", len(list.Tracks), want)
	}
	shown := map[int64]bool{}
	last := h.newest + int64(len(h.creations.starts)) + 1
	for _, t := range list.Tracks {
		if t.ID >= last {
			return fmt.Errorf("track %d follows track %d", t.ID, last)
		}
		last, shown[t.ID] = t.ID, true
		if err := h.checkListed(w, t); err != nil {
			return err
		}
	}
	for id := last + 1; id <= h.newest; id++ {
		if shown[id] || h.tracks[id] == nil {
			continue
		}
		if err := h.check(w, id, "not listed", func(s state) bool { return s.gone }); err != nil {
			return err
		}
	}
	return nil
}

// checkListed returns an error if a list may not show a track like that.
func (h *history) checkListed(w view, t track) error {
	shown := state{name: t.Name, artist: t.Artist}
	if h.tracks[t.ID] != nil {
		return h.check(w, t.ID, shown, func(s state) bool { return s == shown })
	}
	// Its creation may have been carried out and not been answered.
	made := h.made[t.Name]
	if made == nil || made.state != shown || h.ids[made] != 0 {
		return fmt.Errorf("track %d, %v, is listed, which nobody has made", t.ID, shown)
	}
	return nil
}

// checkArtist returns an error if the page of an artist may not show these tracks.
func (h *history) checkArtist(w view, artist string, tracks []track) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	shown := map[int64]bool{}
	last := int64(0)
	for _, t := range tracks {
		if t.ID <= last || t.Artist != artist {
			return fmt.Errorf("the page of %q shows track %d by %q after track %d", artist, t.ID, t.Artist, last)
		}
		last, shown[t.ID] = t.ID, true
		if err := h.checkListed(w, t); err != nil {
			return err
		}
	}
	elsewhere := func(s state) bool { return s.gone || s.artist != artist }
	for id := range h.byArtist[artist] {
		if shown[id] {
			continue
		}
		if err := h.check(w, id, "not by "+artist, elsewhere); err != nil {
			return err
		}
	}
	return nil
}

// checkCount returns an error if a page may not show that number of all tracks.
func (h *history) checkCount(w view, total int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checkTotal(w, total)
}

func (h *history) checkTotal(w view, total int) error {
	least := h.seeded + h.creations.endedBefore(w.floor) - len(h.deletions.starts)
	most := h.seeded + len(h.creations.starts) - h.deletions.endedBefore(w.floor)
	if total < least || total > most {
		return fmt.Errorf("%d tracks are counted, want %d to %d", total, least, most)
	}
	return nil
}

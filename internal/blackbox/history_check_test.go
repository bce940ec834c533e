package blackbox_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// story is a history of a few writes, told step by step.
type story struct {
	t *testing.T
	*history
}

// newStory returns a history of 60 tracks by "old", and two servers.
func newStory(t *testing.T) *story {
	s := &story{t: t, history: newHistory(2)}
	for id := int64(1); id <= 60; id++ {
		s.seed(track{ID: id, Name: fmt.Sprint("seeded ", id), Artist: "old"})
	}
	return s
}

func (s *story) answer(v *version, id int64, pages ...string) {
	s.t.Helper()
	if err := s.answered(v, id, append(trackKeys(id), pages...)); err != nil {
		s.t.Fatal(err)
	}
}

// newestAfter returns the list of the newest with these tracks on top of the seeded ones.
func newestAfter(total int, made ...track) trackList {
	list := trackList{Total: total, Tracks: made}
	for id := int64(60); len(list.Tracks) < newestTracks; id-- {
		list.Tracks = append(list.Tracks, track{ID: id, Name: fmt.Sprint("seeded ", id), Artist: "old"})
	}
	return list
}

// refused expects an error that has the text, and fails otherwise: a check that accepts everything is none.
func (s *story) refused(err error, text string) {
	s.t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		s.t.Errorf("got %v, want an error about %q", err, text)
	}
}

func (s *story) accepted(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("refused: %v", err)
	}
}

func TestTheHistoryKnowsAStalePageOfATrack(t *testing.T) {
	s := newStory(t)
	old, first, second := state{name: "seeded 7", artist: "old"}, state{name: "1", artist: "old"}, state{name: "2", artist: "old"}
	before := s.look(0, "/tracks/7")
	v := s.change(0, 7, first)
	during := s.look(0, "/tracks/7")
	s.accepted(s.checkTrack(during, 7, old))
	s.accepted(s.checkTrack(during, 7, first))
	s.answer(v, 7)
	s.accepted(s.checkTrack(before, 7, old)) // asked before, and late in arriving
	after := s.look(0, "/tracks/7")
	s.accepted(s.checkTrack(after, 7, first))
	s.refused(s.checkTrack(after, 7, old), "track 7 is shown as")
	s.refused(s.checkTrack(after, 7, state{name: "nobody's", artist: "old"}), "track 7 is shown as")
	s.refused(s.checkTrack(after, 7, state{gone: true}), "track 7 is shown as deleted")
	s.accepted(s.checkTrack(s.look(1, "/tracks/7"), 7, old)) // another server may lag behind

	// Two writes at once may come in any order, and both are later than the first.
	third := state{name: "3", artist: "old"}
	v, w := s.change(0, 7, second), s.change(1, 7, third)
	s.answer(v, 7)
	s.answer(w, 7)
	after = s.look(0, "/tracks/7")
	s.accepted(s.checkTrack(after, 7, second))
	s.accepted(s.checkTrack(after, 7, third))
	s.refused(s.checkTrack(after, 7, first), "track 7 is shown as")

	s.answer(s.change(0, 7, state{gone: true}), 7)
	s.refused(s.checkTrack(s.look(0, "/tracks/7"), 7, third), "track 7 is shown as")
	s.accepted(s.checkTrack(s.look(0, "/tracks/7"), 7, state{gone: true}))
}

func TestTheHistoryKnowsAStaleList(t *testing.T) {
	s := newStory(t)
	one := track{ID: 61, Name: "one", Artist: "new"}
	v := s.create(0, state{name: "one", artist: "new"})
	s.accepted(s.checkNewest(s.look(0, "/tracks"), newestAfter(60)))
	s.accepted(s.checkNewest(s.look(0, "/tracks"), newestAfter(61, one)))
	s.answer(v, 61)
	after := s.look(0, "/tracks")
	s.accepted(s.checkNewest(after, newestAfter(61, one)))
	s.refused(s.checkNewest(after, newestAfter(61)), "track 61 is shown as not listed")
	s.refused(s.checkNewest(after, newestAfter(59, one)), "59 tracks are counted")
	s.refused(s.checkNewest(after, newestAfter(62, one)), "62 tracks are counted")
	s.refused(s.checkNewest(after, newestAfter(61, track{ID: 61, Name: "two", Artist: "new"})), "track 61 is shown as")
	s.refused(s.checkNewest(after, newestAfter(61, track{ID: 62, Name: "nobody's"}, one)), "which nobody has made")
	s.refused(s.checkNewest(after, newestAfter(61, one, one)), "track 61 follows")
	short := newestAfter(61, one)
	short.Tracks = short.Tracks[:49]
	s.refused(s.checkNewest(after, short), "49 tracks are listed")
	gap := newestAfter(61, one)
	gap.Tracks = append(slices.Delete(gap.Tracks, 5, 6), track{ID: 11, Name: "seeded 11", Artist: "old"})
	s.refused(s.checkNewest(after, gap), "is shown as not listed")

	renamed := track{ID: 61, Name: "renamed", Artist: "new"}
	s.answer(s.change(0, 61, state{name: "renamed", artist: "new"}), 61)
	s.refused(s.checkNewest(s.look(0, "/tracks"), newestAfter(61, one)), "track 61 is shown as")
	s.accepted(s.checkNewest(s.look(0, "/tracks"), newestAfter(61, renamed)))
	// A track that is not among the newest does not oblige the list.
	s.answer(s.change(0, 5, state{name: "renamed too", artist: "new"}), 5)
	s.accepted(s.checkNewest(after, newestAfter(61, renamed)))

	s.answer(s.change(0, 61, state{gone: true}), 61)
	s.refused(s.checkNewest(s.look(0, "/tracks"), newestAfter(61, renamed)), "track 61 is shown as")
	s.accepted(s.checkNewest(s.look(0, "/tracks"), newestAfter(60)))
}

// What was answered through one server before a write through another began is in a page that shows that write.
func TestTheHistoryKnowsWhatAPageMustShowOfOthers(t *testing.T) {
	s := newStory(t)
	one, two := track{ID: 61, Name: "one", Artist: "new"}, track{ID: 62, Name: "two", Artist: "new"}
	s.answer(s.create(1, state{name: "one", artist: "new"}), 61)
	s.accepted(s.checkNewest(s.look(0, "/tracks"), newestAfter(60)))
	s.answer(s.create(0, state{name: "two", artist: "new"}), 62)
	after := s.look(0, "/tracks")
	s.accepted(s.checkNewest(after, newestAfter(62, two, one)))
	s.refused(s.checkNewest(after, newestAfter(62, two)), "track 61 is shown as not listed")
	s.refused(s.checkNewest(after, newestAfter(60, two, one)), "60 tracks are counted")
	if err := s.answered(s.create(0, state{name: "three", artist: "new"}), 62, nil); err == nil {
		t.Error("two tracks with one id are accepted")
	}
}

func TestTheHistoryKnowsAStalePageOfAnArtist(t *testing.T) {
	s := newStory(t)
	moved := track{ID: 60, Name: "seeded 60", Artist: "new"}
	all := make([]track, 60)
	for i := range all {
		all[i] = track{ID: int64(i + 1), Name: fmt.Sprint("seeded ", i+1), Artist: "old"}
	}
	v := s.change(0, 60, state{name: "seeded 60", artist: "new"})
	s.accepted(s.checkArtist(s.look(0, "/artists/old.json"), "old", all))
	s.answer(v, 60, "/artists/old.json", "/artists/new.json")
	s.refused(s.checkArtist(s.look(0, "/artists/old.json"), "old", all), "track 60 is shown as")
	s.accepted(s.checkArtist(s.look(0, "/artists/old.json"), "old", all[:59]))
	s.refused(s.checkArtist(s.look(0, "/artists/old.json"), "old", all[1:59]), "track 1 is shown as not by old")
	s.refused(s.checkArtist(s.look(0, "/artists/new.json"), "new", nil), "track 60 is shown as not by new")
	s.accepted(s.checkArtist(s.look(0, "/artists/new.json"), "new", []track{moved}))
	s.refused(s.checkArtist(s.look(0, "/artists/new.json"), "new", []track{moved, moved}), "after track 60")
	s.refused(s.checkCount(s.look(0, "/"), 61), "61 tracks are counted")
	s.accepted(s.checkCount(s.look(0, "/"), 60))
}

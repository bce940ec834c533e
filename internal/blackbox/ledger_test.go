package blackbox_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// ledger keeps what clients were told about the tracks they have sent, each with a name of its own and all by one artist.
type ledger struct {
	artist string

	mu      sync.Mutex
	count   int
	made    map[string]int64 // answered 201: there, once, and with that id
	refused map[string]bool  // answered that it is not carried out: not there, and never will be
	unknown map[string]bool  // anything else: there once, or not
}

func newLedger(artist string) *ledger {
	return &ledger{artist: artist, made: map[string]int64{}, refused: map[string]bool{}, unknown: map[string]bool{}}
}

// next returns a request for a new track.
func (l *ledger) next() (name string, request call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	name = fmt.Sprintf("%s no. %d", l.artist, l.count)
	return name, postJSON(name, l.artist)
}

// note takes down the answer to the request of a track; a is nil if there was none. An answer about another track is an
// error.
func (l *ledger) note(name string, a *answer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a == nil:
		l.unknown[name] = true
	case a.status == http.StatusCreated:
		var got track
		if err := a.decode(&got); err != nil {
			return err
		}
		if got.Name != name || got.Artist != l.artist {
			return fmt.Errorf("the reply to %q is about %+v", name, got)
		}
		l.made[name] = got.ID
	case a.status == http.StatusServiceUnavailable, a.status == http.StatusNotImplemented, a.status >= 400 && a.status < 500:
		l.refused[name] = true
	default:
		l.unknown[name] = true
	}
	return nil
}

// post sends a new track and expects that status.
func (l *ledger) post(t *testing.T, server *process, status int) *answer {
	t.Helper()
	return l.try(t, server).is(t, status)
}

// try sends a new track, whatever becomes of it.
func (l *ledger) try(t *testing.T, server *process) *answer {
	t.Helper()
	name, request := l.next()
	a := server.send(t, request)
	if err := l.note(name, a); err != nil {
		t.Error(err)
	}
	return a
}

// isKept expects the application to hold exactly what the answers said.
func (l *ledger) isKept(t *testing.T, app *process) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	there := map[string]int{}
	for _, artist := range read[artistList](t, app, "/artists.json").Artists {
		if artist.Name != l.artist {
			continue
		}
		for _, one := range read[artistPage](t, app, artistPath(artist.Slug)+".json").Tracks {
			there[one.Name]++
			if id, ok := l.made[one.Name]; ok && id != one.ID {
				t.Errorf("%q is track %d, the client was told %d", one.Name, one.ID, id)
			}
		}
	}
	for name := range l.made {
		if there[name] != 1 {
			t.Errorf("%q was answered 201 and is there %d times", name, there[name])
		}
	}
	for name := range l.refused {
		if there[name] != 0 {
			t.Errorf("%q was refused and is there %d times", name, there[name])
		}
	}
	for name := range l.unknown {
		if there[name] > 1 {
			t.Errorf("%q is there %d times", name, there[name])
		}
	}
	if most := len(l.made) + len(l.unknown); len(there) > most {
		t.Errorf("%d tracks are there, want at most %d", len(there), most)
	}
	t.Logf("%d writes: %d carried out, %d refused, %d unknown", l.count, len(l.made), len(l.refused), len(l.unknown))
}

package blackbox_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// audit is what a verify ends with.
type audit struct {
	Keys, Current, Pushed, Missing, Stale, Orphaned, Unrenderable, Unsettled, Refused, Repaired, Drift *int

	DeadLetters *int `json:"dead_letters"`
	Findings    map[string][]struct {
		Key, Kind, Reason   string
		Explained, Repaired bool
	}
	Seconds *float64
}

// kinds returns the kind of each finding by its key.
func (a *audit) kinds() map[string]string {
	all := make(map[string]string)
	for kind, findings := range a.Findings {
		for _, f := range findings {
			all[f.Key] = kind
		}
	}
	return all
}

// verify compares the cache with the application, and expects an exit status.
func (s *site) verify(t *testing.T, status int, flags ...string) *audit {
	t.Helper()
	a, p := s.audit(t, flags...)
	if got := p.command.ProcessState.ExitCode(); got != status {
		t.Errorf("verify ends with status %d, want %d\n%s", got, status, p.stderr.tail())
	}
	return a
}

// audit compares the cache with the application. The process has ended, with any status.
func (s *site) audit(t *testing.T, flags ...string) (*audit, *process) {
	t.Helper()
	p := s.start(t, "verify", flags...)
	select {
	case <-p.ended:
	case <-t.Context().Done():
	}
	p.told = true
	lines := strings.Split(strings.TrimSuffix(p.stdout.String(), "\n"), "\n")
	decoder := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	decoder.DisallowUnknownFields()
	a := new(audit)
	if err := decoder.Decode(a); err != nil {
		t.Fatalf("verify ends with %s: %v\n%s", lines[len(lines)-1], err, p.stderr.tail())
	}
	return a, p
}

// meddle changes an entry as somebody does who has no business in Redis.
func (s *site) meddle(t *testing.T, arguments ...any) {
	t.Helper()
	if err := s.client.Do(t.Context(), arguments...).Err(); err != nil {
		t.Fatal(err)
	}
}

// An operator can have the cache compared with the application, beside live traffic, and repaired.
func TestVerifyFindsWhatHasDrifted(t *testing.T) {
	realStores(t, func(t *testing.T, at store) {
		s := newSite(t, at)
		s.troubled = true // an entry that cannot be decoded is an error in the log
		s.open(t, 1, 2)
		s.fill(t)
		if a := s.verify(t, 0); *a.Keys != seededKeys || *a.Current != seededKeys || len(a.Findings) != 0 {
			t.Errorf("a cache that was just filled: %+v", a)
		}

		entry := func(key string) string { return s.redisKey(key, "e:"+key) }
		value := s.client.Get(t.Context(), entry("/tracks/7")).Val()
		s.meddle(t, "SET", entry("/tracks/7"), strings.Replace(value, "<h1>", "<H1>", 1))
		s.meddle(t, "DEL", entry("/tracks/8.json"))
		s.meddle(t, "SET", entry("/tracks/5000"), value)
		s.meddle(t, "ZADD", s.redisKey("/tracks/9", "groups"), 0, "artists\t/tracks/9")
		s.meddle(t, "HSET", s.redisKey("/tracks/10", "memberships"), "/tracks/10", "nobody\t")
		want := map[string]string{
			"/tracks/7": "stale", "/tracks/8.json": "missing", "/tracks/5000": "orphaned", "/tracks/9": "stale", "/tracks/10": "stale",
		}
		a := s.verify(t, 1)
		if got := a.kinds(); !maps.Equal(got, want) || *a.Drift != len(want) || *a.Repaired != 0 {
			t.Errorf("found %v, want %v; drift %d", got, want, *a.Drift)
		}
		a = s.verify(t, 0, "-repair")
		if *a.Drift != 0 || *a.Repaired != len(want) {
			t.Errorf("after the repair: drift %d, repaired %d", *a.Drift, *a.Repaired)
		}
		if a = s.verify(t, 0); len(a.Findings) != 0 {
			t.Errorf("a second time: %v", a.kinds())
		}
		s.isCurrent(t, allKeys(t, s.app, 20))
		s.servers[0].get(t, "/tracks/5000").isProblem(t, http.StatusNotFound, "not-found")
	})
}

// What clients change meanwhile is no drift.
func TestVerifyBesideWritesFindsNothing(t *testing.T) {
	s := newSite(t, sharedStore(t), "-deadline", "1m")
	s.open(t, 2, 3)
	s.fill(t)
	l := newLoad(t, s)
	l.clients = 16
	if raceDetector {
		l.left.Store(int64(min(*writes, shortWrites)))
	}
	verified, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		l.run(t)
	}()
	for running := true; running; verified++ {
		a := s.verify(t, 0)
		if *a.Drift != 0 || *a.Unrenderable != 0 {
			t.Errorf("beside the load: %+v", a.Findings)
		}
		select {
		case <-done:
			running = false
		default:
		}
	}
	l.report(t)
	t.Logf("%d verifies beside the load", verified)
	s.isIdle(t)
	if a := s.verify(t, 0); len(a.Findings) != 0 {
		t.Errorf("after the load: %v", a.kinds())
	}
}

// explain asks what the cache knows of a key.
func (s *site) explain(t *testing.T, key string) (e struct {
	Key, State, Job, Why string
	Groups               []string
}) {
	t.Helper()
	p := s.launch(t, "explain", key)
	p.awaitEnd(t, readyTimeout)
	if err := json.Unmarshal([]byte(p.stdout.String()), &e); err != nil {
		t.Fatalf("explain %s says %s: %v", key, p.stdout.String(), err)
	}
	return e
}

// Writes that name groups have all pages of an artist current when they are answered.
func TestAnArtistIsRenamedAndMergedEverywhere(t *testing.T) {
	realStores(t, func(t *testing.T, at store) {
		s := newSite(t, at)
		s.open(t, 2, 2)
		s.fill(t)
		artists := read[artistList](t, s.app, "/artists.json").Artists
		one, other := artists[0].Slug, artists[1].Slug
		affected := func(slugs ...string) []string {
			keys := []string{"/", "/tracks", "/tracks.json", "/artists", "/artists.json"}
			for _, slug := range slugs {
				keys = append(keys, artistKeys(slug)...)
				for _, track := range read[artistPage](t, s.app, artistPath(slug)+".json").Tracks {
					keys = append(keys, trackKeys(track.ID)...)
				}
			}
			return keys
		}
		both := affected(one, other)

		a := s.write(t, withJSON(http.MethodPut, artistPath(one), map[string]string{"name": "Renamed & <new>"})).is(t, http.StatusOK)
		s.isCurrent(t, both)
		if !strings.Contains(a.body, "Renamed") || read[artistPage](t, s.servers[1], artistPath(one)+".json").Name != "Renamed & <new>" {
			t.Errorf("the reply is %s", a.body)
		}
		s.write(t, postForm(artistPath(one), http.MethodPut, map[string]string{"name": "Renamed again"})).is(t, http.StatusSeeOther)
		s.isCurrent(t, both)
		s.write(t, postForm(artistPath(one)+"/merge", "", map[string]string{"into": other})).is(t, http.StatusSeeOther)
		s.isCurrent(t, both)
		for _, server := range s.servers {
			if n := len(read[artistPage](t, server, artistPath(one)+".json").Tracks); n != 0 {
				t.Errorf("the merged artist shows %d tracks", n)
			}
		}
		if e := s.explain(t, both[len(both)-1]); e.State != "entry" || e.Why != "group artist-"+other && e.Why != "group artist-"+one || e.Job == "" ||
			!slices.Equal(e.Groups, []string{fmt.Sprint("artist-", other)}) {
			t.Errorf("explain: %+v", e)
		}
		s.isCurrent(t, allKeys(t, s.app, seededTracks))
		s.verify(t, 0)
		s.isIdle(t)
	})
}

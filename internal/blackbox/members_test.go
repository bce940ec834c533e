package blackbox_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// merged is how many artists are merged into one: the group of that one has more members than are rendered before a reply.
const merged = 40

// Workers are killed with groups in what they owe: when all members are being rendered, in the middle of a walk, and at
// random moments, which are before, between and after the decision of the job and the marks of its groups. Others do the
// rest: every change is answered, and every member shows it.
func TestOthersRenderTheMembersThatAKilledWorkerOwes(t *testing.T) {
	s := newSite(t, sharedStore(t), "-lease", "500ms", "-deadline", "1m", "-group-limit", "100")
	s.troubled = true
	s.open(t, 1, 0)
	artists := read[artistList](t, s.app, "/artists.json").Artists
	small, large := artists[merged+1].Slug, artists[merged].Slug
	for _, a := range artists[:merged] {
		s.app.send(t, postForm(artistPath(a.Slug)+"/merge", "", map[string]string{"into": large})).is(t, http.StatusSeeOther)
	}
	if n := len(read[artistPage](t, s.app, artistPath(large)+".json").Tracks); n < 300 {
		t.Fatalf("the large artist has %d tracks", n)
	}
	keys := allKeys(t, s.app, seededTracks)
	victim := s.startWorker(t, "-render-delay", "1m")
	s.fill(t)
	server := s.servers[0]
	var changes []*pending
	rename := func(slug, name string) {
		changes = append(changes, server.begin(t, withJSON(http.MethodPut, artistPath(slug), map[string]string{"name": name})))
	}

	// The job is decided, and its members are being rendered.
	rename(small, "Renamed by a victim")
	eventually(t, patience, "the job is decided, its group is marked, and members are being rendered", func() bool {
		return s.sum(t, "claims", hlen) > 0 && s.client.HLen(t.Context(), s.queueKey("held")).Val() == 1 &&
			s.client.ZScore(t.Context(), s.redisKey("", "marks"), "artist-"+small).Err() == nil
	})
	victim.kill()
	victim = s.startWorker(t, "-render-delay", "50ms")

	// A walk has taken some steps.
	rename(large, "Walked by a victim")
	steps := make(map[string]bool)
	walk := func() string { return s.client.HGet(t.Context(), s.redisKey("", "walks"), "artist-"+large).Val() }
	eventually(t, patience, "the walk of the large group has taken some steps", func() bool {
		steps[walk()] = true
		return len(steps) > 4
	})
	victim.kill()
	if walk() == "" {
		t.Error("the worker was not killed in the middle of the walk")
	}
	s.startWorker(t)

	// At random moments.
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("the seed is %d", seed)
	for round := range 10 {
		victim := s.start(t, "worker", "-render-delay", "5ms")
		for _, slug := range []string{small, large}[:1+round%2] {
			rename(slug, fmt.Sprintf("Renamed %d %s", round, slug))
		}
		<-time.After(time.Duration(random.IntN(int(200 * time.Millisecond))))
		victim.kill()
	}
	for _, change := range changes {
		change.wait(t).is(t, http.StatusOK)
	}
	s.isIdle(t)
	s.isCurrent(t, keys)
	if a := s.verify(t, 0); len(a.Findings) != 0 || *a.Current != len(keys) {
		t.Errorf("a verify finds %v; %d keys are current, of %d", a.kinds(), *a.Current, len(keys))
	}
}

// startWorker starts a worker and waits until servers know of it.
func (s *site) startWorker(t *testing.T, flags ...string) *process {
	t.Helper()
	workers := func() []string { return s.client.HKeys(t.Context(), s.queueKey("workers")).Val() }
	before := workers()
	p := s.start(t, "worker", flags...)
	eventually(t, patience, "the worker has begun", func() bool {
		return slices.ContainsFunc(workers(), func(id string) bool { return !slices.Contains(before, id) })
	})
	return p
}

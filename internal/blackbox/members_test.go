package blackbox_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
)

// merged is how many artists are merged into one: the group of that one has more members than are rendered before a reply.
const merged = 30

// Workers are killed with groups in what they owe: after the decision of a job and before its groups are marked, after that
// and before the decision, in the middle of a walk, and at random moments. Others do the rest: every change is answered,
// and every member shows it.
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
	s.fill(t)
	server := s.servers[0]
	rename := func(slug, name string) *pending {
		return server.begin(t, withJSON(http.MethodPut, artistPath(slug), map[string]string{"name": name}))
	}
	members := s.membersOf(t, small)
	marked := func() float64 { return s.client.ZScore(t.Context(), s.redisKey("", "marks"), "artist-"+small).Val() }

	// No group can be marked.
	victim := s.startWorker(t)
	s.meddle(t, "SET", s.redisKey("", "marks"), "no sorted set")
	change := rename(small, "Decided by a victim")
	await.Within(t, patience, "the job is decided", func() bool { return s.client.HLen(t.Context(), s.queueKey("held")).Val() == 1 })
	victim.kill()
	s.meddle(t, "DEL", s.redisKey("", "marks"))
	victim = s.startWorker(t, "-work-delay", "3s")
	change.wait(t).is(t, http.StatusOK)
	s.isCurrent(t, members)

	// No job can be decided, from a moment on at which the handler runs.
	before := marked()
	change = rename(small, "Marked by a victim")
	await.Within(t, patience, "the handler has changed the database", func() bool {
		return s.asked(t, artistPath(small)+".json", "Marked by a victim")
	})
	if held := s.client.SetNX(t.Context(), s.queueKey("held"), "no hash", 0).Val(); !held {
		t.Fatal("the job was decided before it could be kept from that")
	}
	await.Within(t, patience, "the group is marked", func() bool { return marked() > before })
	victim.kill()
	s.meddle(t, "DEL", s.queueKey("held"))
	victim = s.startWorker(t, "-render-delay", "50ms")
	change.wait(t).is(t, http.StatusOK)
	s.isCurrent(t, members)

	// A walk has taken some steps.
	change = rename(large, "Walked by a victim")
	steps := make(map[string]bool)
	walk := func() string { return s.client.HGet(t.Context(), s.redisKey("", "walks"), "artist-"+large).Val() }
	await.Within(t, patience, "the walk of the large group has taken some steps", func() bool {
		steps[walk()] = true
		return len(steps) > 4
	})
	victim.kill()
	if walk() == "" {
		t.Error("the worker was not killed in the middle of the walk")
	}
	s.startWorker(t)
	change.wait(t).is(t, http.StatusOK)
	s.isIdle(t)
	s.isCurrent(t, s.membersOf(t, large))

	// At random moments.
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("the seed is %d", seed)
	var changes []*pending
	for round := range 6 {
		victim := s.startWorker(t, "-render-delay", "5ms")
		for _, slug := range []string{small, large}[:1+round%2] {
			changes = append(changes, rename(slug, fmt.Sprintf("Renamed %d %s", round, slug)))
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

// membersOf returns the keys in the group of an artist.
func (s *site) membersOf(t *testing.T, slug string) []string {
	t.Helper()
	keys := artistKeys(slug)
	for _, track := range read[artistPage](t, s.app, artistPath(slug)+".json").Tracks {
		keys = append(keys, trackKeys(track.ID)...)
	}
	return keys
}

// startWorker starts a worker and waits until servers know of it.
func (s *site) startWorker(t *testing.T, flags ...string) *process {
	t.Helper()
	workers := func() []string { return s.client.HKeys(t.Context(), s.queueKey("workers")).Val() }
	before := workers()
	p := s.start(t, "worker", flags...)
	await.Within(t, patience, "the worker has begun", func() bool {
		return slices.ContainsFunc(workers(), func(id string) bool { return !slices.Contains(before, id) })
	})
	return p
}

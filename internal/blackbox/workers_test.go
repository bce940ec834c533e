package blackbox_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
)

// asked reports what the application shows, to know how far a handler has come.
func (s *site) asked(t *testing.T, target, text string) bool {
	t.Helper()
	return strings.Contains(s.app.get(t, target).body, text)
}

// A worker is killed while it carries out a POST, a PUT and a DELETE, after their change of the database. The POST might
// be doubled if another worker ran it again: its client is told that nobody knows, and it becomes a dead letter. The others
// may be repeated, and are.
func TestOthersFinishTheWorkOfAKilledWorker(t *testing.T) {
	s := newSite(t, sharedStore(t), "-lease", "500ms", "-deadline", "10s")
	s.troubled = true
	s.open(t, 1, 0)
	victim := s.start(t, "worker", "-work-delay", "1m")
	s.fill(t)
	server := s.servers[0]
	moved := read[track](t, s.app, "/tracks/7.json")
	deleted := read[track](t, s.app, "/tracks/8.json")

	post := server.begin(t, postJSON("Written by a victim", "Victims"))
	put := server.begin(t, putJSON(7, map[string]string{"name": "Moved by a victim", "artist": "Survivors"}))
	remove := server.begin(t, call{method: http.MethodDelete, target: "/tracks/8"})
	await.Within(t, patience, "the three handlers have changed the database", func() bool {
		return s.asked(t, "/tracks.json", "Written by a victim") && s.asked(t, "/tracks/7.json", "Moved by a victim") &&
			s.app.get(t, "/tracks/8").status == http.StatusNotFound
	})
	s.start(t, "worker")
	s.start(t, "worker")
	victim.kill()
	killed := time.Now()
	if made := server.post(t, "Written meanwhile", "Survivors").is(t, http.StatusCreated); time.Since(killed) > patience {
		t.Errorf("%v took %v", made.call, time.Since(killed))
	}

	post.wait(t).isProblem(t, http.StatusBadGateway, "worker-died")
	var got track
	if err := put.wait(t).is(t, http.StatusOK).decode(&got); err != nil || got.Name != "Moved by a victim" || got.Artist != "Survivors" {
		t.Errorf("the repeated PUT is answered with %+v, %v", got, err)
	}
	s.shows(t, got, false, moved.ArtistSlug)
	if status := remove.wait(t).status; status != http.StatusNoContent && status != http.StatusNotFound {
		t.Errorf("the repeated DELETE is answered with %d", status)
	}
	s.isGone(t, deleted)
	t.Logf("answered after the worker was killed: POST %v, PUT %v, DELETE %v",
		post.began.Add(post.took).Sub(killed), put.began.Add(put.took).Sub(killed), remove.began.Add(remove.took).Sub(killed))
	s.hasDeadLetter(t, "Written by a victim")

	// What the lost response would have named is stale, until a fill; the list, its target, is not.
	await.Within(t, soon, "the list shows the lost track", func() bool {
		return server.get(t, "/tracks").body == s.app.get(t, "/tracks").body
	})
	s.fill(t)
	s.isCurrent(t, allKeys(t, s.app, seededTracks+2))
}

// hasDeadLetter expects one dead letter, which holds the request, and no job.
func (s *site) hasDeadLetter(t *testing.T, text string) {
	t.Helper()
	letters, err := s.client.XRange(t.Context(), s.queueKey("dead"), "-", "+").Result()
	if err != nil || len(letters) != 1 {
		t.Fatalf("the dead letters are %v, %v, want one", letters, err)
	}
	request, _ := letters[0].Values["request"].(string)
	reason, _ := letters[0].Values["reason"].(string)
	if !strings.HasPrefix(request, "POST /tracks HTTP/1.1\r\n") || !strings.Contains(request, text) || reason == "" {
		t.Errorf("the dead letter is %v", letters[0].Values)
	}
	if jobs := s.length(t, "jobs"); jobs != 0 {
		t.Errorf("%d jobs are left", jobs)
	}
}

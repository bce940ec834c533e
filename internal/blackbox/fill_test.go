package blackbox_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
)

const (
	// resources is how many GETs the application answers at the beginning.
	resources = 3208
	// cutAfter is how many of them a fill has stored at least when it is killed.
	cutAfter = 1500
	// renderDelay makes a fill slow enough to be caught in the middle.
	renderDelay = "20ms"
)

// A fill that is killed in the middle is gone on with by the next one, which renders what is missing. Until that has
// ended, no server takes a page for missing.
func TestAFillThatIsKilledIsGoneOnWith(t *testing.T) {
	realStores(t, func(t *testing.T, at store) {
		s := newSite(t, at)
		s.open(t, 1, 1)
		fill := s.start(t, "fill", "-render-delay", renderDelay)
		await.Within(t, patience, "the fill has come to its middle", func() bool { return s.sum(t, "index", zcard) >= cutAfter })
		fill.kill()
		stored, underWay := s.sum(t, "index", zcard), s.sum(t, "claims", hlen)
		if stored >= resources {
			t.Fatal("the fill was not caught in the middle")
		}
		s.knowsNothing(t)

		began := time.Now()
		second := s.start(t, "fill", "-render-delay", renderDelay)
		await.Within(t, patience, "the second fill has begun to render", func() bool { return s.sum(t, "index", zcard) > stored+100 })
		s.knowsNothing(t)
		got := s.filled(t, second)
		if *got.Keys != resources || int64(*got.Resumed) < stored {
			t.Errorf("the second fill has %d keys, %d of them from before; want %d and %d", *got.Keys, *got.Resumed, resources, stored)
		}
		// Every render ends with a record in the log, but for those that were under way when the fill was killed.
		renders := s.sum(t, "log", xlen) + underWay
		t.Logf("killed after %d of %d keys with %d under way; the second fill took %v; %d renders in all, %.3f for each key",
			stored, resources, underWay, time.Since(began).Round(10*time.Millisecond), renders, float64(renders)/resources)
		if renders > resources*105/100 {
			t.Errorf("both fills cost %d renders of %d keys", renders, resources)
		}
		s.servers[0].get(t, "/no-such-page").isProblem(t, http.StatusNotFound, "not-found")
		s.isCurrent(t, allKeys(t, s.app, seededTracks))

		before := s.sum(t, "log", xlen)
		if again := s.filled(t, s.start(t, "fill", "-anew")); *again.Resumed != 0 || s.sum(t, "log", xlen)-before < resources {
			t.Errorf("a fill that begins anew has rendered %d of %d keys", s.sum(t, "log", xlen)-before, resources)
		}
	})
}

// knowsNothing expects that the server neither has all pages nor takes one for missing.
func (s *site) knowsNothing(t *testing.T) {
	t.Helper()
	s.servers[0].get(t, "/no-such-page").isProblem(t, http.StatusServiceUnavailable, "not-filled")
	s.servers[0].get(t, "/assets/cover.png").is(t, http.StatusOK) // one of the first
}

// Commands of Redis that tell how many members something has.
const (
	zcard = "ZCARD"
	hlen  = "HLEN"
	xlen  = "XLEN"
)

// sum returns how many members the keys of that name have in all partitions.
func (s *site) sum(t *testing.T, name, command string) (n int64) {
	t.Helper()
	for number := range s.partitions {
		size, err := s.client.Do(t.Context(), command, fmt.Sprintf("{%s:%d}:%s", s.namespace, number, name)).Int64()
		if err != nil {
			t.Fatal(err)
		}
		n += size
	}
	return n
}

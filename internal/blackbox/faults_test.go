package blackbox_test

import (
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

// killPace is the time from one kill of a worker or server to the next.
const killPace = 300 * time.Millisecond

// Workers are killed all the time. Others finish what they have begun: what may be repeated is, and of what may not be the
// client is told that nobody knows, and a dead letter is kept.
func TestWorkersAreKilledAllTheTime(t *testing.T) {
	t.Parallel()
	c := newCampaign(t, singleStore(redistest.Start(t).Client(t)), 2, 4, "-lease", "500ms", "-deadline", "10s")
	c.run(t, killPace, 5, func() { c.workers.strike(t, c.random) })
	c.concludes(t)
}

package blackbox_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// crew is the processes of one role of a site, of which each may be killed and is replaced then.
type crew struct {
	site  *site
	role  string
	kills int

	starting sync.WaitGroup
	mu       sync.Mutex
	ready    []*process
	problem  error // that one could not be replaced
}

// hire starts the processes of a role and waits until they are ready.
func (s *site) hire(t *testing.T, role string, number int) *crew {
	t.Helper()
	c := &crew{site: s, role: role}
	for range number {
		c.launch(t)
	}
	c.complete(t)
	return c
}

// launch starts a further process, which belongs to the crew when it is ready.
func (c *crew) launch(t *testing.T) {
	t.Helper()
	p := c.site.launch(t, c.role)
	c.starting.Go(func() {
		err := p.untilReady()
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.problem = err
			return
		}
		c.ready = append(c.ready, p)
	})
}

// complete waits until all are ready, and returns them.
func (c *crew) complete(t *testing.T) []*process {
	t.Helper()
	c.starting.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem != nil {
		t.Fatal(c.problem)
	}
	return slices.Clone(c.ready)
}

// trouble returns why one could not be replaced.
func (c *crew) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// pick returns one that is ready, nil if there is none. It may be killed at any time.
func (c *crew) pick(random *rand.Rand) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ready) == 0 {
		return nil
	}
	return c.ready[random.IntN(len(c.ready))]
}

// strike kills one of those that are ready, if there is any, and starts another one in its place.
func (c *crew) strike(t *testing.T, random *rand.Rand) {
	t.Helper()
	victim := c.pick(random)
	if victim == nil {
		return
	}
	c.mu.Lock()
	c.ready = slices.DeleteFunc(c.ready, func(p *process) bool { return p == victim })
	c.mu.Unlock()
	victim.kill()
	c.kills++
	c.launch(t)
}

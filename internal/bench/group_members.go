package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/itscales/scales"
)

const (
	// groupPoll is how long it is until members that were not current are looked at again.
	groupPoll = 20 * time.Millisecond

	// groupReads is how many members are read at once; while the first ones are not current, fewLooks.
	groupReads = 256
	fewLooks   = 16
)

// showing returns which of the keys show the number, from the cache.
func (g *groupSite) showing(ctx context.Context, keys []string, number string) ([]bool, error) {
	current, errs := make([]bool, len(keys)), make([]error, len(keys))
	var group sync.WaitGroup
	for i, key := range keys {
		group.Go(func() {
			var entry scales.Entry
			entry, errs[i] = g.cache.Get(ctx, key)
			current[i] = errs[i] == nil && shown(entry.Body) == number
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", keys[i], err)
		}
	}
	return current, nil
}

// awaitMembers returns when each of the keys has shown the version, which stays the latest, or when ctx ends. It looks at
// few members while there are some among them that are not current, so that looking is cheap.
func (g *groupSite) awaitMembers(ctx context.Context, keys []string, version string) error {
	ticker := time.NewTicker(groupPoll)
	defer ticker.Stop()
	for size := fewLooks; len(keys) > 0; {
		size = min(size, len(keys))
		current, err := g.showing(ctx, keys[:size], version)
		if err != nil {
			return err
		}
		var behind []string
		for i, yes := range current {
			if !yes {
				behind = append(behind, keys[i])
			}
		}
		if len(behind) == 0 {
			keys, size = keys[size:], min(2*size, groupReads)
			continue
		}
		keys, size = append(behind, keys[size:]...), fewLooks
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; %d members may not be current", context.Cause(ctx), len(keys))
		}
	}
	return nil
}

// countCurrent returns how many of the keys show the version.
func (g *groupSite) countCurrent(ctx context.Context, keys []string, version string) (n int, err error) {
	for begin := 0; begin < len(keys); begin += groupReads {
		current, err := g.showing(ctx, keys[begin:min(begin+groupReads, len(keys))], version)
		if err != nil {
			return n, err
		}
		for _, yes := range current {
			if yes {
				n++
			}
		}
	}
	return n, nil
}

// checkAll returns an error where a member does not show the version, or a page not as many writes as were sent.
func (g *groupSite) checkAll(ctx context.Context) error {
	current, err := g.countCurrent(ctx, g.members, strconv.Itoa(g.version))
	if err != nil {
		return err
	}
	if current != len(g.members) {
		return fmt.Errorf("of %d members %d do not show version %d at the end", len(g.members), len(g.members)-current, g.version)
	}
	for i, written := range g.writers.written {
		entry, err := g.cache.Get(ctx, pageKey(i))
		if want := strconv.Itoa(written); err != nil || shown(entry.Body) != want {
			return errors.Join(err, fmt.Errorf("after %s writes %s shows %q", want, pageKey(i), shown(entry.Body)))
		}
	}
	return nil
}

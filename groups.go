package scales

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/partition"
)

// UpdateGroups has all members of groups rendered by workers. It returns when that is recorded in Redis, not when it is
// done.
func (c *Cache) UpdateGroups(ctx context.Context, groups ...string) error {
	groups, err := c.parseGroups(groups)
	if err != nil {
		return err
	}
	return c.markGroups(ctx, "", groups)
}

// markGroups has the members of groups made pending in every partition.
func (c *Cache) markGroups(ctx context.Context, job string, groups []string) error {
	if len(groups) == 0 {
		return nil
	}
	problems := make([]error, len(c.store.All()))
	var marking sync.WaitGroup
	for i, p := range c.store.All() {
		marking.Go(func() {
			for part := range slices.Chunk(groups, partition.GroupsAtOnce) {
				if _, problems[i] = p.Mark(ctx, part, 0, job); problems[i] != nil {
					return
				}
			}
		})
	}
	marking.Wait()
	if err := errors.Join(problems...); err != nil {
		return c.unavailable(err)
	}
	c.kickRenderers()
	return nil
}

// parseGroups checks groups and returns the names under which they are known in the cache.
func (c *Cache) parseGroups(groups []string) ([]string, error) {
	for _, group := range groups {
		if err := field.ValidGroup(group); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrGroup, err)
		}
	}
	return c.rules.GroupsEverywhere(groups), nil
}

package scales

import (
	"context"
	"errors"
	"sync"

	"github.com/itscales/scales/internal/localcopy"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
)

// warm reads entries into the copy until it has all of them or is nearly full. Keys that come meanwhile may be missing.
func (rd *reader) warm(ctx context.Context) error {
	if rd.copy.Limit() == 0 {
		return nil
	}
	rd.start.Do(rd.follow)
	for i, p := range rd.cache.store.All() {
		select {
		case <-rd.copy.Part(i).Begun():
			if rd.isStopped() {
				return ErrClosed
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := rd.warmPart(ctx, p, rd.copy.Part(i)); err != nil {
			return err
		}
	}
	return nil
}

// What Warm reads at once, and up to where, in sixteenths of the limit: beyond that, one entry would push out another.
const (
	warmPage     = 1000
	warmParallel = 64
	warmUpTo     = 15
)

func (rd *reader) warmPart(ctx context.Context, p *partition.Partition, part *localcopy.Part[*representation.Representation]) error {
	for after := ""; ; {
		if rd.isStopped() {
			return ErrClosed
		}
		keys, err := p.Keys(ctx, after, warmPage)
		if err != nil {
			return rd.cache.unavailable(err)
		}
		if len(keys) == 0 {
			return nil
		}
		after = keys[len(keys)-1]
		var (
			group    sync.WaitGroup
			problems = make([]error, warmParallel)
		)
		for i := range warmParallel {
			group.Go(func() {
				for at := i; at < len(keys) && problems[i] == nil && rd.copy.Used() < rd.copy.Limit()/16*warmUpTo; at += warmParallel {
					if _, err := rd.fetch(ctx, part, keys[at]); errors.Is(err, ErrUnavailable) {
						problems[i] = err
					} else if ctx.Err() != nil {
						problems[i] = context.Cause(ctx)
					}
				}
			})
		}
		group.Wait()
		if err := errors.Join(problems...); err != nil {
			return err
		}
		if rd.copy.Used() >= rd.copy.Limit()/16*warmUpTo {
			return nil
		}
	}
}

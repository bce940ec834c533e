package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// groupTimeout bounds one phase, with the check that follows.
const groupTimeout = 3 * time.Minute

// groupWarmUp is how long writes go on before the first phase.
const groupWarmUp = time.Second

// A phase is what came of writes at a steady rate while the group changed, or did not.
type phase struct {
	p50, p99, max time.Duration // of the writes, each from when it was due
	reply         time.Duration // of the group change
	current       time.Duration // from the group change until the last member was current
	behind        time.Duration // p99 of the writes that were due until then
	length        time.Duration // of the phase
	renders       int64         // of members and pages

	here, workers, redis time.Duration // processor time
}

func (p phase) String() string {
	text := fmt.Sprintf("p50 %6.2f ms   p99 %7.2f ms   max %7.2f ms   renders %5d   %4.1f s   CPU %4.1f s here, %4.1f s workers, %4.1f s Redis",
		milliseconds(p.p50), milliseconds(p.p99), milliseconds(p.max), p.renders,
		p.length.Seconds(), p.here.Seconds(), p.workers.Seconds(), p.redis.Seconds())
	if p.current > 0 {
		text += fmt.Sprintf("\n            change answered after %.1f ms, last member current after %.2f s, p99 of the writes until then %.2f ms",
			milliseconds(p.reply), p.current.Seconds(), milliseconds(p.behind))
	}
	return text
}

// medianPhase returns the median of each value by itself.
func medianPhase(phases []phase) phase {
	return phase{
		p50:     medianBy(phases, func(p phase) time.Duration { return p.p50 }),
		p99:     medianBy(phases, func(p phase) time.Duration { return p.p99 }),
		max:     medianBy(phases, func(p phase) time.Duration { return p.max }),
		reply:   medianBy(phases, func(p phase) time.Duration { return p.reply }),
		current: medianBy(phases, func(p phase) time.Duration { return p.current }),
		behind:  medianBy(phases, func(p phase) time.Duration { return p.behind }),
		length:  medianBy(phases, func(p phase) time.Duration { return p.length }),
		renders: medianBy(phases, func(p phase) int64 { return p.renders }),
		here:    medianBy(phases, func(p phase) time.Duration { return p.here }),
		workers: medianBy(phases, func(p phase) time.Duration { return p.workers }),
		redis:   medianBy(phases, func(p phase) time.Duration { return p.redis }),
	}
}

// A groupSite is a site with a group, who writes to it, and who changes the group.
type groupSite struct {
	settings
	*site
	members []string // keys
	version int      // that members show when they are current
	writers *writers
	pages   *groupPages // the application, for changes by this process
	changer clients     // one
	change  request
}

// start returns when all members and pages are in the cache and some writes have been answered.
func (g *groupSite) start(ctx context.Context, redisURL string) (err error) {
	for i := range g.memberCount {
		g.members = append(g.members, memberKey(i))
	}
	keys := slices.Clone(g.members)
	for i := range groupPageCount {
		keys = append(keys, pageKey(i))
	}
	o := order{Redis: redisURL, Slots: g.slots, Group: &groupOrder{Limit: g.groupLimit, RenderTime: g.renderTime}}
	if g.site, err = startSite(ctx, o, layout{workers: siteWorkers}, keys...); err != nil {
		return err
	}
	g.pages = newGroupPages(g.rdb, g.order.state(), 0)
	if g.writers, err = newWriters(ctx, g.url, g.rate); err != nil {
		return err
	}
	if g.changer, err = connect(ctx, g.url+pageKey(0), 1); err != nil {
		return err
	}
	if g.change, err = newRequest(http.MethodPost, g.url+changeKey, ""); err != nil {
		return err
	}
	done := make(chan struct{})
	close(done)
	if _, err = g.writers.send(ctx, groupWarmUp, done); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return nil
}

// close ends everything that was started.
func (g *groupSite) close(ctx context.Context) error {
	g.changer.close()
	if g.writers != nil {
		g.writers.all.close()
	}
	if g.site == nil {
		return nil
	}
	return g.site.close(ctx)
}

// phase has writes sent while the group changes in that way. It is an error if a write or the change is not answered as it
// should be, if the reply to the change comes before GroupLimit members are current, or if a member or a page is not
// current in the end.
func (g *groupSite) phase(ctx context.Context, way int) (p phase, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, groupTimeout, fmt.Errorf("it took longer than %v", groupTimeout))
	defer cancel()
	before, err := g.settle(ctx)
	if err != nil {
		return p, err
	}
	runtime.GC()
	begun := time.Now()
	changed := make(chan struct{})
	var changeErr error // written before changed is closed
	go func() {
		defer close(changed)
		if way != quiet {
			p.reply, p.current, changeErr = g.changeGroup(ctx, way)
		}
	}()
	writes, err := g.writers.send(ctx, g.window, changed)
	<-changed
	p.length = time.Since(begun)
	if err = errors.Join(err, changeErr); err != nil {
		return p, err
	}
	after, err := g.settle(ctx)
	if err != nil {
		return p, err
	}
	all, behind := []time.Duration(nil), []time.Duration(nil)
	for _, w := range writes {
		all = append(all, w.latency)
		if w.due < p.current {
			behind = append(behind, w.latency)
		}
	}
	slices.Sort(all)
	p.p50, p.p99, p.max = all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
	if len(behind) > 0 {
		slices.Sort(behind)
		p.behind = behind[len(behind)*99/100]
	}
	p.renders, p.workers = after.Renders-before.Renders, after.CPU-before.CPU
	p.here, p.redis = after.others.process-before.others.process, after.others.redis-before.others.redis
	return p, g.checkAll(ctx)
}

// changeGroup changes what all members show, and returns how long that took, and how long it was until the last member
// was current.
func (g *groupSite) changeGroup(ctx context.Context, way int) (reply, current time.Duration, err error) {
	begun := time.Now()
	first := 0 // how many members are current when the change has been answered
	if way == byResponse {
		_, err = g.changer[0].send(g.change, http.StatusNoContent)
		first = min(g.groupLimit, len(g.members))
	} else if err = g.pages.raise(ctx); err == nil {
		err = g.cache.UpdateGroups(ctx, groupName)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the change of the group: %w", err)
	}
	reply = time.Since(begun)
	g.version++
	version := strconv.Itoa(g.version)
	// The limit is that of all partitions, of which there is one: these are the first members in byte order.
	if n, err := g.countCurrent(ctx, g.members[:first], version); err != nil || n < first {
		return 0, 0, errors.Join(err, fmt.Errorf("the change of the group was answered when only %d of the first %d members were current", n, first))
	}
	err = g.awaitMembers(ctx, g.members[first:], version)
	return reply, time.Since(begun), err
}

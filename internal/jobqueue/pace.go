package jobqueue

import (
	"math"
	"time"
)

const (
	// paceWindow is how far back a producer looks to tell how fast jobs are finished, in µs, and paceStretches how many pieces of
	// it are told apart.
	paceWindow    = 1_000_000
	paceStretches = 8

	// paceGap is how long nothing may be seen of the queue without what was seen before being forgotten, in µs.
	paceGap = 3_000_000

	// sureness is the part of a job's time that the jobs before it may take by what was measured. The rest is for what
	// changes meanwhile.
	sureness = 0.8

	// longestRetry is the longest that anybody is told to wait before another try.
	longestRetry = time.Minute
)

// A pace is how fast jobs are finished, by what a producer has seen in passing. It counts jobs of all servers, by Redis's clock.
// Nothing is measured while Redis is not asked; it is not safe for concurrent use.
type pace struct {
	stretches []stretch // the oldest first; none for what is longer ago than the window, but for the last one before it
	now       int64     // when it was seen last, in µs
	finished  int64     // how many jobs were finished ever, then
}

// A stretch is a piece of time: when it began, how many jobs were finished by then, and the shortest queue that was seen in it.
type stretch struct{ begin, finished, least int64 }

// see takes note of the queue: length is how many jobs were in it.
func (p *pace) see(now, finished, length int64) {
	const disorder = 1_000_000 // answers may arrive in another order
	switch {
	case now < p.now && p.now-now < disorder:
		return
	case now < p.now || now-p.now > paceGap || finished < p.finished:
		p.stretches = nil // another Redis, or nobody has looked for long
	}
	p.now, p.finished = now, finished
	n := len(p.stretches)
	if n == 0 || now-p.stretches[n-1].begin >= paceWindow/paceStretches {
		p.stretches = append(p.stretches, stretch{now, finished, length})
	} else {
		p.stretches[n-1].least = min(p.stretches[n-1].least, length)
	}
	for len(p.stretches) > 1 && p.stretches[1].begin <= now-paceWindow {
		p.stretches = p.stretches[1:]
	}
}

// measured returns how many jobs were finished per second, and the shortest queue, over the window. It is false before that
// was seen for long enough.
func (p *pace) measured() (perSecond float64, least int64, ok bool) {
	if len(p.stretches) == 0 || p.now-p.stretches[0].begin < paceWindow {
		return 0, 0, false
	}
	first := p.stretches[0]
	least = math.MaxInt64
	for _, s := range p.stretches {
		least = min(least, s.least)
	}
	return float64(p.finished-first.finished) / (float64(p.now-first.begin) / 1e6), least, true
}

// most returns how many jobs may be before one that has to be answered in time, of those that alive workers have slots for and
// the longest queue there may be. Where jobs do not wait for long, and where a slot was free, nothing says that it cannot be met:
//
//	what was finished per second is what there was to do, not what could have been done
//
// Of what runs, nobody knows how soon it is finished: the slots count as jobs that nearly were.
func (p *pace) most(patience time.Duration, slots, longest int64) int64 {
	perSecond, least, ok := p.measured()
	if !ok || 4*least < 3*slots || float64(least) < perSecond*patience.Seconds()/4 {
		return longest
	}
	perSecond += float64(slots) / (paceWindow / 1e6)
	return min(longest, max(slots, int64(math.Round(perSecond*patience.Seconds()*sureness))))
}

// retryAfter returns when there will be room again in a queue that has as many jobs as it may have, or more: at least a second.
func (p *pace) retryAfter(length, most int64) time.Duration {
	perSecond, _, ok := p.measured()
	if !ok || length < most {
		return time.Second
	}
	wait := longestRetry
	if seconds := float64(length-most+1) / perSecond; seconds < longestRetry.Seconds() {
		wait = time.Duration(math.Ceil(seconds)) * time.Second
	}
	return max(wait, time.Second)
}

package jobqueue

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	// paceMemory is how far back a producer knows how many jobs were finished, and paceStretch how long the pieces are that it tells
	// apart, in µs.
	paceMemory  = 60_000_000
	paceStretch = 250_000

	// paceGap is how long nothing may be seen of the queue without what was seen before being forgotten, in µs.
	paceGap = 3_000_000

	// evidence is the part of a job's time for which the queue has to be long, before anybody is refused.
	evidence = 0.25

	// sureness is the part of a job's time that the jobs before it may take by what was measured. The rest is for what
	// changes meanwhile.
	sureness = 0.8

	// stalled is the part of the rate over a job's whole time that is counted on where less was finished lately: workers that stand
	// still for a while go on.
	stalled = 0.5

	// unknownRetry is after how long another try makes sense where nothing is known.
	unknownRetry = 5 * time.Second
	// longestRetry is the longest that anybody is told to wait before another try.
	longestRetry = time.Minute
)

// A pace is how fast jobs are finished, by what a producer has seen in passing. It counts jobs of all servers, by Redis's clock.
// Nothing is measured while Redis is not asked; it is not safe for concurrent use.
type pace struct {
	stretches []stretch // the oldest first, as far back as paceMemory, and one more
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
	if n == 0 || now-p.stretches[n-1].begin >= paceStretch {
		p.stretches = append(p.stretches, stretch{now, finished, length})
	} else {
		p.stretches[n-1].least = min(p.stretches[n-1].least, length)
	}
	for len(p.stretches) > 1 && p.stretches[1].begin <= now-paceMemory {
		p.stretches = p.stretches[1:]
	}
}

// over returns how many jobs were finished per second, and the shortest queue, over the latest time of that length, or a little
// longer. whole says that all of it was seen; otherwise it is as much as was.
func (p *pace) over(window time.Duration) (perSecond float64, least int64, whole bool) {
	least = math.MaxInt64
	since := p.now - window.Microseconds()
	for i := len(p.stretches) - 1; i >= 0; i-- {
		s := p.stretches[i]
		least = min(least, s.least)
		if seconds := float64(p.now-s.begin) / 1e6; seconds > 0 {
			perSecond = float64(p.finished-s.finished) / seconds
		}
		if s.begin <= since {
			return perSecond, least, true
		}
	}
	return perSecond, least, false
}

// rate returns how many jobs a second are counted on by one that has so much time. It is false where nothing says that one could be
// too late: nobody has looked for long enough; or within a quarter of that time a slot was free, or the jobs that were there had not
// to wait for as long. For
//
//	what was finished per second is what there was to do, not what could have been done
//
// A quarter of the time is also what makes bursts even: jobs that wait for the same render are finished together.
func (p *pace) rate(patience time.Duration, slots int64) (perSecond float64, ok bool) {
	part := max(time.Duration(float64(patience)*evidence), time.Second)
	if part.Microseconds() > paceMemory {
		return 0, false
	}
	perSecond, least, whole := p.over(part)
	if !whole || 4*least < 3*slots || float64(least) < perSecond*part.Seconds() {
		return 0, false
	}
	before, _, _ := p.over(patience)
	return max(perSecond, before*stalled), true
}

// most returns how many jobs may be before one that has to be answered in time. Those that workers have slots for always may.
func (p *pace) most(patience time.Duration, slots, longest int64) int64 {
	perSecond, ok := p.rate(patience, slots)
	if !ok {
		return longest
	}
	return min(longest, slots+int64(perSecond*patience.Seconds()*sureness))
}

// retryAfter returns when there will be room again in a queue that has as many jobs as it may have, or more: full seconds, at least
// one. It is not the same for all, lest all come back at once: up to twice as long.
func (p *pace) retryAfter(patience time.Duration, slots, length, most int64) time.Duration {
	wait := time.Second
	if perSecond, ok := p.rate(patience, slots); ok && length >= most {
		wait = unknownRetry
		if perSecond > 0 {
			seconds := math.Ceil(float64(length-most+1) / perSecond)
			wait = time.Duration(min(seconds, longestRetry.Seconds())) * time.Second
		}
	}
	return wait + rand.N(wait/time.Second+1)*time.Second
}

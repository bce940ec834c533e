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

	// evidence is the part of a job's time for which the queue has to be long, before anybody is refused, and evidenceFree that
	// where slots are free: what is there waits for renders then, and those of many jobs may be finished at once.
	evidence, evidenceFree = 0.25, 0.5

	// sureness is the part of a job's time that the jobs before it may take by what was measured. The rest is for what
	// changes meanwhile.
	sureness = 0.8

	// stalled is the part of the earlier rate that is counted on where less was finished lately: workers that stand still for a
	// while go on.
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

// A stretch is a piece of time: when it began, how many jobs were finished by then, and the shortest queue that was seen in it, with
// and without the jobs whose handlers have returned.
type stretch struct{ begin, finished, least, leastBusy int64 }

// unseen is how many jobs wait for a slot, or have one, for who has not looked.
const unseen = math.MaxInt64

// see takes note of the queue: length is how many jobs were in it, and busy how many of them were not decided, or unseen.
func (p *pace) see(now, finished, length, busy int64) {
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
		p.stretches = append(p.stretches, stretch{now, finished, length, busy})
	} else {
		last := &p.stretches[n-1]
		last.least, last.leastBusy = min(last.least, length), min(last.leastBusy, busy)
	}
	for len(p.stretches) > 1 && p.stretches[1].begin <= now-paceMemory {
		p.stretches = p.stretches[1:]
	}
}

// over returns how many jobs were finished per second, and the shortest queue, with and without decided jobs, over the latest time of
// that length, or a little longer. whole says that all of it was seen; otherwise it is as much as was.
func (p *pace) over(window time.Duration) (perSecond float64, least, busy int64, whole bool) {
	least, busy = math.MaxInt64, unseen
	since := p.now - window.Microseconds()
	for i := len(p.stretches) - 1; i >= 0; i-- {
		s := p.stretches[i]
		least, busy = min(least, s.least), min(busy, s.leastBusy)
		if seconds := float64(p.now-s.begin) / 1e6; seconds > 0 {
			perSecond = float64(p.finished-s.finished) / seconds
		}
		if s.begin <= since {
			return perSecond, least, busy, true
		}
	}
	return perSecond, least, busy, false
}

// before returns how many jobs were finished per second in the time of that length before the latest part. It is false where none was
// seen to be, and not so long a time was seen in all.
func (p *pace) before(part, length time.Duration) (perSecond float64, ok bool) {
	until, since := p.now-part.Microseconds(), p.now-(part+length).Microseconds()
	var last *stretch
	for i := len(p.stretches) - 1; i >= 0; i-- {
		s := &p.stretches[i]
		if s.begin > until {
			continue
		}
		if last == nil {
			last = s
			continue
		}
		perSecond = float64(last.finished-s.finished) / (float64(last.begin-s.begin) / 1e6)
		if s.begin <= since {
			break
		}
	}
	first := p.stretches[0].begin
	return perSecond, perSecond > 0 || p.now-first >= length.Microseconds()
}

// rate returns how many jobs a second are counted on by one that has so much time. It is false where nothing says that one could be
// too late: nobody has looked for long enough, which is for the whole of that time where no job was seen to be finished before; or within
// that part of that time that is evidence few jobs were there, or none that had to wait for as long. For
//
//	what was finished per second is what there was to do, not what could have been done
//
// The part is also what makes bursts even: jobs that wait for the same render are finished together.
func (p *pace) rate(patience time.Duration, slots int64) (perSecond float64, ok bool) {
	for _, share := range [...]float64{evidence, evidenceFree} {
		part := max(time.Duration(float64(patience)*share), time.Second)
		if part.Microseconds() > paceMemory {
			return 0, false
		}
		perSecond, least, busy, whole := p.over(part)
		if !whole || 4*least < 3*slots || float64(least) < perSecond*part.Seconds() {
			return 0, false
		}
		if free := 4*busy < 3*slots; !free || share == evidenceFree {
			before, ok := p.before(part, patience)
			return max(perSecond, before*stalled), ok
		}
	}
	return 0, false
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

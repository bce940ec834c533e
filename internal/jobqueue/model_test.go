package jobqueue_test

import (
	"slices"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
)

type place int

const (
	nowhere place = iota // Redis has not taken the job
	queued
	delivered
	answered
	buried
	withdrawn
)

// A job is one request, and what is to be known of it.
type job struct {
	id, name, request string
	server            string // that its record names
	deadline          int64
	repeatable        bool
	replayed, drifted bool // it was a dead letter, which may have been carried out
	tracked           bool
	scope, payload    string // scope is "" for none

	at         string // in the stream of jobs; "" until somebody has seen it there
	place      place
	owner      string // the id of a consumer
	deliveries int64
	decided    bool
	held, owed string
	executions int

	// What is kept of a job that is tracked; known ends when that is forgotten.
	known   bool
	bound   bool // others of its scope are this one
	latest  int64
	token   string // "" for none
	bytes   int
	kept    bool
	reply   string
	due     bool // it has lived its time, and is forgotten by the next who looks
	waiters []waiter
}

// there says whether a job is in the queue, be it waiting or running.
func (j *job) there() bool { return j.place == queued || j.place == delivered }

// A waiter is who waits for a tracked job, under which id.
type waiter struct{ server, id string }

// A call is a round trip that enqueues.
type call struct {
	jobs []*job
	said []said // what came of it, once it was executed
}

type outcome int

const (
	wasTaken outcome = iota
	wasFull
	wasCrowded
	wasOther // another payload under the same scope
	wasJoined
	wasKept
)

// said is what is said of a job that was to be enqueued, and about which job of its scope.
type said struct {
	outcome outcome
	of      *job
}

// A settlement is a step of a job that a worker has.
type settlement struct {
	jobqueue.Settlement
	job   *job
	frees bool
}

// A model is what a queue has to be, in maps and slices. Its methods do what a call does in Redis, so each may be called as
// often as the call is executed.
type model struct {
	limit      int // of the queue
	tracking   jobqueue.Limit
	queue      []*job // in the order in which Redis took them
	known      []*job // that are tracked
	dead       []*letter
	died       int                          // jobs that were not replayed
	drifts     int                          // those that may have been carried out
	workers    map[string]int               // beats of those that are known, by id; no worker has as many twice
	withdrawn  map[string]bool              // ids of jobs, and of who was the last to leave them
	unread     map[string]map[string]string // records of replies by server and who waits
	beats      int
	duplicates []string // ids of who was answered twice
}

// A letter is a dead letter.
type letter struct {
	job     *job
	reason  string
	drifted bool
	at      string // in the stream of dead letters; "" until somebody has seen it there
}

func newModel(limit int, tracking jobqueue.Limit) *model {
	return &model{
		limit: limit, tracking: tracking, workers: make(map[string]int),
		withdrawn: make(map[string]bool), unread: make(map[string]map[string]string),
	}
}

func (m *model) bytes() (n int) {
	for _, j := range m.known {
		n += j.bytes
	}
	return n
}

// enqueue is a call of servers. Executed again it says what it has said.
func (m *model) enqueue(c *call) []said {
	if c.said == nil {
		for _, j := range c.jobs {
			c.said = append(c.said, m.add(j))
		}
	}
	return c.said
}

func (m *model) add(j *job) said {
	if j.tracked {
		m.sweep()
		if of := m.ofScope(j.scope); of != nil {
			return m.join(j, of)
		}
		if len(m.known) >= m.tracking.Jobs || int64(m.bytes()) >= m.tracking.Bytes {
			return said{wasCrowded, j}
		}
	}
	if len(m.queue) >= m.limit {
		return said{wasFull, j}
	}
	j.place = queued
	m.queue = append(m.queue, j)
	if j.tracked {
		j.known, j.bound, j.latest, j.bytes = true, j.scope != "", j.deadline, len(j.request)
		j.waiters = []waiter{{j.server, j.id}}
		m.known = append(m.known, j)
	}
	return said{wasTaken, j}
}

// ofScope returns the job that all of a scope are.
func (m *model) ofScope(scope string) *job {
	for _, j := range m.known {
		if scope != "" && j.bound && j.scope == scope {
			return j
		}
	}
	return nil
}

func (m *model) join(j, of *job) said {
	switch {
	case j.payload != of.payload:
		return said{wasOther, of}
	case of.kept:
		return said{wasKept, of}
	}
	of.waiters = append(of.waiters, waiter{j.server, j.id})
	of.latest = max(of.latest, j.deadline)
	return said{wasJoined, of}
}

// sweep forgets the tracked jobs that have lived their time. One in the queue lives on.
func (m *model) sweep() {
	for _, j := range slices.Clone(m.known) {
		if j.due && !j.there() {
			m.forget(j)
		}
		j.due = false
	}
}

func (m *model) forget(j *job) {
	j.known, j.bound, j.token, j.bytes, j.kept, j.reply, j.due, j.waiters = false, false, "", 0, false, "", false, nil
	m.known = slices.DeleteFunc(m.known, func(one *job) bool { return one == j })
}

// remove takes a job out of the queue.
func (m *model) remove(j *job, to place) {
	j.place, j.owner, j.decided, j.held, j.owed = to, "", false, "", ""
	m.queue = slices.DeleteFunc(m.queue, func(one *job) bool { return one == j })
}

// waiting returns the jobs that nobody has had.
func (m *model) waiting() (jobs []*job) {
	for _, j := range m.queue {
		if j.place == queued {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// replay makes a job of a dead letter again, for whose reply nobody waits.
func (m *model) replay(l *letter) error {
	switch {
	case !slices.Contains(m.dead, l):
		return nil // it was replayed
	case len(m.queue) >= m.limit:
		return jobqueue.ErrFull
	}
	m.dead = slices.DeleteFunc(m.dead, func(one *letter) bool { return one == l })
	m.queue = append(m.queue, &job{
		id: l.job.id, name: l.job.name, request: l.job.request, server: jobqueue.Nobody, repeatable: l.job.repeatable,
		replayed: true, drifted: l.drifted, place: queued,
	})
	return nil
}

// fetch gives the first jobs that wait to a consumer.
func (m *model) fetch(consumer string, n int) []*job {
	jobs := m.waiting()
	jobs = jobs[:min(n, len(jobs))]
	for _, j := range jobs {
		j.place, j.owner, j.deliveries = delivered, consumer, 1
	}
	return jobs
}

// owned returns the jobs of a consumer.
func (m *model) owned(consumer string) (jobs []*job) {
	for _, j := range m.queue {
		if j.place == delivered && j.owner == consumer {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// beat is a heartbeat. False means that the worker is not known; to join makes it known.
func (m *model) beat(consumer string, join bool) bool {
	m.sweep()
	if m.workers[consumer] == 0 && !join {
		return false
	}
	m.beats++
	m.workers[consumer] = m.beats
	return true
}

// others returns the beats of all other workers, 0 for one that owns jobs and is not known.
func (m *model) others(consumer string) map[string]int {
	others := make(map[string]int)
	for id, beats := range m.workers {
		others[id] = beats
	}
	for _, j := range m.queue {
		if j.place == delivered {
			others[j.owner] = m.workers[j.owner]
		}
	}
	delete(others, consumer)
	return others
}

// takeOver gives the jobs of a dead worker to another one.
func (m *model) takeOver(dead, consumer string) {
	for _, j := range m.owned(dead) {
		j.owner = consumer
		j.deliveries++
	}
	delete(m.workers, dead)
}

// A sight is a heartbeat as another worker has seen it first.
type sight struct {
	beats int
	since time.Time
}

// An observer is what a worker has seen of the others.
type observer struct {
	sights map[string]sight
	looked time.Time
}

// look returns whose heartbeats have stood still for a whole lease, in which the observer was never away for half of one.
func (o *observer) look(others map[string]int, now time.Time) (dead []string) {
	if now.Sub(o.looked) > lease/2 || o.sights == nil {
		o.sights = make(map[string]sight)
	}
	o.looked = now
	seen := make(map[string]sight)
	for id, beats := range others {
		if was, ok := o.sights[id]; ok && was.beats == beats {
			seen[id] = was
		} else {
			seen[id] = sight{beats, now}
		}
		if now.Sub(seen[id].since) >= lease {
			dead = append(dead, id)
		}
	}
	o.sights = seen
	slices.Sort(dead)
	return dead
}

package jobqueue_test

import (
	"slices"
	"strings"

	"github.com/itscales/scales/internal/jobqueue"
)

// A settled is what came of a settlement.
type settled struct{ moved, extended bool }

// settle takes steps of jobs with one call, which may not reach all servers that wait: then a step is left out.
func (m *model) settle(steps []settlement, reaches func(server string) bool) []settled {
	results := make([]settled, len(steps))
	for i, s := range steps {
		j, d := s.job, s.Delivery
		switch {
		case j.place != delivered || j.owner != d.Consumer || j.deliveries != d.Deliveries:
		case s.Kind == "expire" && j.known && j.latest > longAgo:
			results[i].extended = true
		case s.Kind != "decide" && slices.ContainsFunc(j.waiters, func(w waiter) bool { return !reaches(w.server) }):
		default:
			results[i].moved = true
			m.move(s)
		}
	}
	return results
}

func everybody(string) bool { return true }

func (m *model) move(s settlement) {
	j := s.job
	if s.frees {
		j.bound = false
	}
	switch s.Kind {
	case "decide":
		j.decided, j.held, j.owed = true, s.First, s.Second
		return
	case "release":
		m.answer(j, s.First+"\n"+j.held)
		m.remove(j, answered)
		return
	case "finish", "expire":
		m.answer(j, s.First)
		m.remove(j, answered)
		return
	}
	drifted := j.drifted || s.Kind == "lose"
	if drifted && !j.drifted {
		m.drifts++
	}
	if !j.replayed {
		m.died++
	}
	m.dead = append(m.dead, &letter{job: j, reason: s.Second, drifted: drifted})
	m.answer(j, s.First)
	m.remove(j, buried)
}

// answer sends the reply to all who wait, and keeps it if somebody may ask for it.
func (m *model) answer(j *job, record string) {
	if j.server == jobqueue.Nobody {
		return
	}
	if !j.tracked {
		m.send(waiter{j.server, j.id}, record)
		return
	}
	for _, w := range j.waiters {
		m.send(w, record)
	}
	if !j.bound && j.token == "" {
		m.forget(j)
		return
	}
	j.kept, j.reply, j.bytes, j.due, j.waiters = true, record, len(record), false, nil
}

func (m *model) send(to waiter, record string) {
	if m.unread[to.server] == nil {
		m.unread[to.server] = make(map[string]string)
	}
	if _, ok := m.unread[to.server][to.id]; ok {
		m.duplicates = append(m.duplicates, to.id)
	}
	m.unread[to.server][to.id] = record
}

// leave has somebody wait no longer for a tracked job, and reports whether the job goes on without him.
func (m *model) leave(j *job, w waiter) bool {
	j.waiters = slices.DeleteFunc(j.waiters, func(one waiter) bool { return one == w })
	return len(j.waiters) > 0 || j.token != ""
}

// withdraw is a caller who waits no longer. With a token the job goes on without him.
func (m *model) withdraw(w waiter, j *job, token string) string {
	switch {
	case m.withdrawn[w.id] || m.withdrawn[j.id]:
		return "withdrawn"
	case token != "":
		return m.accept(w, j, token)
	case !j.there():
		return "gone"
	case j.place == delivered:
		m.leave(j, w)
		return "started"
	case m.leave(j, w):
		return "shared"
	}
	m.remove(j, withdrawn)
	if j.tracked {
		m.forget(j)
	}
	m.withdrawn[w.id], m.withdrawn[j.id] = true, true
	return "withdrawn"
}

func (m *model) accept(w waiter, j *job, token string) string {
	if !j.known || !j.there() && j.token == "" {
		return "gone"
	}
	if j.token == "" {
		j.token = token
	}
	if j.there() {
		m.leave(j, w)
	}
	return "accepted:" + j.token
}

// track tells how far a job has come, to who has a token, and the record of its reply.
func (m *model) track(j *job, token string) (jobqueue.State, string) {
	switch {
	case !j.known || j.token != token:
		return 0, ""
	case j.kept:
		return jobqueue.Answered, j.reply
	case j.place == delivered:
		return jobqueue.Running, ""
	case j.place == queued:
		return jobqueue.Queued, ""
	}
	return 0, ""
}

// replyOf reads a record of a reply.
func replyOf(record string) jobqueue.Reply {
	log, text, _ := strings.Cut(record, "\n")
	return jobqueue.Reply{Log: log, Text: text}
}

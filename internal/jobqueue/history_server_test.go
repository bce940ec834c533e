package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/itscales/scales/internal/jobqueue"
)

// A server is a producer and who waits there.
type server struct {
	name     string
	producer *jobqueue.Producer
	gone     bool
	callers  []*caller // who wait
}

// A caller waits for a job: that of its own id, or another one of its scope.
type caller struct {
	id      string
	handle  *jobqueue.Caller
	job     *job
	at      string // where the job is, as far as the caller knows
	unknown bool   // whether the job was taken; it is told so in the end, and may be told a reply before
}

// An acceptance is what a caller knows who was answered before there was a reply.
type acceptance struct {
	job   *job
	token string
}

func (h *history) startServer() {
	s := &server{name: h.name("s"), producer: jobqueue.NewProducer(h.config)}
	h.names[s.producer.Server()] = s.name
	h.servers = append(h.servers, s)
	h.note("%s starts", s.name)
}

func (h *history) present() (servers []*server) {
	for _, s := range h.servers {
		if !s.gone {
			servers = append(servers, s)
		}
	}
	return servers
}

// replaceServer has a server go away without a word, and another one come.
func (h *history) replaceServer(context.Context) (bool, error) {
	s := pick(h, h.present())
	h.note("%s goes away", s.name)
	s.gone, s.callers = true, nil
	h.startServer()
	return true, nil
}

// newJob returns a job for a server: idempotent or not, tracked or not, for one of few scopes, in time or too late.
func (h *history) newJob(s *server) *job {
	j := &job{
		id: fmt.Sprintf("%016x%016x", h.random.Uint64(), h.random.Uint64()), name: h.name("j"), server: s.producer.Server(),
		repeatable: h.oneIn(2), tracked: h.oneIn(2), payload: "-",
	}
	h.names[j.id] = j.name
	method := "POST"
	if j.repeatable {
		method = "PUT"
	}
	if j.tracked && !h.oneIn(3) {
		j.scope, j.payload = pick(h, []string{"a", "b"}), "x"
		if h.oneIn(6) {
			j.payload = "y"
		}
	}
	j.request = method + " " + j.name + strings.Repeat(".", h.n(20))
	if h.far++; h.oneIn(5) {
		j.deadline = 1 + int64(h.n(1000))
	} else {
		j.deadline = h.far
	}
	return j
}

// enqueue has a server send jobs with one call.
func (h *history) enqueue(ctx context.Context) (bool, error) {
	s := pick(h, h.present())
	c, f := &call{}, h.fate()
	var (
		jobs    []jobqueue.Job
		callers []*caller
		names   []string
	)
	for range 1 + h.n(3) {
		j := h.newJob(s)
		handle, err := s.producer.Register(j.id)
		if err != nil {
			return true, err
		}
		request := jobqueue.Job{ID: j.id, Scheme: "http", Remote: "192.0.2.9:1", Request: j.request, Deadline: j.deadline}
		if j.tracked {
			request.Tracking = jobqueue.Tracking{Keep: time.Hour, Scope: j.scope, Payload: j.payload}
		}
		c.jobs, jobs = append(c.jobs, j), append(jobs, request)
		callers = append(callers, &caller{id: j.id, handle: handle})
		names = append(names, describe(j))
	}
	name := fmt.Sprintf("%s enqueues %s", s.name, strings.Join(names, ", "))
	h.note("%s%s", name, f)
	h.link.disturb(jobs[0].ID, f)
	results, err := s.producer.Enqueue(jobs...)
	sent := h.link.leave()
	if f.executed() {
		h.model.enqueue(c)
	}
	h.keep(name, sent, func(drained bool) bool { return !drained || c.said != nil }, func(_ []any, reply any) {
		if said := fmt.Sprint(reply); c.said == nil && strings.Contains(said, "late") {
			return // it was too slow for its time limit
		}
		h.model.enqueue(c)
	})
	h.counts.jobs += len(jobs)
	switch {
	case !f.answered() && !errors.Is(err, errBroken):
		return true, violated("a call without an answer says %v", err)
	case !f.answered():
		for i, caller := range callers {
			caller.job, caller.unknown = c.jobs[i], true
		}
		s.callers = append(s.callers, callers...)
		return true, nil
	case err != nil:
		return true, err
	}
	for i, result := range results {
		if err := h.checkEnqueued(ctx, s, callers[i], c.said[i], result); err != nil {
			return true, err
		}
	}
	return true, nil
}

func describe(j *job) string {
	is := j.name
	if j.repeatable {
		is += " repeatable"
	}
	if j.tracked {
		is += " tracked " + strings.TrimRight(j.scope+" "+j.payload, " -")
	}
	if j.deadline < longAgo {
		is += " too late"
	}
	return is
}

// checkEnqueued checks what a caller is told of its job, and what the server knows of it.
func (h *history) checkEnqueued(ctx context.Context, s *server, c *caller, what said, result jobqueue.Enqueued) error {
	want, of := map[outcome]error{wasFull: jobqueue.ErrFull, wasCrowded: jobqueue.ErrCrowded, wasOther: jobqueue.ErrPayload}, what.of
	c.job = of
	switch what.outcome {
	case wasTaken:
		if result.Err != nil || result.At == "" || result.Joined != "" || result.Kept != "" {
			return violated("%s was taken, and that is said to be %+v", of.name, result)
		}
		if of.at == "" {
			of.at = result.At
		}
	case wasJoined:
		h.counts.joins++
		if result.Err != nil || result.Joined != of.id {
			return violated("%s was joined by %s, and that is said to be %+v", of.name, h.names[c.id], result)
		}
	case wasKept:
		reply, told, err := c.handle.Outcome(ctx)
		want := replyOf(of.reply)
		want.Job, want.Stored = of.id, true
		if !told || err != nil || reply != want {
			return violated("%s is told %+v (%t, %v), not what is kept of %s", h.names[c.id], reply, told, err, of.name)
		}
		c.handle.Leave()
		return nil
	default:
		_, told, err := c.handle.Outcome(ctx)
		if !told || !errors.Is(err, want[what.outcome]) {
			return violated("%s is told %v (%t), not %v", h.names[c.id], err, told, want[what.outcome])
		}
		c.handle.Leave()
		return nil
	}
	if result.At != of.at && of.at != "" {
		return violated("%s is said to be at %s, and is at %s", of.name, result.At, of.at)
	}
	c.at = result.At
	s.callers = append(s.callers, c)
	return nil
}

// withdraw has callers of a server wait no longer, with one call. Some are to be told that the job goes on.
func (h *history) withdraw(context.Context) (bool, error) {
	s := pick(h, h.present())
	leaving := slices.DeleteFunc(slices.Clone(s.callers), func(c *caller) bool { return c.at == "" })
	if len(leaving) == 0 {
		return false, nil
	}
	leaving = some(h, leaving, 3)
	f := h.fate()
	var (
		withdrawals []jobqueue.Withdrawal
		names       []string
	)
	for _, c := range leaving {
		w := jobqueue.Withdrawal{ID: c.id, At: c.at}
		name := h.names[c.id] + " of " + c.job.name
		if c.job.tracked {
			if w.Job = c.job.id; h.oneIn(3) {
				w.Token = h.name("t")
				name += " for " + w.Token
			}
		}
		withdrawals, names = append(withdrawals, w), append(names, name)
	}
	apply := func() (fates []string) {
		for i, w := range withdrawals {
			fates = append(fates, h.model.withdraw(waiter{s.producer.Server(), w.ID}, leaving[i].job, w.Token))
		}
		return fates
	}
	name := fmt.Sprintf("%s withdraws %s", s.name, strings.Join(names, ", "))
	h.note("%s%s", name, f)
	h.link.disturb(leaving[0].id, f)
	said, err := s.producer.Withdraw(withdrawals...)
	h.keep(name, h.link.leave(), always, func([]any, any) { apply() })
	var want []string
	if f.executed() {
		want = apply()
	}
	if f == twice {
		want = apply()
	}
	if !f.answered() {
		if !errors.Is(err, errBroken) {
			return true, violated("a call without an answer says %v", err)
		}
		for _, c := range leaving { // it is told that the outcome is not known
			h.goes(s, c)
		}
		return true, nil
	}
	if err != nil {
		return true, err
	}
	if !slices.Equal(said, want) {
		return true, violated("who leave %s are told %q, not %q", strings.Join(names, ", "), said, want)
	}
	for i, c := range leaving {
		h.left(s, c, withdrawals[i], said[i])
	}
	return true, nil
}

// left is what becomes of a caller that was told what its withdrawal has come to.
func (h *history) left(s *server, c *caller, w jobqueue.Withdrawal, said string) {
	switch {
	case said == "gone": // its reply is on its way
		return
	case said == "withdrawn":
		h.counts.withdrawals++
	case w.Token != "":
		h.accepted = append(h.accepted, acceptance{c.job, strings.TrimPrefix(said, "accepted:")})
	}
	h.goes(s, c)
}

func (h *history) goes(s *server, c *caller) {
	c.handle.Leave()
	s.callers = slices.DeleteFunc(s.callers, func(one *caller) bool { return one == c })
}

// readReplies has a server read the replies that are there. Each caller is told its own, and nobody else anything.
func (h *history) readReplies(ctx context.Context) (bool, error) {
	s := pick(h, h.present())
	h.note("%s reads replies", s.name)
	return true, h.readRepliesOf(ctx, s)
}

func (h *history) readRepliesOf(ctx context.Context, s *server) error {
	ids, err := s.producer.ReadReplies(ctx)
	if err != nil {
		return err
	}
	unread := h.model.unread[s.producer.Server()]
	delete(h.model.unread, s.producer.Server())
	if len(ids) != len(unread) {
		return violated("%d replies are read, not %d", len(ids), len(unread))
	}
	for _, id := range ids {
		if _, ok := unread[id]; !ok {
			return violated("a reply to %s is read that nobody has sent", h.names[id])
		}
	}
	for _, c := range slices.Clone(s.callers) {
		record, expected := unread[c.id]
		reply, told, err := c.handle.Outcome(ctx)
		switch {
		case told != expected || err != nil:
			return violated("%s of %s is told %+v (%t, %v), and there is %q for it", h.names[c.id], c.job.name, reply, told, err, record)
		case told && reply != replyOf(record):
			return violated("%s is told %+v, not %q", h.names[c.id], reply, record)
		case told && !c.unknown && !strings.HasPrefix(reply.Text, c.job.name+" "):
			return violated("%s is told the reply of another job than %s: %+v", h.names[c.id], c.job.name, reply)
		case told:
			h.goes(s, c)
		}
	}
	return nil
}

// ask has somebody ask for a job that was accepted.
func (h *history) ask(ctx context.Context) (bool, error) {
	if len(h.accepted) == 0 {
		return false, nil
	}
	a := pick(h, h.accepted)
	h.note("somebody asks for %s", a.job.name)
	state, reply, err := jobqueue.Track(ctx, h.client, h.config.Prefix, a.job.id+"."+a.token)
	want, record := h.model.track(a.job, a.token)
	if want == 0 && errors.Is(err, jobqueue.ErrUntracked) {
		return true, nil
	}
	wanted := replyOf(record)
	if want == jobqueue.Answered {
		wanted.Job, wanted.Stored = a.job.id, true
	}
	if err != nil || state != want || reply != wanted {
		return true, violated("%s is in state %v with %+v (%v), not in %v with %+v", a.job.name, state, reply, err, want, wanted)
	}
	return true, nil
}

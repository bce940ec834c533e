package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/itscales/scales/internal/jobqueue"
)

// A worker is a consumer and the jobs that it has in hand. It does with them what a shift does.
type worker struct {
	name     string
	consumer *jobqueue.Consumer
	dead     bool
	stalled  bool // its heart does not beat
	doubt    bool // jobs may be its own that are not in hand
	observer observer
	listed   []*job // its own, to be loaded
	hands    []*hand
}

// A hand is a job in hand.
type hand struct {
	d        *jobqueue.Delivery
	job      *job
	extended bool
	next     *settlement // nil before it is begun
}

func (h *history) startWorker(ctx context.Context) (*worker, error) {
	w := &worker{name: h.name("w"), consumer: jobqueue.NewConsumer(h.config, lease, 1)}
	h.workers = append(h.workers, w)
	h.note("%s starts", w.name)
	h.model.beat(w.consumer.ID(), true)
	h.names[w.consumer.ID()] = w.name
	return w, w.consumer.Join(ctx)
}

func (h *history) living() (workers []*worker) {
	for _, w := range h.workers {
		if !w.dead {
			workers = append(workers, w)
		}
	}
	return workers
}

// replaceWorker has a worker die and another one start.
func (h *history) replaceWorker(ctx context.Context) (bool, error) {
	w := pick(h, h.living())
	h.note("%s dies", w.name)
	w.dead = true
	_, err := h.startWorker(ctx)
	return true, err
}

// stall has the heart of a worker stop, or beat again. It may work all the same.
func (h *history) stall(context.Context) (bool, error) {
	w := pick(h, h.living())
	w.stalled = !w.stalled
	h.note("the heart of %s stands still: %t", w.name, w.stalled)
	return true, nil
}

// pass has time pass: half a lease, and a heartbeat of everybody who can.
func (h *history) pass(ctx context.Context) (bool, error) {
	h.now = h.now.Add(lease / 2)
	for _, w := range some(h, h.living(), 100) {
		if w.stalled {
			continue
		}
		if err := h.beat(ctx, w); err != nil {
			return true, err
		}
	}
	return true, nil
}

// beat is a heartbeat, and the take-over of what has expired.
func (h *history) beat(ctx context.Context, w *worker) error {
	id, f := w.consumer.ID(), h.fate()
	known := h.model.workers[id] != 0
	watching, others := w.observer, h.model.others("")
	if known {
		others = h.model.others(id)
	}
	dead := watching.look(others, h.now)
	text := id
	overtaking := f != arrives && len(dead) == 1 && h.oneIn(2)
	if overtaking { // it is the take-over that is disturbed
		text = dead[0]
	}
	h.note("%s beats%s and takes over %d", w.name, f, len(dead))
	h.link.disturb(text, f)
	doubt, err := w.consumer.BeatAt(ctx, h.now)
	sent := h.link.leave()
	if f.executed() || overtaking {
		h.model.beat(id, false)
	}
	now := w.consumer.ID()
	if want := w.doubt || len(dead) > 0 && (f.answered() || overtaking); doubt != want {
		return violated("%s is in doubt: %t, not %t", w.name, doubt, want)
	}
	w.doubt = false
	if !f.answered() && !errors.Is(err, errBroken) {
		return violated("a call without an answer says %v", err)
	}
	if f.answered() && err != nil {
		return err
	}
	if !f.answered() && !overtaking {
		return nil
	}
	if known != (now == id) {
		return violated("%s is known: %t, and its name is still the same: %t", w.name, known, now == id)
	}
	if f == twice && !overtaking {
		h.model.beat(id, false)
	}
	if !known {
		h.names[now] = fmt.Sprintf("%s'", h.names[id])
		h.model.beat(now, true)
	}
	w.observer = watching
	for _, one := range dead {
		h.takeOver(one, others[one], now, sent, overtaking, f)
	}
	return nil
}

// takeOver has the model do what a beat does with a worker that is dead.
func (h *history) takeOver(dead string, beats int, owner string, sent [][]any, overtaking bool, f fate) {
	apply := func() {
		if h.model.workers[dead] != beats {
			return // it lives, or was taken over before
		}
		for _, j := range h.model.owned(dead) {
			h.counts.takeovers++
			if j.decided {
				h.counts.decidedTaken++
			}
		}
		h.model.takeOver(dead, owner)
	}
	if overtaking {
		ready := func(drained bool) bool { return !drained } // who is dead and owns nothing is forgotten
		h.keep(h.names[owner]+" takes over "+h.names[dead], sent, ready, func([]any, any) { apply() })
	}
	if !overtaking || f.executed() {
		apply()
	}
}

// fetch has a worker take jobs that nobody had: the oldest.
func (h *history) fetch(ctx context.Context) (bool, error) {
	if len(h.model.waiting()) == 0 {
		return false, nil
	}
	w := pick(h, h.living())
	return true, h.fetchBy(ctx, w, h.fate())
}

func (h *history) fetchBy(ctx context.Context, w *worker, f fate) error {
	if f == twice {
		f = unanswered // the second answer would be late, as there may be no further job
	}
	id, n := w.consumer.ID(), 1+h.n(3)
	name := fmt.Sprintf("%s fetches %d", w.name, n)
	h.note("%s%s", name, f)
	h.link.disturb(id, f)
	deliveries, err := w.consumer.Fetch(ctx, n)
	sent := h.link.leave()
	if f == delayed {
		ready := func(drained bool) bool { return !drained && len(h.model.waiting()) > 0 }
		h.keep(name, sent, ready, func([]any, any) { h.model.fetch(id, n) })
	}
	var want []*job
	if f.executed() {
		want = h.model.fetch(id, n)
	}
	if !f.answered() {
		if !errors.Is(err, errBroken) {
			return violated("a call without an answer says %v", err)
		}
		w.doubt = true
		return nil
	}
	if err != nil {
		return err
	}
	if len(deliveries) != len(want) {
		return violated("%s gets %d jobs, not %d", w.name, len(deliveries), len(want))
	}
	for i, d := range deliveries {
		if err := h.checkDelivery(d, want[i], want[i].deadline); err != nil {
			return err
		}
		w.hands = append(w.hands, &hand{d: d, job: want[i]})
	}
	return nil
}

// checkDelivery checks what a worker gets.
func (h *history) checkDelivery(d *jobqueue.Delivery, j *job, deadline int64) error {
	got := fmt.Sprintf("%s of %s by %s, %q, for the %d. time, kept %t, and owing %q", h.names[d.ID], h.names[d.Server],
		h.names[d.Consumer], d.Request, d.Deliveries, d.Keep > 0, d.Owed)
	want := fmt.Sprintf("%s of %s by %s, %q, for the %d. time, kept %t, and owing %q", j.name, h.names[j.server],
		h.names[j.owner], j.request, j.deliveries, j.tracked, j.owed)
	if j.replayed { // Redis has set it
		deadline = max(d.Deadline, longAgo)
	}
	if got != want || d.Deadline != deadline || d.Broken != nil {
		return violated("delivered is %s until %d (%v), not %s until %d", got, d.Deadline, d.Broken, want, deadline)
	}
	return nil
}

// list has a worker look for jobs that are its own and not in hand.
func (h *history) list(ctx context.Context) (bool, error) {
	w := pick(h, h.living())
	if len(w.listed) > 0 || len(h.model.owned(w.consumer.ID())) == 0 {
		return false, nil
	}
	h.note("%s lists", w.name)
	return true, h.listBy(ctx, w)
}

func (h *history) listBy(ctx context.Context, w *worker) error {
	owned, err := w.consumer.Owned(ctx)
	if err != nil {
		return err
	}
	want := h.model.owned(w.consumer.ID())
	if len(owned) != len(want) {
		return violated("%s owns %d jobs, not %d", w.name, len(owned), len(want))
	}
	for _, j := range want {
		if owned[j.at] != j.deliveries {
			return violated("%s owns %s for the %d. time, not for the %d. time", w.name, j.name, owned[j.at], j.deliveries)
		}
	}
	w.listed = want
	return nil
}

// load has a worker take a job in hand that it has listed, if it is still its own.
func (h *history) load(ctx context.Context) (bool, error) {
	w := pick(h, h.living())
	if len(w.listed) == 0 {
		return false, nil
	}
	return true, h.loadBy(ctx, w)
}

func (h *history) loadBy(ctx context.Context, w *worker) error {
	j := w.listed[0]
	w.listed = w.listed[1:]
	if slices.ContainsFunc(w.hands, func(one *hand) bool { return one.job == j }) {
		return nil
	}
	h.note("%s loads %s", w.name, j.name)
	loaded, err := w.consumer.Load(ctx, j.at)
	if err != nil {
		return err
	}
	d, owns := loaded[0], j.place == delivered && j.owner == w.consumer.ID()
	if owns != (d != nil) {
		return violated("%s loads %s, which is its own: %t: %+v", w.name, j.name, owns, d)
	}
	if !owns {
		return nil
	}
	w.hands = append(w.hands, &hand{d: d, job: j})
	return h.checkDelivery(d, j, max(j.deadline, j.latest))
}

// begin has a worker begin a job in hand: to run it, to end it, or to go on with one that is decided.
func (h *history) begin(ctx context.Context) (bool, error) {
	w := pick(h, h.living())
	idle := slices.DeleteFunc(slices.Clone(w.hands), func(one *hand) bool { return one.next != nil })
	if len(idle) == 0 {
		return false, nil
	}
	return true, h.beginHand(ctx, w, pick(h, idle))
}

func (h *history) beginHand(ctx context.Context, w *worker, in *hand) error {
	d, name := in.d, in.job.name
	late := d.Deadline < w.consumer.Now()
	switch {
	case d.Decided:
		in.settle("release", "0:"+d.StreamID, "")
	case !d.First() && (late || d.Unattended() || d.Deliveries > 5 || !strings.HasPrefix(d.Request, "PUT ")):
		in.settle("lose", "\n"+name+" is lost", "its worker died")
	case late && !in.extended:
		d.FreesScope = true
		in.settle("expire", "\n"+name+" is too late", "")
	default:
		return h.execute(ctx, w, in)
	}
	h.note("%s is to %s %s", w.name, in.next.Kind, name)
	if in.next.Kind != "release" && in.job.decided && in.isOwned() {
		return violated("%s is to %s %s, which is decided", w.name, in.next.Kind, name)
	}
	return nil
}

// isOwned says whether a job in hand is still that of who has it, as it was delivered.
func (in *hand) isOwned() bool {
	return in.job.place == delivered && in.job.owner == in.d.Consumer && in.job.deliveries == in.d.Deliveries
}

// settle has a step taken next.
func (in *hand) settle(kind, first, second string) {
	in.next = &settlement{jobqueue.Settlement{Kind: kind, First: first, Second: second, Delivery: in.d}, in.job, in.d.FreesScope}
}

// execute has a worker run a job, after a look whether it still owns it: one that nobody has finished, decided or withdrawn,
// and that may be repeated if somebody has run it before.
func (h *history) execute(ctx context.Context, w *worker, in *hand) error {
	j, d := in.job, in.d
	owns, err := w.consumer.Owns(ctx, d)
	if err != nil {
		return err
	}
	if want := in.isOwned(); owns != want {
		return violated("%s owns %s: %t, not %t", w.name, j.name, owns, want)
	}
	if !owns {
		h.note("%s does not run %s, which is not its own any more", w.name, j.name)
		w.drop(in)
		return nil
	}
	switch {
	case j.place != delivered:
		return violated("%s runs %s, which is at its end", w.name, j.name)
	case j.decided:
		return violated("%s runs %s, which is decided", w.name, j.name)
	case j.executions > 0 && !j.repeatable:
		return violated("%s runs %s, which may not be repeated, for the %d. time", w.name, j.name, j.executions+1)
	}
	if j.executions++; j.executions > 1 {
		h.counts.repetitions++
	}
	h.counts.executions++
	d.FreesScope = h.oneIn(6) // the application panics
	reply := fmt.Sprintf("%s run by %s, the %d. time", j.name, w.name, j.executions)
	switch {
	case d.Unattended() && h.oneIn(3):
		in.settle("bury", "\n"+reply, "it was replayed, and failed")
	case h.oneIn(2):
		in.settle("finish", "\n"+reply, "")
	default:
		in.settle("decide", reply, "owed by "+reply)
	}
	h.note("%s runs %s and is to %s", w.name, j.name, in.next.Kind)
	return nil
}

func (w *worker) drop(in *hand) {
	w.hands = slices.DeleteFunc(w.hands, func(one *hand) bool { return one == in })
}

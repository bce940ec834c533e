package shift_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/shift"
)

// A pair is a worker whose slots are all taken, and that is told to end, and one that is idle.
type pair struct {
	*bench
	rdb  cutOff
	app  http.HandlerFunc
	gate chan struct{} // closed when the first worker's handlers may return
	done chan error    // receives what became of their jobs
}

const pairSlots = 16

func newPair(t *testing.T, lease time.Duration, guards shift.Guards) *pair {
	t.Helper()
	p := &pair{
		rdb:  cutOff{redistest.Shared(t), new(atomic.Bool), make(chan struct{}), make(chan struct{})},
		gate: make(chan struct{}), done: make(chan error, pairSlots),
	}
	running := make(chan struct{}, pairSlots)
	p.app = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			running <- struct{}{}
			<-p.gate
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	p.bench = start(t, p.rdb, p.app, lease, guards)
	for range pairSlots {
		go func() { p.done <- p.post("/") }()
	}
	for range pairSlots {
		<-running
	}
	return p
}

// deliver has a further job be delivered to the first worker, which does not know of it, and returns where its answer will be.
func (p *pair) deliver(wait time.Duration) <-chan string {
	answers := make(chan string, 1)
	go func() {
		reply, err := p.reply("/further", wait)
		answers <- fmt.Sprintf("%.12s %v", reply, err)
	}()
	p.fetchFor(p.consumer)
	return answers
}

// record waits until what Redis knows of a worker ends so.
func (b *bench) record(c *jobqueue.Consumer, end string) {
	b.t.Helper()
	workers := strings.TrimSuffix(b.jobs, "jobs") + "workers"
	await.Until(b.t, "the record of the worker ends in "+strconv.Quote(end), func() bool {
		record := b.rdb.HGet(b.t.Context(), workers, c.ID()).Val()
		return record != "" && strings.HasSuffix(record, end)
	})
}

// isKnown waits until a worker has begun.
func (b *bench) isKnown(c *jobqueue.Consumer) {
	b.t.Helper()
	b.record(c, "")
}

func (p *pair) finish() {
	close(p.gate)
	for range pairSlots {
		if err := <-p.done; err != nil {
			p.t.Error(err)
		}
	}
}

// waitingForASlot has the first worker drain while a job waits for a slot. It returns the answer to that before a slot is free.
func waitingForASlot(t *testing.T, guards shift.Guards) string {
	t.Helper()
	const lease = 400 * time.Millisecond
	p := newPair(t, lease, guards)
	further := p.deliver(2 * time.Second)
	p.consumer.SetDoubt()
	<-p.rdb.loaded
	idle, _ := p.work(p.app, lease, pairSlots, guards)
	p.isKnown(idle)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop()
	}()
	answer := <-further
	p.finish()
	<-stopped
	return answer
}

func TestADrainingWorkerHandsOverWhatWaitsForASlot(t *testing.T) {
	redistest.Require(t)
	if answer := waitingForASlot(t, shift.Guards{}); answer != "HTTP/1.1 422 <nil>" {
		t.Error(answer)
	}
}

func TestWithoutAHandOverWhatWaitsForASlotWaitsOn(t *testing.T) {
	redistest.Require(t)
	if answer := waitingForASlot(t, shift.Guards{NoHandOver: true}); answer != " "+jobqueue.ErrRunning.Error() {
		t.Error(answer)
	}
}

// unknownToIt has the first worker end that owns a job without knowing of it, because the answer to a fetch was lost. It returns the
// answer to that.
func unknownToIt(t *testing.T, guards shift.Guards) string {
	t.Helper()
	const lease = 8 * time.Second // its heartbeats tell it only after a while
	p := newPair(t, lease, guards)
	further := p.deliver(20 * time.Second)
	idle, _ := p.work(p.app, lease, pairSlots, guards)
	p.isKnown(idle)
	p.finish()
	p.stop()
	return <-further
}

func TestAWorkerThatEndsHandsOverWhatItHasNeverBegun(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	if answer := unknownToIt(t, shift.Guards{}); answer != "HTTP/1.1 422 <nil>" {
		t.Error(answer)
	}
}

func TestWithoutAHandOverWhatWasNeverBegunIsTakenForBegun(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	if answer := unknownToIt(t, shift.Guards{NoHandOver: true}); answer != "HTTP/1.1 502 <nil>" {
		t.Error(answer)
	}
}

// once has a POST run, which is not to run twice, in a worker that drains, and does something to it meanwhile, beside a worker that is
// idle. It returns how often the handler has run.
func once(t *testing.T, guards shift.Guards, drained func(b *bench, app http.HandlerFunc)) int64 {
	t.Helper()
	const lease = onceLease
	var runs atomic.Int64
	running, gate := make(chan struct{}, 8), make(chan struct{})
	app := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/once" {
			runs.Add(1)
			running <- struct{}{}
			<-gate
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	b := start(t, redistest.Shared(t), app, lease, guards)
	done := make(chan error, 1)
	go func() { done <- b.post("/once") }()
	<-running
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	b.record(b.consumer, " leaving")
	<-time.After(jobqueue.FetchBlock) // its last fetch has ended
	drained(b, app)
	<-time.After(4 * lease) // whatever is handed over is found
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-stopped
	return runs.Load()
}

const onceLease = 400 * time.Millisecond

// doubted has the worker be in doubt while it drains.
func doubted(t *testing.T, guards shift.Guards) int64 {
	t.Helper()
	return once(t, guards, func(b *bench, app http.HandlerFunc) {
		idle, _ := b.work(app, onceLease, 16, guards)
		b.isKnown(idle)
		b.consumer.SetDoubt()
	})
}

func TestADoubtInADrainRunsNothingTwice(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	if n := doubted(t, shift.Guards{}); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

func TestIfWhatHasBegunWereHandedOverItWouldRunTwice(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	if n := doubted(t, shift.Guards{HandOverBegun: true}); n < 2 {
		t.Errorf("it ran %d times: it is not the look at what has begun that keeps it from running", n)
	}
}

// A draining worker owns a job that it does not know of, and hands that over, and not what it is at.
func TestADrainingWorkerHandsOverNothingThatItHasBegun(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	answer := make(chan string, 1)
	n := once(t, shift.Guards{}, func(b *bench, app http.HandlerFunc) {
		go func() { // it is admitted: the worker may have a successor
			reply, err := b.reply("/never-begun", 20*time.Second)
			answer <- fmt.Sprintf("%.12s %v", reply, err)
		}()
		b.fetchFor(b.consumer)
		idle, _ := b.work(app, onceLease, 16, shift.Guards{})
		b.isKnown(idle)
	})
	if got := <-answer; n != 1 || got != "HTTP/1.1 422 <nil>" {
		t.Errorf("it ran %d times, the other is answered with %s", n, got)
	}
}

// A handler that was told to end, because the drain took too long, has begun: nobody may run it again.
func TestWhatADrainHasGivenUpIsNotRunAgain(t *testing.T) {
	redistest.Require(t)
	t.Parallel()
	const lease = 2 * time.Second
	var runs atomic.Int64
	running := make(chan struct{}, 2)
	app := func(w http.ResponseWriter, r *http.Request) {
		if runs.Add(1) == 1 {
			running <- struct{}{}
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	b := start(t, redistest.Shared(t), app, lease, shift.Guards{})
	answer := make(chan string, 1)
	go func() {
		reply, err := b.reply("/once", 30*time.Second)
		answer <- fmt.Sprintf("%.12s %v", reply, err)
	}()
	<-running
	idle, _ := b.work(app, lease, 16, shift.Guards{})
	b.isKnown(idle)
	b.stop()
	if got := <-answer; runs.Load() != 1 || got != "HTTP/1.1 502 <nil>" {
		t.Errorf("it ran %d times, and is answered with %s", runs.Load(), got)
	}
}

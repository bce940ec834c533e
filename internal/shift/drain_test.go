package shift_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	p.work(p.app, lease, pairSlots, guards)
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
	for p.rdb.HGet(t.Context(), strings.TrimSuffix(p.jobs, "jobs")+"workers", idle.ID()).Err() != nil {
	}
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

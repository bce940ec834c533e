package blackbox_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/itscales/scales/internal/await"
)

// What becomes of a write depends on the workers that are there, and on the client that waits. Whatever the client is told
// is true.
func TestWritesNeedAWorkerAndAClient(t *testing.T) {
	s := newSite(t, sharedStore(t), "-lease", "500ms")
	s.troubled = true
	s.open(t, 1, 0)
	s.fill(t)
	t.Run("without a worker they are refused at once", s.refusesWithoutAWorker)
	t.Run("a client that goes takes its request with it", s.forgetsWhoHasGone)
	t.Run("a process that ends finishes what it has begun", s.drains)
}

// refusesWithoutAWorker: nothing is accepted without a worker, and pages are served all the same. As soon as a worker is
// there writes work, and no server is restarted.
func (s *site) refusesWithoutAWorker(t *testing.T) {
	server, kept := s.servers[0], newLedger("Unworked")
	s.refusesAtOnce(t, server, kept)
	worker := s.start(t, "worker", "-lease", "10s") // writes wait for its successor for three quarters of that
	s.acceptsSoon(t, server, kept)
	worker.stop(t)
	name, request := kept.next()
	waiting := server.begin(t, request)
	await.Within(t, soon, "the write is in the queue", func() bool { return s.length(t, "jobs") == 1 })
	worker = s.start(t, "worker") // its successor
	if err := kept.note(name, waiting.wait(t).is(t, http.StatusCreated)); err != nil {
		t.Error(err)
	}

	impatient := s.start(t, "server", "-deadline", "1s")
	s.acceptsSoon(t, impatient, kept)
	worker.kill() // without a successor the job is withdrawn at its deadline, and later ones are refused
	kept.post(t, impatient, http.StatusServiceUnavailable).isProblem(t, http.StatusServiceUnavailable, "not-started")
	s.refusesSoon(t, "the worker is known to be dead", impatient, kept)
	worker = s.start(t, "worker")
	s.acceptsSoon(t, server, kept)
	s.isIdle(t)
	kept.isKept(t, s.app)
	s.isCurrent(t, someKeys(t, s.app, seededTracks+int64(len(kept.made))))
	worker.stop(t)
	s.refusesSoon(t, "the worker has been gone for three heartbeats", impatient, kept)
	impatient.stop(t)
}

// refusesSoon: writes are refused when nobody follows a worker.
func (s *site) refusesSoon(t *testing.T, when string, server *process, kept *ledger) {
	t.Helper()
	await.Within(t, patience, when, func() bool {
		return kept.try(t, server).problem(http.StatusServiceUnavailable, "no-worker") == nil
	})
}

func (s *site) refusesAtOnce(t *testing.T, server *process, kept *ledger) {
	t.Helper()
	began := time.Now()
	kept.post(t, server, http.StatusServiceUnavailable).isProblem(t, http.StatusServiceUnavailable, "no-worker")
	if took := time.Since(began); took > soon {
		t.Errorf("the refusal took %v", took)
	}
	server.get(t, "/tracks/7").is(t, http.StatusOK)
}

func (s *site) acceptsSoon(t *testing.T, server *process, kept *ledger) {
	t.Helper()
	await.Within(t, soon, "a write is carried out", func() bool {
		return kept.try(t, server).status == http.StatusCreated
	})
}

// forgetsWhoHasGone: a client that goes away while its request waits for a worker takes the request with it.
func (s *site) forgetsWhoHasGone(t *testing.T) {
	worker := s.start(t, "worker", "-concurrency", "1", "-work-delay", "2s")
	server := s.servers[0]
	await.Within(t, soon, "the server knows the worker", func() bool {
		return server.send(t, call{method: http.MethodPost, target: "/nowhere"}).status == http.StatusNotFound
	})
	running := server.begin(t, postJSON("Begun first", "Waiters"))
	await.Within(t, patience, "the first handler runs", func() bool { return s.asked(t, "/tracks.json", "Begun first") })
	waiting := server.begin(t, postJSON("Abandoned", "Waiters"))
	await.Within(t, patience, "the second request waits", func() bool { return s.length(t, "jobs") == 2 })
	waiting.abandon()
	if waiting.err == nil {
		t.Fatalf("the second request was answered %d, which spoils the test", waiting.answer.status)
	}
	await.Within(t, soon, "the second request is withdrawn", func() bool { return s.length(t, "jobs") == 1 })
	select {
	case <-running.done:
		t.Fatal("the first handler has ended, which spoils the test")
	default:
	}
	running.wait(t).is(t, http.StatusCreated)
	server.post(t, "Third", "Waiters").is(t, http.StatusCreated) // after which the second would have run
	if s.asked(t, "/tracks.json", "Abandoned") {
		t.Error("the request of a client that had gone was carried out")
	}
	s.isIdle(t)
	worker.stop(t)
}

// drains: a process that is told to end finishes what it has begun.
func (s *site) drains(t *testing.T) {
	worker, server := s.start(t, "worker", "-work-delay", "1s"), s.servers[0]
	await.Within(t, soon, "the server knows the worker", func() bool {
		return server.send(t, call{method: http.MethodPost, target: "/nowhere"}).status == http.StatusNotFound
	})
	for _, told := range []*process{worker, server} {
		name := "Written while a " + told.role + " ends"
		post := server.begin(t, postJSON(name, "Drainers"))
		await.Within(t, patience, "the handler runs", func() bool { return s.asked(t, "/tracks.json", name) })
		if told == worker {
			s.start(t, "worker", "-work-delay", "1s")
		}
		told.terminate(t)
		var got track
		if err := post.wait(t).is(t, http.StatusCreated).decode(&got); err != nil || got.Name != name {
			t.Errorf("the reply is %+v, %v", got, err)
		}
		told.awaitEnd(t, stopTimeout)
	}
	if _, err := server.do(t.Context(), call{method: http.MethodGet, target: "/"}); err == nil {
		t.Error("a server that has ended answers")
	}
	s.isIdle(t)
	s.servers = []*process{s.start(t, "server")}
	s.isCurrent(t, someKeys(t, s.app, seededTracks))
}

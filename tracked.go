package scales

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/problem"
	"github.com/itscales/scales/internal/step"
)

// replyField is "stored" in an answer that was kept: a request with the same idempotency key, or the status resource of its
// job, has brought it.
const replyField = "Scales-Reply"

// wishes are what a request asks for besides what it is about: to be carried out once, and not to be waited for.
type wishes struct {
	key string // of Idempotency-Key
	field.Preferences
	async bool // it may be answered before there is a reply
}

// wishesOf returns what an unsafe request asks for. The error is that of its Idempotency-Key.
func (s *Server) wishesOf(r *http.Request) (wishes, error) {
	if s.config.keepReplies == 0 || step.Safe(r.Method) { // without replies that are kept there is neither
		return wishes{}, nil
	}
	key, err := field.IdempotencyKey(r.Header)
	asked := wishes{key: key, Preferences: field.TakePreferences(http.Header{"Prefer": r.Header.Values("Prefer")})}
	asked.async = asked.RespondAsync || asked.Waits || s.config.accept
	if asked.Wait > s.config.deadline {
		asked.Wait = s.config.deadline.Truncate(time.Second) // Preference-Applied says what is done
	}
	return asked, err
}

// patience is how long a request is waited for, and its job may wait. A job that is accepted has as much time as its reply is
// kept: after a 202 nothing is withdrawn.
func (s *Server) patience(asked wishes) jobqueue.Patience {
	p := jobqueue.Patience{Wait: s.config.deadline}
	if !asked.async {
		return p
	}
	p.Accept, p.Begin = true, s.config.keepReplies
	switch {
	case asked.Waits:
		p.Wait = asked.Wait
	case asked.RespondAsync:
		p.Wait = 0
	}
	return p
}

// tracking says what is kept for a request.
func (s *Server) tracking(r *http.Request, target string, body []byte, asked wishes) jobqueue.Tracking {
	if asked.key == "" && !asked.async {
		return jobqueue.Tracking{}
	}
	t := jobqueue.Tracking{Keep: s.config.keepReplies}
	if asked.key != "" {
		scope := []string{asked.key, r.Method, target, strings.ToLower(r.Host)}
		for _, name := range s.config.identity {
			scope = append(scope, strconv.Itoa(len(r.Header.Values(name))))
			scope = append(scope, r.Header.Values(name)...)
		}
		t.Scope = digest(scope...)
		t.Payload = digest(r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), string(body))
	}
	return t
}

// accept answers a request whose job goes on.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, job string, asked wishes) {
	header := w.Header()
	header.Set("Location", s.statusReference(r, job))
	if applied := asked.Applied(); applied != "" {
		header.Set("Preference-Applied", applied)
	}
	writeState(w, r, http.StatusAccepted, jobqueue.Queued)
}

// statusReference returns the URI reference of the status resource of a job. It is relative to the target of the request, as
// the client knows it: we may be mounted below a path that we are not told.
func (s *Server) statusReference(r *http.Request, job string) string {
	path, err := canonical.Path(r.URL.EscapedPath())
	if err != nil {
		path = "/" // it was checked before
	}
	up := "./"
	if depth := strings.Count(path, "/") - 1; depth > 0 {
		up = strings.Repeat("../", depth)
	}
	return up + s.config.reserved[1:] + statusPath + job
}

// statusPath is where, below the reserved prefix, the status resources are.
const statusPath = "jobs/"

// serveReserved answers requests for what is below the reserved prefix.
func (s *Server) serveReserved(w http.ResponseWriter, r *http.Request) {
	job, ok := strings.CutPrefix(r.URL.Path, s.config.reserved+statusPath)
	switch {
	case !ok:
		problem.Reserved(s.config.reserved).Write(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		problem.MethodNotAllowed(r.Method).Write(w, r)
	default:
		s.status(w, r, job)
	}
}

// status answers a request for the status resource of a job: how far it has come, or the reply to it. Its name has a secret
// besides the id, which is in logs and entries: who was told it may see the reply.
func (s *Server) status(w http.ResponseWriter, r *http.Request, job string) {
	state, answer, err := s.cache.track(r.Context(), job)
	switch {
	case errors.Is(err, jobqueue.ErrUntracked):
		problem.JobUnknown().Write(w, r)
	case err != nil:
		w.Header().Set("Retry-After", "1")
		s.cache.config.logger.Debug("scales: a job's state was answered 503", "error", err)
		problem.StoreUnreachable().Write(w, r)
	case state == jobqueue.Answered:
		w.Header().Set(replyField, "stored")
		s.writeAnswer(uncached{w}, r, answer)
	default:
		writeState(w, r, http.StatusOK, state)
	}
}

// track returns how far a job has come.
func (c *Cache) track(ctx context.Context, job string) (jobqueue.State, jobqueue.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*c.config.timeout) // a reply may have many megabytes
	defer cancel()
	state, reply, err := jobqueue.Track(ctx, c.rdb, c.queuePrefix(), job)
	if err != nil && !errors.Is(err, jobqueue.ErrUntracked) {
		return state, reply, c.unavailable(err)
	}
	return state, reply, err
}

// writeState answers with how far a job has come.
func writeState(w http.ResponseWriter, r *http.Request, status int, state jobqueue.State) {
	name := "queued"
	if state == jobqueue.Running {
		name = "running"
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("Retry-After", "1")
	writeBody(w, r, status, []byte(`{"state":"`+name+"\"}\n"))
}

// uncached is a ResponseWriter of an answer that nobody may store.
type uncached struct{ http.ResponseWriter }

func (w uncached) WriteHeader(status int) {
	w.Header().Set("Cache-Control", "no-store")
	w.ResponseWriter.WriteHeader(status)
}

func (w uncached) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// digest returns what stands for a list of texts, and for no other: 64 hexadecimal digits.
func digest(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

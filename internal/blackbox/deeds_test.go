package blackbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// refusedPace is how long a client waits after a write that was refused or could not be sent.
const refusedPace = 50 * time.Millisecond

// campaignArtists is how many artists come into being in a campaign.
const campaignArtists = 20

// problems are what may become of a write when processes and connections fail, by status.
var problems = map[int][]string{
	http.StatusBadGateway:         {"worker-died"},
	http.StatusServiceUnavailable: {"no-worker", "queue-full", "too-busy", "store-unreachable", "not-started", "expired"},
	http.StatusGatewayTimeout:     {"still-running", "outcome-unknown"},
}

// writer is a client of a campaign. It sends one write after the other, each to a server of its choice.
type writer struct {
	*campaign
	number int
	random *rand.Rand
	server *process // nil to choose one each time
	count  int
	own    []int64 // tracks that only this client writes to and whose states it knows, the newest last
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil && w.goesOn() {
		d := w.next()
		if err := w.do(ctx, d); err != nil && ctx.Err() == nil {
			w.cancel(fmt.Errorf("%v: %w", d, err))
		}
		if d.outcome != refused {
			continue
		}
		select {
		case <-time.After(refusedPace):
		case <-ctx.Done():
		}
	}
}

// next chooses what to write.
func (w *writer) next() *deed {
	w.count++
	d := &deed{name: fmt.Sprintf("w%d-%d", w.number, w.count), form: w.random.IntN(3) == 0}
	d.state = state{name: d.name + " & Co", artist: fmt.Sprintf("Campaigner <%d>", w.random.IntN(campaignArtists))}
	fields := map[string]string{"name": d.state.name, "artist": d.state.artist}
	dice := w.random.IntN(100)
	if len(w.own) == 0 {
		dice = 0
	}
	switch {
	case dice < 40:
		d.kind, d.request = http.MethodPost, postJSON(d.state.name, d.state.artist)
		if d.form {
			d.request = postForm("/tracks", "", fields)
		}
	case dice < 75:
		d.kind, d.id = http.MethodPut, w.own[w.random.IntN(len(w.own))]
		d.request = putJSON(d.id, fields)
		if d.form {
			d.request = postForm(trackPath(d.id), http.MethodPut, fields)
		}
	default:
		d.kind, d.id, d.state = http.MethodDelete, w.own[w.random.IntN(len(w.own))], state{gone: true}
		d.request = call{method: http.MethodDelete, target: trackPath(d.id)}
		if d.form {
			d.request = postForm(trackPath(d.id), http.MethodDelete, nil)
		}
	}
	d.request.header = http.Header{writeField: {d.name}}
	return d
}

// do sends a write and takes down what became of it. An answer that no fault explains is an error.
func (w *writer) do(ctx context.Context, d *deed) error {
	server := w.server
	if server == nil {
		server = w.servers.pick(w.random)
	}
	for server == nil { // all were killed, and others are about to take their place
		select {
		case <-time.After(refusedPace):
		case <-ctx.Done():
			return ctx.Err()
		}
		server = w.servers.pick(w.random)
	}
	w.account.begin(d)
	began := time.Now()
	a, err := server.do(ctx, d.request)
	if err = w.judge(d, a, err); err != nil {
		return err
	}
	status := 0
	if a != nil {
		status = a.status
	}
	w.figures.add(d.kind, status, time.Since(began))
	w.remember(d)
	return w.account.end(d)
}

// remember keeps the tracks whose states are known.
func (w *writer) remember(d *deed) {
	if d.outcome == refused {
		return
	}
	w.own = slices.DeleteFunc(w.own, func(id int64) bool { return id == d.id })
	if d.outcome == applied && !d.state.gone {
		w.own = append(w.own, d.id)
	}
}

// judge says what the client knows after an answer, or without one.
func (w *writer) judge(d *deed, a *answer, err error) error {
	var operation *net.OpError
	var timeout net.Error
	switch {
	case err == nil:
		return d.judge(a)
	case !w.serversDie, errors.As(err, &timeout) && timeout.Timeout():
		return err
	case errors.As(err, &operation) && operation.Op == "dial":
		d.outcome, d.told = refused, "not sent"
	default:
		d.outcome, d.told = unknown, "connection broken"
	}
	return nil
}

// judge says what an answer means, and whether it is the one to this deed.
func (d *deed) judge(a *answer) error {
	d.told = strconv.Itoa(a.status)
	if a.status < http.StatusInternalServerError {
		d.outcome = applied
		return d.isAnsweredBy(a)
	}
	var problem struct{ Type string }
	_ = json.Unmarshal([]byte(a.body), &problem) // what is no JSON has no type, which is told below
	kind := strings.TrimPrefix(problem.Type, problemURN)
	d.told += " " + kind
	if !slices.Contains(problems[a.status], kind) {
		return fmt.Errorf("it is answered with %d, which no fault explains: %.500s", a.status, a.body)
	}
	if a.status == http.StatusServiceUnavailable {
		d.outcome = refused
	}
	return a.problem(a.status, kind)
}

// isAnsweredBy returns an error if the answer belongs to another request.
func (d *deed) isAnsweredBy(a *answer) error {
	location := a.header.Get("Location")
	want, goes := http.StatusOK, trackPath(d.id)
	switch d.kind {
	case http.MethodPost:
		want = http.StatusCreated
		number, found := strings.CutPrefix(location, "/tracks/")
		id, err := strconv.ParseInt(number, 10, 64)
		if !found || err != nil {
			return fmt.Errorf("it is answered with %d and the Location %q", a.status, location)
		}
		d.id = id
		goes = trackPath(id)
	case http.MethodDelete:
		want, goes = http.StatusNoContent, "/tracks"
		if a.status == http.StatusNotFound {
			if a.header.Get("Content-Type") == problemType {
				return fmt.Errorf("the server answers for the application: %.500s", a.body)
			}
			return nil
		}
	}
	if d.form {
		if a.status != http.StatusSeeOther || location != goes {
			return fmt.Errorf("it is answered with %d and the Location %q, want %d and %q", a.status, location, http.StatusSeeOther, goes)
		}
		return nil
	}
	if a.status != want {
		return fmt.Errorf("it is answered with %d, want %d\n%.500s", a.status, want, a.body)
	}
	if d.kind == http.MethodDelete {
		return nil
	}
	var got track
	if err := a.decode(&got); err != nil {
		return err
	}
	if got.ID != d.id || got.Name != d.state.name || got.Artist != d.state.artist {
		return fmt.Errorf("the reply is about %+v, want track %d, %v", got, d.id, d.state)
	}
	return nil
}

package render_test

import (
	"fmt"
	"net/http"
	"sync"
)

// state is what the application has under a key.
type state int

const (
	gone    state = iota // answered with 404 or 410
	live                 // answered with 200 and the version
	broken               // answered with 500, or with nothing at all
	private              // answered with no-store
)

// A resource is what a key of the application is like at a moment. Every change of it has a version of its own, so that
// what the cache shows can be compared with what it has to show.
type resource struct {
	version int
	state   state

	broken int // the last version in which it was broken; 0: none
	absent int // the last version in which the cache had nothing to show: gone or private
}

// application is the store behind a handler, and the truth about a history. It is safe for concurrent use.
type application struct {
	mu        sync.Mutex
	resources map[string]resource
}

// change changes a key and returns what it is like then.
func (a *application) change(key string, to state) resource {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.resources[key]
	r.version++
	r.state = to
	switch to {
	case broken:
		r.broken = r.version
	case gone, private:
		r.absent = r.version
	}
	a.resources[key] = r
	return r
}

// look returns what a key is like now.
func (a *application) look(key string) resource {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.resources[key]
}

// body is what the application answers for a live resource.
func body(key string, version int) string { return fmt.Sprintf("%s version %d", key, version) }

// answer answers a GET of a key as it was like when it was read.
func answer(w http.ResponseWriter, key string, r resource) {
	odd := r.version%2 == 1
	switch {
	case r.state == gone && odd:
		w.WriteHeader(http.StatusGone)
	case r.state == gone:
		w.WriteHeader(http.StatusNotFound)
	case r.state == broken && odd:
		panic(http.ErrAbortHandler)
	case r.state == broken:
		w.WriteHeader(http.StatusInternalServerError)
	case r.state == private:
		w.Header().Set("Cache-Control", "no-store")
		fallthrough
	default:
		_, _ = fmt.Fprint(w, body(key, r.version))
	}
}

package render_test

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
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
	groups  []string // that it is in, sorted

	broken int // the last version in which it was broken; 0: none
	absent int // the last version in which the cache had nothing to show: gone or private
}

// A page is a resource together with what it shares with others: its body shows the versions of all groups that it is in,
// so that a change of a group changes the pages of all its members.
type page struct {
	resource
	shared map[string]int // the version of every group at that moment
}

// varies says whether the page is different for other clients at that version, or might be.
func (p page) varies() bool { return p.version%4 == 3 }

// application is the store behind a handler, and the truth about a history. It is safe for concurrent use.
type application struct {
	mu        sync.Mutex
	resources map[string]resource
	groups    map[string]int  // their versions
	answered  map[string]page // by body: all that it has answered, or handed over to be stored
}

func newApplication() *application {
	return &application{resources: make(map[string]resource), groups: make(map[string]int), answered: make(map[string]page)}
}

// change changes a key and returns what it is like then.
func (a *application) change(key string, to state, groups []string) page {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.resources[key]
	r.version++
	r.state, r.groups = to, groups
	switch to {
	case broken:
		r.broken = r.version
	case gone, private:
		r.absent = r.version
	}
	a.resources[key] = r
	return page{r, maps.Clone(a.groups)}
}

// changeGroup changes what all members of a group show, and returns its version.
func (a *application) changeGroup(group string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups[group]++
	return a.groups[group]
}

// look returns what a key is like now.
func (a *application) look(key string) page {
	a.mu.Lock()
	defer a.mu.Unlock()
	return page{a.resources[key], maps.Clone(a.groups)}
}

// lookAll returns what keys are like at this moment.
func (a *application) lookAll(keys []string) map[string]page {
	a.mu.Lock()
	defer a.mu.Unlock()
	pages, shared := make(map[string]page, len(keys)), maps.Clone(a.groups)
	for _, key := range keys {
		pages[key] = page{a.resources[key], shared}
	}
	return pages
}

// body is what the application answers for a live resource.
func (a *application) body(key string, p page) string {
	text := fmt.Sprintf("%s version %d", key, p.version)
	for _, group := range p.groups {
		text += fmt.Sprintf(", group %q version %d", group, p.shared[group])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered[text] = p
	return text
}

// shows returns what a body shows. False means that the application never answered with it.
func (a *application) shows(key, body string) (page, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.answered[body]
	return p, ok && strings.HasPrefix(body, key+" ")
}

// answer answers a GET of a key as it was like when it was read.
func (a *application) answer(w http.ResponseWriter, key string, p page) {
	odd := p.version%2 == 1
	switch {
	case p.state == gone && odd:
		w.WriteHeader(http.StatusGone)
	case p.state == gone:
		w.WriteHeader(http.StatusNotFound)
	case p.state == broken && odd:
		panic(http.ErrAbortHandler)
	case p.state == broken:
		w.WriteHeader(http.StatusInternalServerError)
	case p.state == private:
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprint(w, "nothing to be stored")
	default:
		quoted := make([]string, len(p.groups))
		for i, group := range p.groups {
			quoted[i] = strconv.Quote(group)
		}
		if len(quoted) > 0 {
			w.Header().Set("Cache-Groups", strings.Join(quoted, ", "))
		}
		_, _ = fmt.Fprint(w, a.body(key, p))
	}
}

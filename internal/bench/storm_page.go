package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
)

// renderTime is how long the application takes to render the list.
const renderTime = 20 * time.Millisecond

// listKey is the resource that the application has.
const listKey = "/list"

// listPage is the application of the storm: a POST adds an item to the list, a GET shows how many there are. The list is
// in Redis, so it is the same for all processes.
type listPage struct {
	rdb    *redis.Client
	items  string // the Redis key of the number of items
	counts counts
}

func newListPage(rdb *redis.Client, state string) *listPage {
	return &listPage{rdb: rdb, items: state + "items"}
}

func (p *listPage) tally() tally { return p.counts.tally() }

func (p *listPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != listKey:
		http.NotFound(w, r)
	case r.Method == http.MethodPost:
		p.counts.writes.Add(1)
		if err := p.rdb.Incr(r.Context(), p.items).Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		p.counts.renders.Add(1)
		p.show(w, r)
	}
}

// show looks at the list first and is slow after that, so that what it answers is as old as it can be.
func (p *listPage) show(w http.ResponseWriter, r *http.Request) {
	items, err := p.rdb.Get(r.Context(), p.items).Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	timer := time.NewTimer(renderTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		_, _ = fmt.Fprint(w, items)
	case <-r.Context().Done():
	}
}

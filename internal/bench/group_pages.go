package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A groupOrder is what an order says where the application is groupPages.
type groupOrder struct {
	Limit      int           // option GroupLimit
	RenderTime time.Duration // how long a render takes, besides the work that it is
}

const (
	// groupName is the group that all members are in.
	groupName = "all"

	// memberSize is the length of the page of a member in bytes.
	memberSize = 1024

	memberPrefix = "/members/"
	pagePrefix   = "/pages/"

	// changeKey is the target of a POST that changes the group.
	changeKey = "/change"
)

func memberKey(i int) string { return fmt.Sprintf("%s%05d", memberPrefix, i) }
func pageKey(i int) string   { return fmt.Sprintf("%s%05d", pagePrefix, i) }

// groupPages is the application of the group. Its members all show the same version, which a POST to changeKey raises,
// and are in one group, which the response to that POST says has changed. Beside them there are pages that are in no
// group: each shows how many POSTs it has had.
type groupPages struct {
	rdb        *redis.Client
	version    string // the Redis key of the version
	posts      string // that of a hash: path of a page to how many POSTs it has had
	renderTime time.Duration
	counts     counts
}

func newGroupPages(rdb *redis.Client, state string, renderTime time.Duration) *groupPages {
	return &groupPages{rdb: rdb, version: state + "version", posts: state + "posts", renderTime: renderTime}
}

func (p *groupPages) tally() tally { return p.counts.tally() }

func (p *groupPages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	member, page := strings.HasPrefix(r.URL.Path, memberPrefix), strings.HasPrefix(r.URL.Path, pagePrefix)
	post, err := r.Method == http.MethodPost, error(nil)
	switch {
	case post && r.URL.Path == changeKey:
		p.counts.writes.Add(1)
		if err = p.raise(r.Context()); err == nil {
			w.Header().Set("Cache-Group-Invalidation", `"`+groupName+`"`)
			w.WriteHeader(http.StatusNoContent)
		}
	case post && page:
		p.counts.writes.Add(1)
		if err = p.rdb.HIncrBy(r.Context(), p.posts, r.URL.Path, 1).Err(); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case !post && (member || page):
		p.counts.renders.Add(1)
		err = p.show(w, r, member)
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// raise changes what all members show.
func (p *groupPages) raise(ctx context.Context) error { return p.rdb.Incr(ctx, p.version).Err() }

// show looks at the state first, so that what it answers is as old as it can be where a render takes time.
func (p *groupPages) show(w http.ResponseWriter, r *http.Request, member bool) error {
	look := func() *redis.StringCmd { return p.rdb.HGet(r.Context(), p.posts, r.URL.Path) }
	if member {
		look = func() *redis.StringCmd { return p.rdb.Get(r.Context(), p.version) }
	}
	number, err := look().Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if p.renderTime > 0 {
		timer := time.NewTimer(p.renderTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	text := fmt.Sprint(number, "\n")
	if member {
		w.Header().Set("Cache-Groups", `"`+groupName+`"`)
		text += strings.Repeat(".", memberSize-len(text))
	}
	_, _ = fmt.Fprint(w, text)
	return nil
}

// shown returns the number that a body of groupPages shows.
func shown(body []byte) string {
	number, _, _ := strings.Cut(string(body), "\n")
	return number
}

package scales_test

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

func (s *system) explain(key string) scales.Explanation {
	s.t.Helper()
	return must(s.cache.Explain(context.Background(), key))(s.t)
}

func TestExplainSaysWhereAnEntryComesFrom(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		before := time.Now().Add(-time.Minute)
		app := newClub(map[string]string{"/a": `"x", "y"`, "/b": `"x"`, "/c": "", "/d": "", "/e": "", "/f": "", "/private": ""})
		s := start(t, rdb, app, setup{
			cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/a", "/b", "/c", "/d", "/e", "/f"},
		})
		if e := s.explain("/a"); e.State != "entry" || e.Why != "fill" || e.Job != "" || !slices.Equal(e.Groups, []string{"x", "y"}) ||
			e.Status != 200 || e.Bytes != len("version 0") || !e.Filled || e.Written.Before(before) || e.Pending != nil || e.Running != nil {
			t.Errorf("after the fill: %+v", e)
		}
		s.change("PUT", "/c", "Cache-Group-Invalidation", `"x"`, "Location", "/d", "Link", `</e>; rel="invalidates"`)
		job := s.explain("/c").Job
		for key, why := range map[string]string{"/a": "group x", "/b": "group x", "/c": "target", "/d": "Location", "/e": "Link", "/f": "fill"} {
			e := s.explain(key)
			if e.Why != why || e.Job != job && why != "fill" || len(job) != 32 {
				t.Errorf("%s: why %q, job %q; want %q, %q", key, e.Why, e.Job, why, job)
			}
		}
		if err := s.cache.Push(context.Background(), "/g", scales.Text("pushed")); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "the application has no such page", func() bool { return s.explain("/g").State == "tombstone" })
		if e := s.explain("/g"); e.Why != "push" || len(e.Groups) != 0 {
			t.Errorf("after a push and the render that confirms it: %+v", e)
		}
		if e := s.explain("/nothing"); e.State != "none" || e.Why != "" || !e.Written.IsZero() {
			t.Errorf("nothing: %+v", e)
		}
		if err := s.cache.Destroy(context.Background(), "/f"); err != nil {
			t.Fatal(err)
		}
		for e := s.explain("/f"); e.State != "entry"; e = s.explain("/f") {
			if e.State == "tombstone" && e.Why != "destroy" {
				t.Errorf("destroyed: %+v", e)
			}
		}
	})
}

func TestExplainAndBacklogTellOfRendersThatAreToCome(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		var broken, slow atomic.Bool
		begun, goOn := make(chan struct{}), make(chan struct{})
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case broken.Load():
				w.WriteHeader(503)
			case slow.Load() && r.Method == http.MethodGet:
				begun <- struct{}{}
				<-goOn
			}
		})
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/a", "/b"}})
		ctx := context.Background()
		if b := must(s.cache.Backlog(ctx))(t); b != (scales.Backlog{}) {
			t.Errorf("when all is quiet: %+v", b)
		}
		if err := s.cache.Update(ctx, "/a"); err != nil {
			t.Fatal(err)
		}
		if e := s.explain("/a"); e.Pending == nil || e.Pending.Why != "update" || e.Pending.Since.IsZero() || e.Pending.Due.IsZero() {
			t.Errorf("pending: %+v", e.Pending)
		}
		if b := must(s.cache.Backlog(ctx))(t); b.Pending != 1 || b.Due != 1 || b.Age <= 0 || b.Running+b.Failing+b.Groups != 0 {
			t.Errorf("with one pending key: %+v", b)
		}

		slow.Store(true)
		stop := s.run()
		defer stop()
		<-begun
		if e := s.explain("/a"); e.Running == nil || e.Running.Why != "update" || !e.Running.Until.After(e.Running.Since) || e.Pending != nil {
			t.Errorf("running: %+v", e.Running)
		}
		if b := must(s.cache.Backlog(ctx))(t); b.Running != 1 || b.Pending != 0 {
			t.Errorf("with one render: %+v", b)
		}
		slow.Store(false)
		close(goOn)
		await.Until(t, "the render is over", func() bool { return s.explain("/a").Running == nil })

		broken.Store(true)
		if err := s.cache.Update(ctx, "/b"); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "the render has failed", func() bool { return s.explain("/b").Failure != nil })
		e := s.explain("/b")
		if e.Failure.Count < 1 || e.Failure.Error != "status 503 Service Unavailable" || e.Failure.At.IsZero() || e.State != "entry" || e.Why != "fill" {
			t.Errorf("failed: %+v, %+v", e, e.Failure)
		}
		if e.Pending != nil && e.Pending.Why != "update" {
			t.Errorf("it is tried again for another reason: %+v", e.Pending)
		}
		var failing []string
		for f, err := range s.cache.Failing(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			failing = append(failing, f.Key+" "+f.Error)
		}
		if b := must(s.cache.Backlog(ctx))(t); b.Failing != 1 || !slices.Equal(failing, []string{"/b status 503 Service Unavailable"}) {
			t.Errorf("failing: %+v, %q", b, failing)
		}
	})
}

func TestExplainSaysWhyAPageIsRefused(t *testing.T) {
	app := handler(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Set-Cookie", "a=b") })
	s := start(t, redistest.Shared(t), app, setup{fill: []string{"/a"}})
	if e := s.explain("/a"); e.State != "tombstone" || e.Refusal != "Set-Cookie" || e.Why != "fill" {
		t.Errorf("%+v", e)
	}
}

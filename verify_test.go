package scales_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

func (s *system) verify(names []string, opts ...scales.VerifyOption) scales.VerifyReport {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return must(s.worker.Verify(ctx, scales.Keys(names...), opts...))(s.t)
}

// kinds returns the kind of each finding.
func kinds(report scales.VerifyReport) map[string]scales.DriftKind {
	all := make(map[string]scales.DriftKind)
	for _, f := range report.Findings {
		all[f.Key] = f.Kind
	}
	return all
}

// meddler changes Redis by hand.
type meddler struct {
	t          *testing.T
	rdb        redis.UniversalClient
	namespace  string
	partitions int
}

func (m meddler) prefix(key string) string {
	return partition.Prefix(m.namespace, canonical.Partition(key, m.partitions))
}

func (m meddler) entry(key string) string { return m.prefix(key) + "e:" + key }

func (m meddler) do(args ...any) {
	m.t.Helper()
	if err := m.rdb.Do(context.Background(), args...).Err(); err != nil {
		m.t.Fatal(err)
	}
}

func TestVerifyFindsAndRepairsEachKindOfDrift(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		pages := make(map[string]string)
		for _, name := range []string{"/good", "/edited", "/header", "/deleted", "/cut", "/unlisted", "/misfiled", "/unfiled", "/regrouped"} {
			pages[name] = `"g"`
		}
		app := newClub(pages)
		m := meddler{t, rdb, redistest.Namespace(t), partitions}
		all := slices.Collect(maps.Keys(pages))
		s := start(t, rdb, app, setup{
			cache: []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(m.namespace)}, fill: all,
		})
		if report := s.verify(all); report.Drift() != 0 || len(report.Findings) != 0 || report.Current != len(all) || report.Keys != len(all) {
			t.Fatalf("before anything has drifted: %+v", report)
		}

		ctx := context.Background()
		value := rdb.Get(ctx, m.entry("/edited")).Val()
		m.do("SET", m.entry("/edited"), strings.Replace(value, "version 0", "version X", 1))
		value = rdb.Get(ctx, m.entry("/header")).Val()
		m.do("SET", m.entry("/header"), strings.Replace(value, "text/plain", "text/html", 1))
		m.do("DEL", m.entry("/deleted"))
		m.do("SET", m.entry("/cut"), rdb.Get(ctx, m.entry("/cut")).Val()[:40])
		m.do("SET", m.entry("/extra"), rdb.Get(ctx, m.entry("/good")).Val())
		m.do("ZADD", m.prefix("/extra")+"index", 0, "/extra")
		m.do("SET", m.entry("/hidden"), rdb.Get(ctx, m.entry("/good")).Val())
		m.do("ZREM", m.prefix("/unlisted")+"index", "/unlisted")
		m.do("ZADD", m.prefix("/misfiled")+"groups", 0, "other\t/misfiled")
		m.do("ZREM", m.prefix("/unfiled")+"groups", "g\t/unfiled")
		m.do("HSET", m.prefix("/regrouped")+"memberships", "/regrouped", "other\t")
		app.mu.Lock()
		app.groups["/new"] = ""
		app.mu.Unlock()
		all = append(all, "/new")

		want := map[string]scales.DriftKind{
			"/edited": scales.Stale, "/header": scales.Stale, "/deleted": scales.Missing, "/cut": scales.Stale, "/extra": scales.Orphaned,
			"/hidden": scales.Orphaned, "/unlisted": scales.Stale, "/misfiled": scales.Stale, "/unfiled": scales.Stale,
			"/regrouped": scales.Stale, "/new": scales.Missing,
		}
		report := s.verify(all)
		if got := kinds(report); !maps.Equal(got, want) {
			t.Errorf("found %v\nwant %v\n%+v", got, want, report.Findings)
		}
		if report.Drift() != len(want) || report.Missing != 2 || report.Orphaned != 2 || report.Keys != len(all)+2 || len(report.Findings) != len(want) {
			t.Errorf("counts: %+v", report.VerifyState)
		}
		report = s.verify(all, scales.Repair())
		if report.Drift() != 0 || report.Repaired != len(want) {
			t.Errorf("after the repair: %+v", report)
		}
		if report = s.verify(all); report.Drift() != 0 || len(report.Findings) != 0 {
			t.Errorf("a second time: %+v", report)
		}
		s.send("GET", "/edited", "").is(t, 200, "version 0")
		s.send("GET", "/extra", "").problem(t, 404, "not-found")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"other"`)
		s.send("GET", "/misfiled", "").is(t, 200, "version 0")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"g"`)
		s.send("GET", "/unfiled", "").is(t, 200, "version 2")
	})
}

func TestVerifyTellsWhatCannotBeCompared(t *testing.T) {
	var broken atomic.Bool
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/private":
			w.Header().Set("Cache-Control", "private")
		case r.URL.Path == "/broken" && broken.Load():
			w.WriteHeader(500)
		case r.URL.Path == "/none":
			http.NotFound(w, r)
		default:
			_, _ = w.Write([]byte("a page"))
		}
	})
	s := start(t, redistest.Shared(t), app, setup{fill: []string{"/broken"}})
	only := scales.Text("pushed")
	only.PushOnly = true
	if err := s.cache.Push(context.Background(), "/only", only); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	report := s.verify([]string{"/broken", "/private", "/none", "/only", "no-slash"}, scales.VerifyParallel(1))
	want := map[string]scales.DriftKind{"/broken": scales.Unrenderable, "/private": scales.NotStorable, "no-slash": scales.Unrenderable}
	if got := kinds(report); !maps.Equal(got, want) || report.Pushed != 1 || report.Current != 1 || report.Drift() != 0 {
		t.Errorf("found %v: %+v", got, report)
	}
	if text := string(must(json.Marshal(report.Findings))(t)); !strings.Contains(text, `"reason":"status 500`) {
		t.Errorf("findings: %s", text)
	}
}

func TestVerifyNamesAsManyKeysAsItMay(t *testing.T) {
	app := newClub(map[string]string{"/a": "", "/b": "", "/c": ""})
	s := start(t, redistest.Shared(t), app, setup{})
	var states []scales.VerifyState
	report := s.verify([]string{"/a", "/b", "/c"}, scales.VerifyFindings(2), scales.VerifyProgress(func(s scales.VerifyState) { states = append(states, s) }))
	if report.Missing != 3 || len(report.Findings) != 2 || len(states) != 3 || states[2].Missing != 3 {
		t.Errorf("%+v, %+v", report, states)
	}
	if _, err := s.worker.Verify(context.Background(), scales.Keys(), scales.VerifyParallel(0)); err == nil || !strings.Contains(err.Error(), "VerifyParallel") {
		t.Errorf("a bad option: %v", err)
	}
	broken := errors.New("the database is away")
	if _, err := s.worker.Verify(context.Background(), func(yield func(string, error) bool) { yield("", broken) }); !errors.Is(err, broken) {
		t.Errorf("a sequence with an error: %v", err)
	}
}

// A job has changed the database, and its handler has not returned: the cache may be behind for as long as it takes.
func TestAJobUnderWayExplainsADifference(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		var version atomic.Int64
		changed, goOn := make(chan struct{}), make(chan struct{})
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				version.Add(1)
				close(changed)
				<-goOn
				return
			}
			_, _ = fmt.Fprint(w, "version ", version.Load())
		})
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/a"}})
		var all sync.WaitGroup
		all.Go(func() { s.send("POST", "/a", "").is(t, 200, "") })
		<-changed
		if report := s.verify([]string{"/a"}, scales.VerifyPatience(time.Second)); report.Drift() != 0 || report.Unsettled != 1 {
			t.Errorf("while the job runs: %+v", report)
		}
		verified := make(chan scales.VerifyReport, 1)
		all.Go(func() { verified <- s.verify([]string{"/a"}) })
		<-time.After(300 * time.Millisecond) // the difference is seen before the job ends; if not, the test shows less
		close(goOn)
		all.Wait()
		if report := <-verified; report.Drift() != 0 || report.Current != 1 {
			t.Errorf("the job ends meanwhile: %+v", report)
		}
	})
}

// Where Redis's clock was put back, tickets and the ids of jobs are ahead of it.
func TestVerifyWorksWhereTheClockWasPutBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx, hour := context.Background(), time.Now().Add(time.Hour)
		m := meddler{t, rdb, redistest.Namespace(t), partitions}
		for number := range partitions {
			m.do("HSET", partition.Prefix(m.namespace, number)+"meta", "clock", fmt.Sprintf("%020d", hour.UnixMicro()))
		}
		jobs := partition.Prefix(m.namespace, 0) + "q:jobs"
		id := fmt.Sprint(hour.UnixMilli(), "-0")
		m.do("XADD", jobs, id, "a", "job")
		m.do("XDEL", jobs, id)

		var version atomic.Int64
		changed, goOn := make(chan struct{}), make(chan struct{})
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				version.Add(1)
				close(changed)
				<-goOn
				return
			}
			_, _ = fmt.Fprint(w, "version ", version.Load())
		})
		all := []string{"/a", "/edited", "/deleted", "/good"}
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(m.namespace)}, fill: all})
		if written := must(s.cache.Explain(ctx, "/good"))(t).Written; written.Before(hour) {
			t.Fatalf("/good was written at %v: the clock was not put back", written)
		}
		m.do("SET", m.entry("/edited"), strings.Replace(rdb.Get(ctx, m.entry("/edited")).Val(), "version 0", "version X", 1))
		m.do("DEL", m.entry("/deleted"))
		want := map[string]scales.DriftKind{"/edited": scales.Stale, "/deleted": scales.Missing}
		if report := s.verify(all); !maps.Equal(kinds(report), want) || report.Current != 2 {
			t.Errorf("%+v", report)
		}
		if report := s.verify(all, scales.Repair()); report.Drift() != 0 || report.Repaired != 2 {
			t.Errorf("after the repair: %+v", report)
		}
		for b := (scales.Backlog{Running: 1}); b.Pending+b.Running > 0; { // a render that comes later would show what the job changes
			b = must(s.cache.Backlog(ctx))(t)
		}
		var job sync.WaitGroup
		job.Go(func() { s.send("POST", "/a", "").is(t, 200, "") })
		<-changed
		if queue := rdb.XRange(ctx, jobs, "-", "+").Val(); len(queue) != 1 || queue[0].ID <= id {
			t.Errorf("the queue has %v, and not a job with an id that is ahead", queue)
		}
		if report := s.verify([]string{"/a"}, scales.VerifySettling(0), scales.VerifyPatience(time.Second)); report.Drift() != 0 || report.Unsettled != len(all) {
			t.Errorf("while a job runs that changes all pages: %+v", report)
		}
		close(goOn)
		job.Wait()
		m.do("SET", m.entry("/edited"), strings.Replace(rdb.Get(ctx, m.entry("/edited")).Val(), "version 0", "version X", 1))
		want = map[string]scales.DriftKind{"/edited": scales.Stale, "/deleted": scales.Stale, "/good": scales.Stale} // /a is the target
		if report := s.verify(all, scales.Repair()); !maps.Equal(kinds(report), want) || report.Repaired != 3 {
			t.Errorf("after the job: %+v", report)
		}
		s.send("GET", "/edited", "").is(t, 200, "version 1")
	})
}

func TestVerifyReportsNothingBesideWrites(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/books"}})
		ctx, cancel := context.WithCancel(context.Background())
		var writers sync.WaitGroup
		for writer := range 4 {
			writers.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					method := []string{"PUT", "PUT", "DELETE"}[n%3]
					s.send(method, fmt.Sprintf("/books/%d", writer*10+n%10), fmt.Sprint("text ", n)).is(t, 204, "")
				}
			})
		}
		books := []string{"/books"}
		for n := range 40 {
			books = append(books, fmt.Sprint("/books/", n))
		}
		for range 5 {
			if report := s.verify(books); report.Drift() != 0 || report.Unrenderable != 0 {
				t.Errorf("%+v", report)
			}
		}
		cancel()
		writers.Wait()
		if report := s.verify(books); report.Drift()+report.Unsettled != 0 {
			t.Errorf("at the end: %+v", report)
		}
	})
}

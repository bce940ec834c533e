package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/canonical"
	"github.com/itscales/scales/internal/redistest"
)

// edition is an application whose pages are its edition, and which counts how often it was asked for each.
type edition struct {
	mu      sync.Mutex
	text    string
	answers map[string]http.HandlerFunc // of pages that are otherwise
	asked   map[string]int
}

func newEdition(text string) *edition {
	return &edition{text: text, answers: make(map[string]http.HandlerFunc), asked: make(map[string]int)}
}

func (e *edition) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.URL.RequestURI()
	e.mu.Lock()
	e.asked[key]++
	answer, text := e.answers[key], e.text
	e.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	_, _ = io.WriteString(w, text)
}

func (e *edition) change(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text = text
}

// answer has a page be otherwise, or with nil like the others.
func (e *edition) answer(key string, answer http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers[key] = answer
}

// renders returns how often the application was asked, in all and for each key, since renders was called last.
func (e *edition) renders() (total int, each map[string]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	each, e.asked = e.asked, make(map[string]int)
	for _, n := range each {
		total += n
	}
	return total, each
}

func broken(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }

// numbered returns n keys.
func numbered(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("/pages/%d", i))
	}
	return keys
}

// cutOff has a fill end in the middle, and returns how many keys it had worked on.
func (s *system) cutOff(after int, keys ...string) int {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	report, err := s.worker.Fill(ctx, scales.Keys(keys...), scales.FillParallel(4), scales.FillProgress(func(state scales.FillState) {
		if state.Keys == after {
			cancel()
		}
	}))
	if !errors.Is(err, context.Canceled) || report.Keys < after {
		s.t.Fatalf("a fill that was cut off: %+v, %v", report, err)
	}
	return report.Keys
}

// The fill that is gone on with renders what is missing; one that begins anew renders everything.
func TestAFillThatWasCutOffIsGoneOnWith(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		const n = 200
		app := newEdition("a page")
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		done := s.cutOff(n/2, numbered(n)...)
		err := s.cache.Ready(context.Background())
		if !errors.Is(err, scales.ErrNotFilled) || !strings.Contains(err.Error(), "a fill began at 20") {
			t.Errorf("ready after it was cut off: %v", err)
		}
		s.send("GET", "/missing", "").problem(t, 503, "not-filled")
		report := s.fill(numbered(n)...)
		if report.Keys != n || report.Stored != n || report.Resumed < done || report.Resumed >= n {
			t.Errorf("after %d keys: %+v", done, report)
		}
		const underWay = 4 // what was being rendered when the fill was cut off may be rendered twice
		if total, _ := app.renders(); total > n+underWay {
			t.Errorf("both fills cost %d renders of %d keys", total, n)
		}
		s.send("GET", "/missing", "").problem(t, 404, "not-found")
		if err := s.cache.Ready(context.Background()); err != nil {
			t.Errorf("ready: %v", err)
		}

		done = s.cutOff(n/2, numbered(n)...)
		if total, _ := app.renders(); total < done {
			t.Errorf("after a fill that has ended, one begins with %d renders of %d keys", total, done)
		}
		report = must(s.worker.Fill(context.Background(), scales.Keys(numbered(n)...), scales.FillAnew()))(t)
		if total, _ := app.renders(); report.Stored != n || report.Resumed != 0 || total < n {
			t.Errorf("anew: %+v with %d renders", report, total)
		}
		if report = s.fill(numbered(n)...); report.Resumed != 0 {
			t.Errorf("after one that began anew and has ended: %+v", report)
		}
	})
}

func TestAFillRendersOnlyWhatFailedBefore(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newEdition("old")
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/before", "/a"}})
		app.renders()
		app.change("new")
		app.answer("/broken", broken)
		app.answer("/none", http.NotFound)
		all := []string{"/a", "/b", "/before", "/broken", "/none"}
		if report, err := s.worker.Fill(context.Background(), scales.Keys(all...)); !errors.Is(err, scales.ErrFillIncomplete) || report.Failed != 1 {
			t.Errorf("%+v, %v", report, err)
		}
		if _, each := app.renders(); !maps.Equal(each, map[string]int{"/a": 1, "/b": 1, "/before": 1, "/broken": 1, "/none": 1}) {
			t.Errorf("entries from before the fill are no reason to render less: %v", each)
		}
		app.change("newer")
		app.answer("/broken", nil)
		report := s.fill(all...)
		if report.Keys != 5 || report.Stored != 4 || report.Resumed != 3 || report.Refused != 1 || report.Failed != 0 {
			t.Errorf("%+v", report)
		}
		if _, each := app.renders(); !maps.Equal(each, map[string]int{"/broken": 1, "/none": 1}) {
			t.Errorf("rendered: %v", each)
		}
		s.send("GET", "/a", "").is(t, 200, "new")
		s.send("GET", "/broken", "").is(t, 200, "newer")
	})
}

// Only what is whole, in the index, and was asked for since the fill began needs no render.
func TestAFillThatIsGoneOnWithRendersWhatIsInDoubt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		namespace := redistest.Namespace(t)
		app := newEdition("rendered")
		app.answer("/broken", broken)
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(namespace)}, fill: []string{"/old"}, idle: true})
		pushed := scales.Text("pushed")
		pushed.PushOnly = true
		if err := s.cache.Push(ctx, "/push-only-before", pushed); err != nil {
			t.Fatal(err)
		}
		all := []string{"/broken", "/whole", "/lost", "/cut", "/unlisted", "/list", "/destroyed"}
		if _, err := s.worker.Fill(ctx, scales.Keys(all...)); !errors.Is(err, scales.ErrFillIncomplete) {
			t.Fatal(err)
		}
		name := func(key, rest string) string {
			return fmt.Sprintf("{%s:%d}:%s", namespace, canonical.Partition(key, partitions), rest)
		}
		whole := must(rdb.Get(ctx, name("/cut", "e:/cut")).Result())(t)
		err := errors.Join(
			rdb.Del(ctx, name("/lost", "e:/lost")).Err(),
			rdb.Set(ctx, name("/cut", "e:/cut"), whole[:len(whole)-1], 0).Err(),
			rdb.ZRem(ctx, name("/unlisted", "index"), "/unlisted").Err(),
			rdb.Del(ctx, name("/list", "e:/list")).Err(),
			rdb.RPush(ctx, name("/list", "e:/list"), "x").Err(),
			s.cache.Destroy(ctx, "/destroyed"),
			s.cache.Push(ctx, "/pushed", scales.Text("pushed")),
			s.cache.Push(ctx, "/pushed-exactly", scales.Text("pushed").At(must(s.cache.Ticket(ctx))(t))),
			s.cache.Push(ctx, "/push-only", pushed),
		)
		if err != nil {
			t.Fatal(err)
		}
		app.renders()
		app.answer("/broken", nil)
		report := s.fill(append(all, "/old", "/pushed", "/pushed-exactly", "/push-only", "/push-only-before")...)
		if report.Keys != 12 || report.Stored != 12 || report.Resumed != 3 { // whole, pushed exactly, push-only
			t.Errorf("%+v", report)
		}
		_, each := app.renders()
		want := []string{"/broken", "/cut", "/destroyed", "/list", "/lost", "/old", "/pushed", "/unlisted"}
		if rendered := slices.Sorted(maps.Keys(each)); !slices.Equal(rendered, want) {
			t.Errorf("rendered: %v, want %v", rendered, want)
		}
	})
}

// Where Redis has lost writes, what is there may be from before one of them, whatever its ticket says.
func TestAFillThatIsGoneOnWithTrustsNothingWhereWritesWereLost(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		app := newEdition("old")
		app.answer("/broken", broken)
		m := meddler{t, rdb, redistest.Namespace(t), partitions}
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(m.namespace)}, fill: []string{}})
		all := append(numbered(20), "/broken")
		if report, err := s.worker.Fill(ctx, scales.Keys(all...)); !errors.Is(err, scales.ErrFillIncomplete) {
			t.Fatalf("%+v, %v", report, err)
		}
		app.change("new") // and its renders are what was lost
		app.answer("/broken", nil)
		for _, key := range all {
			m.do("HSET", m.prefix(key)+"meta", "unsure", fmt.Sprintf("%020d", time.Now().UnixMicro()))
		}
		if err := s.cache.Ready(ctx); !errors.Is(err, scales.ErrUnsure) {
			t.Errorf("before: %v", err)
		}
		if report := s.fill(all...); report.Stored != len(all) || report.Resumed != 0 {
			t.Errorf("%+v", report)
		}
		for _, key := range all {
			s.send("GET", key, "").is(t, 200, "new")
		}
		if err := s.cache.Ready(ctx); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

// A write between the fills counts as well: what it had rendered is current.
func TestAFillThatIsGoneOnWithKeepsWhatWasWrittenSince(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newShelf()
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}})
		if _, err := s.worker.Fill(context.Background(), scales.Keys("no-slash")); !errors.Is(err, scales.ErrFillIncomplete) {
			t.Fatal(err)
		}
		s.send("PUT", "/books/1", "Emma").is(t, 204, "")
		report := s.fill("/books", "/books/1")
		if report.Stored != 2 || report.Resumed != 2 || app.rendered("/books") != 1 || app.rendered("/books/1") != 1 {
			t.Errorf("%+v, with %d and %d renders", report, app.rendered("/books"), app.rendered("/books/1"))
		}
		s.send("GET", "/books/1", "").is(t, 200, "Emma")
		s.send("GET", "/books", "").is(t, 200, "1 books")
	})
}

// Two fills at once share their record: what the first renders, the second finds. Each marks the cache at its end.
func TestFillsAtTheSameTimeShareTheWork(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newEdition("a page")
		reached, resume := make(chan struct{}), make(chan struct{})
		app.answer("/slow", func(http.ResponseWriter, *http.Request) {
			close(reached)
			<-resume
		})
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		ended := make(chan error, 1)
		go func() {
			report, err := s.worker.Fill(context.Background(), scales.Keys("/a", "/b", "/slow"), scales.FillParallel(1))
			if report.Stored != 3 || report.Resumed != 0 {
				t.Errorf("the first: %+v", report)
			}
			ended <- err
		}()
		<-reached
		s.send("GET", "/missing", "").problem(t, 503, "not-filled")
		if report := s.fill("/a", "/b", "/c"); report.Stored != 3 || report.Resumed != 2 {
			t.Errorf("the second: %+v", report)
		}
		s.send("GET", "/missing", "").problem(t, 404, "not-found")
		close(resume)
		if err := <-ended; err != nil {
			t.Errorf("the first, after the end of the second: %v", err)
		}
		if report := s.fill("/a", "/b", "/c"); report.Resumed != 0 {
			t.Errorf("a third, after both: %+v", report)
		}
	})
}

func TestOptionsOfAFillAreCheckedTogether(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{})
	defer func() { _ = rdb.Close() }()
	w := must(scales.NewWorker(must(scales.NewCache(rdb))(t), newShelf()))(t)
	_, err := w.Fill(context.Background(), scales.Keys("/"), scales.FillParallel(0), scales.MaxKeys(0))
	for _, name := range []string{"FillParallel", "MaxKeys", "MaxKeys: it needs FollowLinks"} {
		if err == nil || !strings.Contains(err.Error(), "option "+name) {
			t.Errorf("option %s is not named in: %v", name, err)
		}
	}
}

package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/redistest"
)

// polyglot is an application with pages in several languages. A text is put as "en=tea, de=Tee"; a language that is not
// among them has no such page, and one whose text is "!500" or "!private" answers so.
type polyglot struct {
	mu    sync.Mutex
	texts map[string]map[string]string // by path, and by language
	asked map[string][]string          // by path: with which fields
}

func newPolyglot() *polyglot {
	return &polyglot{texts: make(map[string]map[string]string), asked: make(map[string][]string)}
}

func (p *polyglot) put(path, texts string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.texts[path] = make(map[string]string)
	for text := range strings.SplitSeq(texts, ", ") {
		language, text, _ := strings.Cut(text, "=")
		p.texts[path][language] = text
	}
}

// takeAsked returns how the application was asked for a path since the last time.
func (p *polyglot) takeAsked(path string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked[path]
	delete(p.asked, path)
	return slices.Sorted(slices.Values(asked))
}

func (p *polyglot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		body, _ := io.ReadAll(r.Body)
		p.put(r.URL.Path, string(body))
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodDelete:
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.texts, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	language, device := r.Header.Get("Accept-Language"), r.Header.Get("X-Device")
	p.asked[r.URL.Path] = append(p.asked[r.URL.Path], language+" "+device)
	texts := p.texts[r.URL.Path]
	if text, ok := texts["any"]; ok {
		_, _ = io.WriteString(w, text)
		return
	}
	w.Header().Add("Vary", "accept-language, Accept-Encoding")
	w.Header().Set("Content-Language", language)
	w.Header().Set("Cache-Groups", fmt.Sprintf(`"all", "in-%s"`, language))
	text, ok := texts[language]
	switch {
	case strings.HasPrefix(text, "on "):
		w.Header().Add("Vary", "X-Device")
		_, _ = io.WriteString(w, text+" "+device)
	case text == "!500":
		w.WriteHeader(http.StatusInternalServerError)
	case text == "!private":
		w.Header().Set("Cache-Control", "private")
	case !ok:
		http.NotFound(w, r)
	default:
		_, _ = io.WriteString(w, text)
	}
}

func inLanguages(more ...scales.CacheOption) []scales.CacheOption {
	return append(more, scales.Vary("accept-language", "en", "de", "fr"), scales.Vary("X-Device", "", "phone"))
}

func (s *system) in(language, target string) response {
	s.t.Helper()
	return s.send("GET", target, "", "Accept-Language", language)
}

func TestEveryVariantIsServedAndCurrent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		for _, test := range []struct {
			name string
			copy int64
		}{{"from Redis", 0}, {"from a copy", 1 << 20}} {
			t.Run(test.name, func(t *testing.T) {
				app := newPolyglot()
				app.put("/drink", "en=tea, de=Tee, fr=the")
				s := start(t, rdb, app, setup{
					cache: inLanguages(scales.Partitions(partitions)), server: []scales.ServerOption{scales.LocalCopy(test.copy)}, fill: []string{"/drink"},
				})
				if asked := app.takeAsked("/drink"); !slices.Equal(asked, []string{"de ", "en ", "fr "}) {
					t.Errorf("the fill has asked for %q", asked)
				}
				tags := make(map[string]bool)
				for range 2 {
					s.send("GET", "/drink", "").is(t, 200, "tea")
					for language, text := range map[string]string{"en": "tea", "de": "Tee", "fr": "the", "de-CH, de;q=0.9": "Tee", "ja": "tea"} {
						got := s.in(language, "/drink").is(t, 200, text)
						if vary := got.Header.Get("Vary"); !strings.Contains(strings.ToLower(vary), "accept-language") {
							t.Errorf("Vary: %s", vary)
						}
						tag := got.Header.Get("Etag")
						tags[tag] = true
						s.send("GET", "/drink", "", "Accept-Language", language, "If-None-Match", tag).is(t, 304, "")
						s.send("HEAD", "/drink", "", "Accept-Language", language).is(t, 200, "")
					}
				}
				if len(tags) != 3 {
					t.Errorf("three variants have the tags %v", tags)
				}
				s.send("PUT", "/drink", "en=coffee, de=Kaffee, fr=cafe").is(t, 204, "")
				for language, text := range map[string]string{"en": "coffee", "de": "Kaffee", "fr": "cafe"} {
					s.in(language, "/drink").is(t, 200, text)
				}
				if asked := app.takeAsked("/drink"); len(asked) != 3 {
					t.Errorf("a change and reads have asked for %q", asked)
				}
				s.send("DELETE", "/drink", "").is(t, 204, "")
				for _, language := range []string{"en", "de", "fr"} {
					s.in(language, "/drink").problem(t, 404, "not-found")
				}
			})
		}
	})
}

// What does not vary is rendered once, as for a client that wants what most want.
func TestWhatDoesNotVaryHasOneVariant(t *testing.T) {
	app := newPolyglot()
	app.put("/logo", "any=picture")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/logo"}})
	if asked := app.takeAsked("/logo"); !slices.Equal(asked, []string{"en "}) {
		t.Errorf("it was asked for %q", asked)
	}
	s.in("de", "/logo").is(t, 200, "picture")
	if e := must(s.cache.Explain(context.Background(), "/logo"))(t); e.Variants != 0 {
		t.Errorf("it has %d variants", e.Variants)
	}
}

func TestAVariantThatThereIsNotIsMissing(t *testing.T) {
	app := newPolyglot()
	app.put("/only", "de=nur hier")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/only"}})
	for range 2 {
		s.in("de", "/only").is(t, 200, "nur hier")
		s.in("en", "/only").problem(t, 404, "not-found")
		s.send("GET", "/only", "").problem(t, 404, "not-found")
	}
	ctx := context.Background()
	if _, err := s.cache.Get(ctx, "/only"); err == nil {
		t.Error("Get returns another variant than the first")
	}
	s.send("PUT", "/only", "en=here, de=hier").is(t, 204, "")
	s.in("en", "/only").is(t, 200, "here")
	if e := must(s.cache.Get(ctx, "/only"))(t); string(e.Body) != "here" {
		t.Errorf("Get returns %q", e.Body)
	}
	if e := must(s.cache.Explain(ctx, "/only"))(t); e.State != "entry" || e.Variants != 3 || e.Status != 200 || e.Bytes != len("here")+len("hier") ||
		!slices.Equal(slices.Sorted(slices.Values(e.Groups)), []string{"all", "in-de", "in-en"}) {
		t.Errorf("the explanation is %+v", e)
	}
}

// A second field counts where one of the variants says that it was selected by it.
func TestOneVariantMayVaryByMore(t *testing.T) {
	app := newPolyglot()
	app.put("/app", "en=web, de=on Android:")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/app"}})
	if asked := app.takeAsked("/app"); !slices.Equal(asked, []string{"de ", "de phone", "en ", "en phone", "fr ", "fr phone"}) {
		t.Errorf("it was asked for %q", asked)
	}
	s.send("GET", "/app", "", "Accept-Language", "de", "X-Device", "phone").is(t, 200, "on Android: phone")
	s.send("GET", "/app", "", "Accept-Language", "de", "X-Device", "fridge").is(t, 200, "on Android: ")
	got := s.send("GET", "/app", "", "Accept-Language", "en", "X-Device", "phone").is(t, 200, "web")
	if vary := got.Header.Get("Vary"); !strings.Contains(vary, "X-Device") {
		t.Errorf("Vary: %s, which another variant of the page depends on", vary)
	}
}

// The entry changes as a whole or not at all.
func TestAVariantThatFailsKeepsTheOthersBack(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=tea, de=Tee, fr=the")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/drink"}})
	s.send("PUT", "/drink", "en=coffee, de=!500").is(t, 204, "")
	s.in("en", "/drink").is(t, 200, "tea")
	s.in("fr", "/drink").is(t, 200, "the")
	if e := must(s.cache.Explain(context.Background(), "/drink"))(t); e.Failure == nil || !strings.Contains(e.Failure.Error, "Accept-Language: de") {
		t.Errorf("the failure is %+v", e.Failure)
	}
	s.send("PUT", "/drink", "en=coffee, de=!private").is(t, 204, "")
	s.in("en", "/drink").problem(t, 404, "not-found")
	if e := must(s.cache.Explain(context.Background(), "/drink"))(t); !strings.Contains(e.Refusal, "private (Accept-Language: de") {
		t.Errorf("the refusal is %q", e.Refusal)
	}
}

func TestVariantsTogetherAreLimited(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=123456, de=123456, fr=123456")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(scales.MaxEntrySize(17)), idle: true})
	s.isRefused("/drink", "over 17 bytes")
}

// isRefused expects that a fill cannot store a page.
func (s *system) isRefused(key, reason string) {
	s.t.Helper()
	s.fill(key)
	if e := must(s.cache.Explain(context.Background(), key))(s.t); !strings.Contains(e.Refusal, reason) {
		s.t.Errorf("%s: the explanation is %+v", key, e)
	}
}

func TestCacheFirstServesVariants(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=tea, de=Tee")
	cache := newCache(t, redistest.Shared(t), inLanguages()...)
	service := scales.CacheFirst(cache)(app)
	s := embedded(t, cache, service)
	s.worker = must(scales.NewWorker(cache, service))(t)
	s.fill("/drink")
	app.takeAsked("/drink")
	for range 2 {
		s.in("de", "/drink").is(t, 200, "Tee")
		s.in("en", "/drink").is(t, 200, "tea")
	}
	if asked := app.takeAsked("/drink"); len(asked) > 0 {
		t.Errorf("hits have asked the application for %q", asked)
	}
	s.in("fr", "/drink").is(t, 404, "404 page not found\n") // a miss, for the application to answer
	s.send("PUT", "/drink", "en=coffee, de=Kaffee").is(t, 204, "")
	app.takeAsked("/drink")
	s.in("de", "/drink").is(t, 200, "Kaffee")
	if asked := app.takeAsked("/drink"); len(asked) > 0 {
		t.Errorf("a hit has asked the application for %q", asked)
	}
}

func TestVerifyComparesVariants(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=tea, de=Tee")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/drink"}})
	if report := s.verify([]string{"/drink"}); report.Drift() != 0 {
		t.Errorf("without a change: %+v", report)
	}
	for _, texts := range []string{"en=tea, de=Kaffee", "en=tea", "en=tea, de=Tee, fr=the", "any=water", "en=on a: , de=on b: "} {
		app.put("/drink", texts)
		if report := s.verify([]string{"/drink"}); report.Drift() != 1 {
			t.Errorf("%s: %+v", texts, report)
		}
		s.verify([]string{"/drink"}, scales.Repair())
		if report := s.verify([]string{"/drink"}); report.Drift() != 0 {
			t.Errorf("%s, after a repair: %+v", texts, report)
		}
	}
}

// A page leads to others in any of its variants.
func TestLinksOfAllVariantsAreFollowed(t *testing.T) {
	links := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		language := r.Header.Get("Accept-Language")
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/" {
			w.Header().Set("Vary", "Accept-Language")
		}
		_, _ = fmt.Fprintf(w, `<a href="/in/%s">`, language)
	})
	s := start(t, redistest.Shared(t), links, setup{cache: inLanguages(), idle: true})
	must(s.worker.Fill(context.Background(), scales.Keys("/"), scales.FollowLinks()))(t)
	for _, language := range []string{"en", "de", "fr"} {
		s.send("GET", "/in/"+language, "").is(t, 200, `<a href="/in/en">`)
	}
}

func TestVariesByWhatWasDeclaredOnly(t *testing.T) {
	varies := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", strings.TrimPrefix(r.URL.Path, "/"))
	})
	s := start(t, redistest.Shared(t), varies, setup{cache: inLanguages(), idle: true})
	for _, name := range []string{"*", "Cookie", "Accept-Language,User-Agent"} {
		s.isRefused("/"+name, "Vary: ")
	}
	for _, options := range [][]scales.CacheOption{
		{scales.Vary("Cookie", "a")}, {scales.Vary("Accept-Language")}, {scales.Vary("Accept-Language", "en", "German")},
		{scales.Vary("X-A", "a"), scales.Vary("x-a", "b")},
	} {
		if _, err := scales.NewCache(redistest.Shared(t), options...); err == nil || !strings.Contains(err.Error(), "option Vary") {
			t.Errorf("the error is %v", err)
		}
	}
}

// An application that gives all variants one tag, the version of a row, has them told apart, and gets its own tag back.
func TestVariantsWithOneTagAreToldApart(t *testing.T) {
	for _, size := range []int64{0, 1 << 20} {
		var asked string
		app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				asked = r.Header.Get("If-Match")
				return
			}
			w.Header().Set("Vary", "Accept-Language")
			w.Header().Set("Etag", `"v7"`)
			_, _ = io.WriteString(w, "in "+r.Header.Get("Accept-Language"))
		})
		s := start(t, redistest.Shared(t), app, setup{
			cache: inLanguages(), server: []scales.ServerOption{scales.LocalCopy(size)}, fill: []string{"/page"},
		})
		english, german := s.in("en", "/page"), s.in("de", "/page")
		if english.Header.Get("Etag") == german.Header.Get("Etag") {
			t.Errorf("both have the tag %s", english.Header.Get("Etag"))
		}
		tag := german.Header.Get("Etag")
		s.send("GET", "/page", "", "Accept-Language", "en", "If-None-Match", tag).is(t, 200, "in en")
		s.send("GET", "/page", "", "Accept-Language", "de", "If-None-Match", tag).is(t, 304, "")
		s.send("PUT", "/page", "", "If-Match", tag).is(t, 200, "")
		if asked != `"v7"` {
			t.Errorf("the application is asked for %s", asked)
		}
	}
}

func TestWhatIsPushedHasNoVariants(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=tea, de=Tee")
	s := start(t, redistest.Shared(t), app, setup{cache: inLanguages(), fill: []string{"/drink"}})
	ctx := context.Background()
	got := must(s.cache.Get(ctx, "/drink"))(t)
	if err := s.cache.Push(ctx, "/drink", got); !errors.Is(err, scales.ErrNotStorable) || !strings.Contains(err.Error(), "has no variants") {
		t.Errorf("the error is %v", err)
	}
	s.in("de", "/drink").is(t, 200, "Tee")
}

// A missing variant is an answer that was selected, too.
func TestAMissingVariantSaysWhatItVariesBy(t *testing.T) {
	for _, size := range []int64{0, 1 << 20} {
		app := newPolyglot()
		app.put("/only", "de=hier")
		s := start(t, redistest.Shared(t), app, setup{
			cache: inLanguages(), server: []scales.ServerOption{scales.LocalCopy(size)}, fill: []string{"/only"},
		})
		if vary := s.in("en", "/only").problem(t, 404, "not-found").Header.Get("Vary"); vary != "Accept-Language" {
			t.Errorf("Vary: %q", vary)
		}
	}
}

// After a change of the option a fill from the beginning makes the new variants; until then there are the old ones.
func TestTheDeclaredValuesMayChange(t *testing.T) {
	app := newPolyglot()
	app.put("/drink", "en=tea, de=Tee, fr=the")
	namespace := scales.Namespace(redistest.Namespace(t))
	s := start(t, redistest.Shared(t), app, setup{
		idle: true, cache: []scales.CacheOption{namespace, scales.Vary("Accept-Language", "en", "de")}, fill: []string{"/drink"},
	})
	later := start(t, redistest.Shared(t), app, setup{idle: true, cache: []scales.CacheOption{namespace, scales.Vary("Accept-Language", "fr", "en")}})
	for _, server := range []*system{s, later} {
		server.in("de", "/drink").is(t, 200, "Tee")
		server.in("fr", "/drink").is(t, 200, "tea")
	}
	must(later.worker.Fill(context.Background(), scales.Keys("/drink"), scales.FillAnew()))(t)
	later.in("de", "/drink").is(t, 200, "the")
	later.in("en", "/drink").is(t, 200, "tea")
	later.in("fr", "/drink").is(t, 200, "the")
}

package scales_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/redistest"
)

// document answers with a document of a media type.
func document(mediaType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = io.WriteString(w, text)
	}
}

// linking answers with a page that has these links.
func linking(references ...string) http.HandlerFunc {
	var text strings.Builder
	for _, reference := range references {
		fmt.Fprintf(&text, "<a href=%q>a link</a>", reference)
	}
	return document("text/html", text.String())
}

// keysOf returns the keys of all entries, sorted.
func (s *system) keysOf() []string {
	s.t.Helper()
	return slices.Sorted(read(s.t, s.cache.Keys(context.Background())))
}

// read yields the keys of a sequence without errors.
func read(t *testing.T, keys iter.Seq2[string, error]) iter.Seq[string] {
	return func(yield func(string) bool) {
		t.Helper()
		for key, err := range keys {
			if err != nil {
				t.Error(err)
			}
			if err != nil || !yield(key) {
				return
			}
		}
	}
}

func TestAFillFollowsTheLinksOfPages(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newEdition("no links")
		app.answer("/", linking("/a#top", "/%61", "b", "https://www.example.com:443/c", "//other.example/x", "mailto:somebody@example.com",
			"/list?page=2&utm_source=mail", "/gone", "/bad%zz", "/old"))
		app.answer("/a", linking("/", "/a", "/gone"))
		app.answer("/b", document("text/html", `<base href="/deep/"><link rel="stylesheet" href="style.css"><img src="cover.png">`))
		app.answer("/deep/style.css", document("text/css", `body { background: url(back.png) }`))
		app.answer("/old", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://www.example.com/new")
			w.WriteHeader(http.StatusMovedPermanently)
		})
		app.answer("/gone", http.NotFound)
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{
			scales.Partitions(partitions), scales.Origin("https://www.example.com"), scales.QueryParameters("page"),
		}})
		report := must(s.worker.Fill(context.Background(), scales.Keys("/", "/start"), scales.FollowLinks()))(t)
		want := []string{
			"/", "/a", "/b", "/c", "/deep/back.png", "/deep/cover.png", "/deep/style.css", "/list?page=2", "/new", "/old", "/start",
		}
		if got := s.keysOf(); !slices.Equal(got, want) {
			t.Errorf("filled: %v, want %v", got, want)
		}
		if report.Keys != len(want)+1 || report.Stored != len(want) || report.Refused != 1 || report.Failed != 0 {
			t.Errorf("%+v", report)
		}
		if len(report.Problems) != 1 || report.Problems[0].Key != "/gone" || !strings.Contains(report.Problems[0].Reason, "/ leads there") {
			t.Errorf("problems: %+v, want /gone and the page that links to it", report.Problems)
		}
		if total, each := app.renders(); total != len(want)+1 {
			t.Errorf("%d renders: %v", total, each)
		}
		s.send("GET", "/missing", "").problem(t, 404, "not-found")
	})
}

// The pages that are there already lead on like those that are rendered.
func TestAFillThatFollowsLinksIsGoneOnWith(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newEdition("no links")
		app.answer("/", linking("/a"))
		app.answer("/a", linking("/broken"))
		app.answer("/broken", broken)
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		report, err := s.worker.Fill(context.Background(), scales.Keys("/"), scales.FollowLinks())
		if !errors.Is(err, scales.ErrFillIncomplete) || report.Failed != 1 {
			t.Errorf("%+v, %v", report, err)
		}
		app.renders()
		app.answer("/broken", linking("/b"))
		report = must(s.worker.Fill(context.Background(), scales.Keys("/"), scales.FollowLinks()))(t)
		if _, each := app.renders(); report.Stored != 4 || report.Resumed != 2 || each["/broken"] != 1 || each["/b"] != 1 || len(each) != 2 {
			t.Errorf("%+v; rendered: %v", report, each)
		}
	})
}

// A calendar without end is not followed for ever.
func TestLinksWithoutEndAreFollowedUpToALimit(t *testing.T) {
	redistest.Require(t)
	var asked, busy, most atomic.Int64
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), busy.Add(1)))
		defer busy.Add(-1)
		n := asked.Add(1)
		linking(fmt.Sprint("/day/", 2*n), fmt.Sprint("/day/", 2*n+1))(w, r)
	})
	s := start(t, redistest.Shared(t), app, setup{idle: true})
	report, err := s.worker.Fill(context.Background(), scales.Keys("/"), scales.FollowLinks(), scales.MaxKeys(300), scales.FillParallel(3))
	if !errors.Is(err, scales.ErrTooManyKeys) || !strings.Contains(err.Error(), "300 (option MaxKeys)") {
		t.Errorf("%v", err)
	}
	if n := asked.Load(); n > 300 || report.Keys > 300 {
		t.Errorf("%d renders, %+v", n, report)
	}
	if n := most.Load(); n > 3 {
		t.Errorf("%d pages were rendered at once", n)
	}
	s.send("GET", "/missing", "").problem(t, 503, "not-filled")

	ctx, cancel := context.WithCancelCause(context.Background())
	enough := errors.New("enough")
	_, err = s.worker.Fill(ctx, scales.Keys("/elsewhere"), scales.FollowLinks(), scales.FillProgress(func(state scales.FillState) {
		if state.Keys == 50 {
			cancel(enough)
		}
	}))
	if !errors.Is(err, enough) {
		t.Errorf("when its context ends: %v", err)
	}
}

func TestLinksToAnotherOfOurHostsAreFollowedThere(t *testing.T) {
	redistest.Require(t)
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host + r.URL.Path {
		case "a.example/":
			linking("/here", "//b.example/there", "//c.example/x")(w, r)
		default:
			linking("on")(w, r)
		}
	})
	s := start(t, redistest.Shared(t), app, setup{idle: true, cache: []scales.CacheOption{scales.Hosts("a.example", "b.example")}})
	must(s.worker.Fill(context.Background(), scales.Keys("//a.example/"), scales.FollowLinks()))(t)
	want := []string{"//a.example/", "//a.example/here", "//a.example/on", "//b.example/on", "//b.example/there"}
	if got := s.keysOf(); !slices.Equal(got, want) {
		t.Errorf("filled: %v, want %v", got, want)
	}
}

func urlset(locations ...string) string {
	return "<urlset><url><loc>" + strings.Join(locations, "</loc></url><url><loc>") + "</loc></url></urlset>"
}

func sitemapIndex(locations ...string) string {
	return "<sitemapindex><sitemap><loc>" + strings.Join(locations, "</loc></sitemap><sitemap><loc>") + "</loc></sitemap></sitemapindex>"
}

func TestAFillTakesItsKeysFromASitemap(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		must(io.WriteString(w, urlset("https://example.com/c", "https://example.com/list?page=2&amp;utm_source=mail")))(t)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		app := newEdition("a page")
		app.answer("/sitemap.xml", document("application/xml", sitemapIndex(
			"https://example.com/one.xml", "https://other.example/two.xml", "https://example.com/three.xml.gz")))
		app.answer("/one.xml", document("application/xml", urlset("https://example.com/", "http://EXAMPLE.com/%61", "https://other.example/b")))
		app.answer("/three.xml.gz", document("application/gzip", packed.String()))
		s := start(t, rdb, app, setup{idle: true, cache: []scales.CacheOption{
			scales.Partitions(partitions), scales.Origin("https://example.com"), scales.QueryParameters("page"),
		}})
		report := must(s.worker.Fill(context.Background(), s.worker.Sitemap(context.Background(), "/sitemap.xml")))(t)
		want := []string{"/", "/a", "/c", "/list?page=2"}
		if got := s.keysOf(); !slices.Equal(got, want) || report.Stored != 4 {
			t.Errorf("filled: %v, want %v; %+v", got, want, report)
		}
		if log := s.logs.text(); strings.Count(log, "were skipped") != 1 || !strings.Contains(log, "skipped=2 first=https://other.example/b") {
			t.Error("the two locations of another origin are not logged once")
		}
		for range read(t, s.worker.Sitemap(context.Background(), "/sitemap.xml")) {
			break // whoever wants no more gets no more
		}
	})
}

func TestASitemapThatCannotBeReadEndsAFill(t *testing.T) {
	redistest.Require(t)
	app := newEdition("no sitemap")
	app.answer("/none.xml", http.NotFound)
	app.answer("/broken.xml", broken)
	app.answer("/private.xml", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		document("application/xml", urlset("/"))(w, r)
	})
	app.answer("/moved.xml", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/sitemap.xml", http.StatusFound) })
	app.answer("/deep.xml", document("application/xml", sitemapIndex("http://localhost/deep.xml")))
	app.answer("/cut.xml", document("application/xml", `<urlset><url><loc>/a</loc></url><url>`))
	app.answer("/index.xml", document("application/xml", sitemapIndex("/none.xml")))
	s := start(t, redistest.Shared(t), app, setup{idle: true})
	for _, key := range []string{"/text", "/none.xml", "/broken.xml", "/private.xml", "/moved.xml", "/deep.xml", "/cut.xml", "/index.xml"} {
		_, err := s.worker.Fill(context.Background(), s.worker.Sitemap(context.Background(), key))
		if !errors.Is(err, scales.ErrSitemap) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := s.worker.Fill(context.Background(), s.worker.Sitemap(context.Background(), "no-slash")); !errors.Is(err, scales.ErrKey) {
		t.Errorf("a bad key: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.worker.Fill(context.Background(), s.worker.Sitemap(ended, "/text")); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	s.send("GET", "/missing", "").problem(t, 503, "not-filled")
}

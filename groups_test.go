package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// club is an application whose pages show one version, and are in the groups that a client has put them into. A request
// that changes the version says what the test wants it to say.
type club struct {
	mu      sync.Mutex
	version int
	groups  map[string]string // Cache-Groups by path
	renders map[string]int
}

func newClub(groups map[string]string) *club {
	return &club{groups: groups, renders: make(map[string]int)}
}

func (c *club) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	groups, ok := c.groups[r.URL.Path]
	if r.Method == http.MethodGet {
		if !ok {
			http.NotFound(w, r)
			return
		}
		c.renders[r.URL.Path]++
		if groups != "" {
			w.Header().Set("Cache-Groups", groups)
		}
		_, _ = fmt.Fprint(w, "version ", c.version)
		return
	}
	c.version++
	body, _ := io.ReadAll(r.Body)
	says, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for name, value := range says {
		switch name {
		case "update-groups":
			_ = scales.Writer(r.Context()).UpdateGroups(r.Context(), value...)
		case "join":
			c.groups[value[0]] = value[1]
		case "status":
			defer func() {
				var status int
				_, _ = fmt.Sscan(value[0], &status)
				w.WriteHeader(status)
			}()
		default:
			w.Header()[name] = value
		}
	}
}

// change sends a request that changes the version and is answered as said.
func (s *system) change(method, target string, says ...string) {
	s.t.Helper()
	form := make(url.Values)
	for i := 0; i < len(says); i += 2 {
		form.Add(says[i], says[i+1])
	}
	status := 200
	if form.Has("status") {
		_, _ = fmt.Sscan(form.Get("status"), &status)
	}
	s.send(method, target, form.Encode()).is(s.t, status, "")
}

func TestAChangeOfAGroupRendersItsMembers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newClub(map[string]string{
			"/a": `"x"`, "/b": `"y", "x";why="not"`, "/c": `"y"`, "/none": "", "/odd": `"with \"quotes\", and a comma"`, "/bad": `x`,
		})
		s := start(t, rdb, app, setup{
			cache: []scales.CacheOption{scales.Partitions(partitions)},
			fill:  []string{"/a", "/b", "/c", "/none", "/odd", "/bad"},
		})
		version := 0
		shows := func(changed ...string) {
			t.Helper()
			version++
			for path := range app.groups {
				want := 0
				if slices.Contains(changed, path) {
					want = version
				}
				if res := s.send("GET", path, ""); want > 0 {
					res.is(t, 200, fmt.Sprint("version ", want))
				} else if res.body == fmt.Sprint("version ", version) {
					t.Errorf("%s was rendered as well", path)
				}
			}
		}
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
		shows("/a", "/b")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"y"`, "Cache-Group-Invalidation", `"x"`)
		shows("/a", "/b", "/c")
		s.change("POST", "/elsewhere", "update-groups", "y", "update-groups", "nobody is in this")
		shows("/b", "/c")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"with \"quotes\", and a comma"`)
		shows("/odd")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x", y`) // is ignored as a whole
		shows()
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`, "status", "409")
		shows("/a", "/b")
		s.change("OPTIONS", "/elsewhere", "Cache-Group-Invalidation", `"x"`) // is safe
		shows()
		if !strings.Contains(s.logs.text(), "a page is in no group") || !strings.Contains(s.logs.text(), "cannot be read") {
			t.Error("malformed fields were not logged")
		}
		s.send("GET", "/b", "").is(t, 200, s.send("GET", "/a", "").body)
		if got := s.send("GET", "/b", "").Header.Get("Cache-Groups"); got != app.groups["/b"] {
			t.Errorf("Cache-Groups: %s", got)
		}
	})
}

func TestMembershipFollowsEachRender(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newClub(map[string]string{"/a": `"x"`, "/b": `"y"`})
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/a", "/b"}})
		s.change("PUT", "/a", "join", "/a", "join", `"y"`)
		before := app.renders["/a"]
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
		if app.renders["/a"] != before {
			t.Error("it has left the group and is rendered with it")
		}
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"y"`)
		for _, path := range []string{"/a", "/b"} {
			s.send("GET", path, "").is(t, 200, "version 3")
		}
	})
}

// A group change renders its members, not the members of their other groups (RFC 9875).
func TestGroupsDoNotCascade(t *testing.T) {
	app := newClub(map[string]string{"/a": `"x", "y"`, "/b": `"y"`})
	s := start(t, redistest.Shared(t), app, setup{fill: []string{"/a", "/b"}})
	s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
	s.send("GET", "/a", "").is(t, 200, "version 1")
	s.send("GET", "/b", "").is(t, 200, "version 0")
}

// Nobody knows how far a request that failed has come.
func TestWhatAFailedRequestNamedIsRenderedSomeTime(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newClub(map[string]string{"/a": `"x"`, "/b": `"y"`, "/target": `"z"`, "/c": `"z"`})
		s := start(t, rdb, app, setup{
			cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: []string{"/a", "/b", "/target", "/c"},
		})
		s.change("PUT", "/target", "Cache-Group-Invalidation", `"x"`, "update-groups", "y", "status", "500")
		for _, path := range []string{"/a", "/b", "/target", "/c"} {
			s.await(path, "version 1")
		}
	})
}

// await waits until a page has a body.
func (s *system) await(path, body string) {
	s.t.Helper()
	await.Until(s.t, path+" is "+body, func() bool { return s.send("GET", path, "").body == body })
}

func TestMembersBeyondTheLimitAreRenderedInTheBackground(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		groups := make(map[string]string)
		var paths []string
		for i := range 500 {
			paths = append(paths, fmt.Sprint("/", i))
			groups[paths[i]] = `"x"`
		}
		app := newClub(groups)
		s := start(t, rdb, app, setup{
			cache: []scales.CacheOption{scales.Partitions(partitions)}, fill: paths,
			worker: []scales.WorkerOption{scales.GroupLimit(20)},
		})
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
		current := 0
		app.mu.Lock()
		for _, path := range paths {
			if app.renders[path] > 1 {
				current++
			}
		}
		app.mu.Unlock()
		if current < 20 {
			t.Errorf("%d members were rendered before the reply", current)
		}
		for _, path := range paths {
			s.await(path, "version 1")
		}
		if err := s.cache.UpdateGroups(context.Background(), "nobody", "x"); err != nil {
			t.Fatal(err)
		}
		app.mu.Lock()
		app.version++
		app.mu.Unlock()
		if err := s.cache.UpdateGroups(context.Background(), "x"); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			s.await(path, "version 2")
		}
	})
}

func TestGroupsThatAreBadAreRefused(t *testing.T) {
	s := start(t, redistest.Shared(t), newClub(nil), setup{idle: true})
	for _, bad := range []string{"söng", "a\tb", "a\nb", strings.Repeat("x", 129)} {
		if err := s.cache.UpdateGroups(context.Background(), "good", bad); !errors.Is(err, scales.ErrGroup) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := s.cache.Push(context.Background(), "/a", scales.Text("a").In("good", bad)); !errors.Is(err, scales.ErrNotStorable) {
			t.Errorf("a push into %q: %v", bad, err)
		}
	}
	if err := s.cache.Push(context.Background(), "/a", scales.Text("a").With("Cache-Groups", "bad")); !errors.Is(err, scales.ErrNotStorable) {
		t.Errorf("a push with a malformed field: %v", err)
	}
}

func TestPushedEntriesAreInGroups(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		app := newClub(map[string]string{"/a": `"x"`})
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions)}})
		ctx := context.Background()
		ticket := must(s.cache.Ticket(ctx))(t)
		if err := s.cache.Push(ctx, "/a", scales.Text("pushed").In("x", "z").At(ticket)); err != nil {
			t.Fatal(err)
		}
		only := scales.Text("only pushed").In("x")
		only.PushOnly = true
		if err := s.cache.Push(ctx, "/b", only); err != nil {
			t.Fatal(err)
		}
		s.send("GET", "/a", "").is(t, 200, "pushed")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"z"`)
		s.send("GET", "/a", "").is(t, 200, "version 1")
		s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
		s.send("GET", "/a", "").is(t, 200, "version 2")
		s.send("GET", "/b", "").is(t, 200, "only pushed")
	})
}

// Groups of two origins are different ones, where hosts count.
func TestGroupsBelongToAHost(t *testing.T) {
	var version int
	app := handler(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Cache-Groups", `"x"`)
			_, _ = fmt.Fprint(w, r.Host, " version ", version)
			return
		}
		version++
		w.Header().Set("Cache-Group-Invalidation", `"x"`)
	})
	s := start(t, redistest.Shared(t), app, setup{
		cache: []scales.CacheOption{scales.Hosts("one.example", "two.example")}, fill: []string{"//one.example/", "//two.example/"},
	})
	s.send("POST", "/x", "", "Host", "one.example:80").is(t, 200, "")
	s.send("GET", "/", "", "Host", "one.example").is(t, 200, "one.example version 1")
	s.send("GET", "/", "", "Host", "two.example").is(t, 200, "two.example version 0")
	if err := s.cache.UpdateGroups(context.Background(), "x"); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"one.example", "two.example"} {
		await.Until(t, "the page of "+host+" is rendered", func() bool { return s.send("GET", "/", "", "Host", host).body == host+" version 1" })
	}
}

func TestGroupsBehindCacheFirstAndAProxy(t *testing.T) {
	app := newClub(map[string]string{"/a": `"x"`})
	upstream := httptest.NewServer(app)
	t.Cleanup(upstream.Close)
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(upstream.URL))(t))
	s := start(t, redistest.Shared(t), proxy, setup{fill: []string{"/a"}})
	s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
	s.send("GET", "/a", "").is(t, 200, "version 1")

	inPlace := httptest.NewServer(scales.CacheFirst(s.cache)(app))
	t.Cleanup(inPlace.Close)
	s.url = inPlace.URL
	s.change("POST", "/elsewhere", "Cache-Group-Invalidation", `"x"`)
	s.send("GET", "/a", "").is(t, 200, "version 2")
}

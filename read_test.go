package scales_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

const unreachable = "scales; hit; detail=store-unreachable"

// eachRoomy is redistest.Each with clients that have a connection for each partition, and for each server that follows it.
func eachRoomy(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, partitions int)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		if cluster, ok := rdb.(*redis.ClusterClient); ok {
			roomy := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Options().Addrs, ContextTimeoutEnabled: true, PoolSize: 100})
			t.Cleanup(func() { _ = roomy.Close() })
			rdb = roomy
		}
		test(t, rdb, partitions)
	})
}

// reads counts how often entries are read from a Redis, by their keys.
type reads struct {
	mu     sync.Mutex
	counts map[string]int
	before func(key string) // called before a read, if it is there
}

func countReads(client redis.UniversalClient) *reads {
	r := &reads{counts: make(map[string]int)}
	client.AddHook(r)
	return r
}

func (r *reads) of(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[key]
}

func (r *reads) note(cmd redis.Cmder) {
	if cmd.Name() != "mget" {
		return
	}
	for _, arg := range cmd.Args()[1:] {
		_, key, _ := strings.Cut(fmt.Sprint(arg), "}:e:")
		r.mu.Lock()
		r.counts[key]++
		r.mu.Unlock()
		if r.before != nil {
			r.before(key)
		}
	}
}

func (r *reads) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *reads) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.note(cmd)
		return next(ctx, cmd)
	}
}

func (r *reads) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			r.note(cmd)
		}
		return next(ctx, cmds)
	}
}

// Many write and read their pages, and each finds what it has written, through the server that has answered it; another
// server shows it soon, and no reader sees a page become older.
func TestALocalCopyShowsEveryWriteThatWasAnswered(t *testing.T) {
	eachRoomy(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		options := []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(redistest.Namespace(t))}
		s := start(t, rdb, newShelf(), setup{fill: []string{"/books"}, cache: options})
		other := s.serve(rdb, options)
		const writers, writes = 6, 15
		var writing, reading sync.WaitGroup
		var done atomic.Bool
		for _, server := range []*system{s, other} {
			for reader := range 2 {
				reading.Go(func() {
					random := rand.New(rand.NewPCG(uint64(reader), 1))
					last := make(map[string]int)
					for !done.Load() {
						page := fmt.Sprint("/books/", random.IntN(writers))
						got := server.send("GET", page, "")
						if got.StatusCode == 404 && last[page] == 0 {
							continue
						}
						n := 0
						if _, err := fmt.Sscan(got.body, &n); err != nil || got.StatusCode != 200 || n < last[page] {
							t.Errorf("%s: %d %q after %d", page, got.StatusCode, got.body, last[page])
							return
						}
						last[page] = n
					}
				})
			}
		}
		for writer := range writers {
			writing.Go(func() {
				page := fmt.Sprint("/books/", writer)
				for i := 1; i <= writes; i++ {
					through, elsewhere := s, other
					if i%2 == 0 {
						through, elsewhere = other, s
					}
					text := fmt.Sprint(i)
					through.send("PUT", page, text).is(t, 204, "")
					through.send("GET", page, "").is(t, 200, text)
					await.Until(t, "the other server shows it", func() bool { return elsewhere.send("GET", page, "").body == text })
				}
			})
		}
		writing.Wait()
		done.Store(true)
		reading.Wait()
		for _, server := range []*system{s, other} {
			await.Until(t, "the list is current", func() bool {
				return server.send("GET", "/books", "").body == fmt.Sprint(writers, " books")
			})
		}
	})
}

// What a program pushes and destroys is seen at once through the server of its process, and soon through another.
func TestALocalCopyShowsWhatAProgramHasChanged(t *testing.T) {
	eachRoomy(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		options := []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(redistest.Namespace(t))}
		s := start(t, rdb, newShelf(), setup{idle: true, cache: options})
		other := s.serve(rdb, options)
		ctx := context.Background()
		if err := s.cache.MarkFilled(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			text := fmt.Sprint("text ", i)
			if err := s.cache.Push(ctx, "/a", pushOnly(text)); err != nil {
				t.Fatal(err)
			}
			s.send("GET", "/a", "").is(t, 200, text)
			await.Until(t, "the other server shows it", func() bool { return other.send("GET", "/a", "").body == text })
			if i%3 > 0 {
				continue
			}
			if err := s.cache.Destroy(ctx, "/a"); err != nil {
				t.Fatal(err)
			}
			s.send("GET", "/a", "").problem(t, 404, "not-found")
			await.Until(t, "it is gone", func() bool { return other.send("GET", "/a", "").StatusCode == 404 })
		}
	})
}

// pushed starts a server whose cache has some entries that no worker renders, and reads them.
func pushed(t *testing.T, rdb redis.UniversalClient, s setup, count int) *system {
	t.Helper()
	s.idle = true
	sys := start(t, rdb, newShelf(), s)
	ctx := context.Background()
	for i := range count {
		if err := sys.cache.Push(ctx, fmt.Sprint("/", i), pushOnly(strings.Repeat("x", 1000)+fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := sys.cache.MarkFilled(ctx); err != nil {
		t.Fatal(err)
	}
	return sys
}

// While Redis is away the copy is served and marked; what it has not got is refused at once. When Redis is back, what
// others have changed meanwhile is shown before the mark goes.
func TestHitsGoOnWhileRedisIsAway(t *testing.T) {
	redistest.Require(t)
	const timeout = 5 * time.Second
	server := redistest.Start(t, redistest.AppendOnly())
	proxy := redistest.StartProxy(t, server.Addr())
	through := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
	defer func() { _ = through.Close() }()
	counts := countReads(through)
	namespace := scales.Namespace(redistest.Namespace(t))
	s := pushed(t, through, setup{cache: []scales.CacheOption{namespace, scales.StoreTimeout(timeout)}}, 1)
	ctx := context.Background()
	others := must(scales.NewCache(server.Client(t), namespace))(t)
	defer func() { _ = others.Close(ctx) }()

	for round, outage := range map[string]struct{ begin, end func() }{
		"cut off": {proxy.Cut, proxy.Restore},
		"hanging": {proxy.Hang, proxy.Restore},
		"killed":  {server.Kill, server.Restart},
	} {
		before, after := round+" before", round+" after"
		if err := s.cache.Push(ctx, "/page", pushOnly(before)); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "the page is a hit without a mark, and comes from the copy", func() bool {
			reads := counts.of("/page")
			got := s.send("GET", "/page", "")
			return got.body == before && got.Header.Get("Cache-Status") == "scales; hit" && counts.of("/page") == reads
		})
		outage.begin()
		await.Until(t, "hits are marked", func() bool {
			got := s.send("GET", "/page", "").is(t, 200, before)
			return got.Header.Get("Cache-Status") == unreachable
		})
		asked := time.Now()
		s.send("GET", "/"+round, "").problem(t, 503, "store-unreachable")
		if took := time.Since(asked); took > timeout/4 {
			t.Errorf("%s: what is not in the copy is refused after %v", round, took)
		}
		if round != "killed" {
			if err := others.Push(ctx, "/page", pushOnly(after)); err != nil {
				t.Fatal(err)
			}
		} else {
			after = before
		}
		s.send("GET", "/page", "").is(t, 200, before)
		outage.end()
		await.Until(t, "the mark goes", func() bool {
			got := s.send("GET", "/page", "")
			if mark := got.Header.Get("Cache-Status"); mark == unreachable {
				return false
			}
			got.is(t, 200, after)
			return true
		})
	}
}

// A cache that was flushed is not filled, and its pages are not served from a copy.
func TestAFlushEmptiesTheLocalCopy(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	rdb := server.Client(t)
	s := pushed(t, rdb, setup{}, 3)
	ctx := context.Background()
	for i := range 3 {
		s.send("GET", fmt.Sprint("/", i), "").is(t, 200, strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		await.Until(t, "the page is gone", func() bool { return s.send("GET", fmt.Sprint("/", i), "").StatusCode != 200 })
		s.send("GET", fmt.Sprint("/", i), "").problem(t, 503, "not-filled")
	}
	if err := s.cache.Push(ctx, "/0", pushOnly("new")); err != nil {
		t.Fatal(err)
	}
	s.send("GET", "/0", "").is(t, 200, "new")
}

func TestWithoutALocalCopyEveryReadAsksRedis(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	rdb := server.Client(t)
	counts := countReads(rdb)
	s := pushed(t, rdb, setup{
		server: []scales.ServerOption{scales.LocalCopy(0)}, cache: []scales.CacheOption{scales.StoreTimeout(300 * time.Millisecond)},
	}, 1)
	for range 5 {
		s.send("GET", "/0", "").is(t, 200, strings.Repeat("x", 1000)+"0")
	}
	if n := counts.of("/0"); n != 5 {
		t.Errorf("five reads ask Redis %d times", n)
	}
	if err := s.server.Warm(context.Background()); err != nil {
		t.Error(err)
	}
	server.Kill()
	s.send("GET", "/0", "").problem(t, 503, "store-unreachable")
}

func TestAWarmServerNeedsNoRedis(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	const count = 1500 // more than Warm asks for at once
	s := pushed(t, server.Client(t), setup{cache: []scales.CacheOption{scales.Partitions(3)}}, count)
	if err := s.server.Warm(context.Background()); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for i := range count {
		s.send("GET", fmt.Sprint("/", i), "").is(t, 200, strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.server.Warm(ctx); err == nil {
		t.Error("it is warmed without Redis")
	}
}

// While others write, nothing is left out.
func TestAServerGetsWarmBesideWrites(t *testing.T) {
	rdb := redistest.Shared(t)
	const count = 1000
	s := pushed(t, rdb, setup{}, count)
	counts := countReads(rdb)
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.cache.Push(context.Background(), "/changing", pushOnly(fmt.Sprint(i))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if err := s.server.Warm(context.Background()); err != nil {
		t.Error(err)
	}
	close(stop)
	writer.Wait()
	missing := 0
	for i := range count {
		page := fmt.Sprint("/", i)
		before := counts.of(page)
		s.send("GET", page, "").is(t, 200, strings.Repeat("x", 1000)+fmt.Sprint(i))
		missing += counts.of(page) - before
	}
	if missing > count/100 {
		t.Errorf("%d of %d pages are not in the copy", missing, count)
	}
}

func TestWarmWithoutRedisEndsWithItsContext(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	s := start(t, server.Client(t), newShelf(), setup{idle: true, cache: []scales.CacheOption{scales.StoreTimeout(200 * time.Millisecond)}})
	server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := s.server.Warm(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, scales.ErrUnavailable) {
		t.Errorf("the error is %v", err)
	}
}

// What is pushed out of a copy that is too small is read from Redis again.
func TestACopyThatIsTooSmallLosesNothing(t *testing.T) {
	rdb := redistest.Shared(t)
	const count = 200
	s := pushed(t, rdb, setup{server: []scales.ServerOption{scales.LocalCopy(40 << 10)}}, count)
	if err := s.server.Warm(context.Background()); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		i := random.IntN(count)
		s.send("GET", fmt.Sprint("/", i), "").is(t, 200, strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
}

// Many who miss the same page at once ask Redis once.
func TestMissesOfAPageAreShared(t *testing.T) {
	rdb := redistest.StartEmbedded(t).Client(t)
	counts := countReads(rdb)
	const readers = 50
	var arrived atomic.Int64
	came := make(chan struct{})
	s := pushed(t, rdb, setup{}, 2)
	s.server.Use(func(next http.Handler) http.Handler {
		return handler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/1" && arrived.Add(1) == readers {
				close(came)
			}
			next.ServeHTTP(w, r)
		})
	})
	s.send("GET", "/0", "").is(t, 200, strings.Repeat("x", 1000)+"0") // the log is followed
	await.Until(t, "hits come from the copy", func() bool {
		before := counts.of("/0")
		s.send("GET", "/0", "")
		return counts.of("/0") == before
	})
	counts.before = func(key string) {
		if key == "/1" {
			<-came
			<-time.After(100 * time.Millisecond) // from the middleware to where the read is waited for
		}
	}
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() { s.send("GET", "/1", "").is(t, 200, strings.Repeat("x", 1000)+"1") })
	}
	reading.Wait()
	if n := counts.of("/1"); n != 1 {
		t.Errorf("%d readers ask Redis %d times", readers, n)
	}
}

// CacheFirst has a copy, too: it is current after a change, and serves while Redis is away, when the service answers what
// is not in it.
func TestCacheFirstServesFromALocalCopy(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	rdb := server.Client(t)
	counts := countReads(rdb)
	app := newShelf()
	cache := newCache(t, rdb, scales.StoreTimeout(300*time.Millisecond))
	service := scales.CacheFirst(cache, scales.LocalCopy(1<<20), scales.RenderTimeout(time.Second))(app)
	s := embedded(t, cache, service)
	for i := range 10 {
		text := fmt.Sprint("text ", i)
		s.send("PUT", "/books/a", text).is(t, 204, "")
		s.send("GET", "/books/a", "").is(t, 200, text)
	}
	await.Until(t, "hits come from the copy", func() bool {
		before := counts.of("/books/a")
		s.send("GET", "/books/a", "").is(t, 200, "text 9")
		return counts.of("/books/a") == before
	})
	rendered := app.rendered("/books/a")
	server.Kill()
	await.Until(t, "hits are marked", func() bool {
		return s.send("GET", "/books/a", "").is(t, 200, "text 9").Header.Get("Cache-Status") == unreachable
	})
	if n := app.rendered("/books/a"); n != rendered {
		t.Errorf("the service was asked %d times for what is in the copy", n-rendered)
	}
	app.mu.Lock()
	app.books["b"] = "text of b"
	app.mu.Unlock()
	if got := s.send("GET", "/books/b", "").is(t, 200, "text of b"); got.Header.Get("Cache-Status") != "" {
		t.Error("what the service answers is marked as a hit")
	}
}

// Entries are served in the coding that a client accepts, with validators that hold, from Redis and from the copy; what is
// stored is the same that is served.
func TestACodedEntryEndToEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		text := strings.Repeat("All happy families are alike. ", 200)
		var matched atomic.Value
		app := handler(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				matched.Store(r.Header.Get("If-Match") + " " + r.Header.Get("If-None-Match"))
				return
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, text)
		})
		namespace := redistest.Namespace(t)
		s := start(t, rdb, app, setup{cache: []scales.CacheOption{scales.Partitions(partitions), scales.Namespace(namespace)}, fill: []string{"/page"}})

		number := 0
		for ; number < partitions; number++ {
			if rdb.Exists(context.Background(), partition.Prefix(namespace, number)+"e:/page").Val() == 1 {
				break
			}
		}
		raw := rdb.Get(context.Background(), partition.Prefix(namespace, number)+"e:/page").Val()
		entry := must(message.ParseEntry(raw))(t)
		if string(entry.Body) != text || len(entry.Codings) != 3 {
			t.Fatalf("stored are %d bytes and %d codings", len(entry.Body), len(entry.Codings))
		}
		stored := make(map[string]string)
		for _, c := range entry.Codings {
			stored[c.Name] = string(c.Body)
		}
		decode := map[string]func(io.Reader) (io.Reader, error){
			"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
			"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
			"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		}
		plain := s.send("GET", "/page", "").is(t, 200, text)
		tag := plain.Header.Get("Etag")
		if tag == "" || plain.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("%v", plain.Header)
		}
		for name, decoder := range decode {
			for range 2 { // the second one is from the copy
				got := s.send("GET", "/page", "", "Accept-Encoding", name)
				if got.StatusCode != 200 || got.Header.Get("Content-Encoding") != name || got.body != stored[name] ||
					got.Header.Get("Content-Length") != fmt.Sprint(len(got.body)) {
					t.Errorf("%s: %d, %v, %d bytes", name, got.StatusCode, got.Header, len(got.body))
				}
				coded := must(decoder(strings.NewReader(got.body)))(t)
				if body, err := io.ReadAll(coded); string(body) != text || err != nil {
					t.Errorf("%s is decoded to %d bytes, %v", name, len(body), err)
				}
				codedTag := got.Header.Get("Etag")
				if want := strings.TrimSuffix(tag, `"`) + "--" + name + `"`; codedTag != want {
					t.Errorf("%s has the tag %s, want %s", name, codedTag, want)
				}
				same := s.send("GET", "/page", "", "Accept-Encoding", name, "If-None-Match", codedTag).is(t, 304, "")
				if same.Header.Get("Etag") != codedTag {
					t.Errorf("304 has the tag %s", same.Header.Get("Etag"))
				}
				head := s.send("HEAD", "/page", "", "Accept-Encoding", name).is(t, 200, "")
				if head.Header.Get("Content-Length") != fmt.Sprint(len(stored[name])) || head.Header.Get("Content-Encoding") != name {
					t.Errorf("HEAD: %v", head.Header)
				}
				s.send("PUT", "/page", "", "If-Match", codedTag, "If-None-Match", `"other--`+name+`"`).is(t, 200, "")
				if got := matched.Load(); got != tag+` "other"` {
					t.Errorf("the application sees %s, want %s", got, tag)
				}
			}
		}
		s.send("GET", "/page", "", "If-None-Match", tag).is(t, 304, "")
		s.send("GET", "/page", "", "If-Match", `"other"`).problem(t, 412, "precondition-failed")
		s.send("GET", "/page", "", "Range", "bytes=0-2").is(t, 206, "All")
	})
}

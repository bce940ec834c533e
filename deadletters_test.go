package scales_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/redistest"
)

// graveyard is a system with dead letters as workers leave them.
type graveyard struct {
	*system
	rdb       redis.UniversalClient
	namespace string
}

func newGraveyard(t *testing.T, rdb redis.UniversalClient, app http.Handler, s setup) *graveyard {
	t.Helper()
	g := &graveyard{rdb: rdb, namespace: redistest.Namespace(t)}
	s.cache = append(s.cache, scales.Namespace(g.namespace))
	g.system = start(t, rdb, app, s)
	return g
}

// bury makes a dead letter of a request.
func (g *graveyard) bury(job, request string) (id string) {
	g.t.Helper()
	return must(g.rdb.XAdd(context.Background(), &redis.XAddArgs{Stream: "{" + g.namespace + ":0}:q:dead", Values: []string{
		"reason", "its worker died and it may not be repeated", "drift", "1", "queued", "1795420306879-0", "id", job,
		"server", "8e75ae19cacb9d7183f6d8f1d3da431d", "deadline", "1795423210134947", "scheme", "http", "remote", "192.0.2.7:1234", "request", request,
	}}).Result())(g.t)
}

// letters returns all dead letters, when there are so many.
func (g *graveyard) letters(want int) []scales.DeadLetter {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		var all []scales.DeadLetter
		for letter, err := range g.cache.Queue().DeadLetters(context.Background()) {
			if err != nil {
				g.t.Fatal(err)
			}
			all = append(all, letter)
		}
		stats := must(g.cache.Queue().Stats(context.Background()))(g.t)
		if len(all) == want && stats.Jobs == 0 {
			return all
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%d dead letters and %+v, want %d", len(all), stats, want)
		}
	}
}

const post = "POST /books HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nEmma"

func TestADeadLetterIsReplayedAsItWas(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		var remote string
		app := newShelf()
		watched := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				remote = r.RemoteAddr
			}
			app.ServeHTTP(w, r)
		})
		g := newGraveyard(t, rdb, watched, setup{fill: []string{"/books"}, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		ctx, queue := context.Background(), g.cache.Queue()
		id, other := g.bury("1234", post), g.bury("5678", post)

		letter := must(queue.DeadLetter(ctx, id))(t)
		queued, err := time.Parse(time.RFC3339Nano, "2026-11-23T07:51:46.879Z")
		if err != nil {
			t.Fatal(err)
		}
		if letter.ID != id || letter.JobID != "1234" || letter.Request != post || letter.Remote != "192.0.2.7:1234" || !letter.Drift ||
			letter.Replays != 0 || !letter.Queued.Equal(queued) || time.Since(letter.Died).Abs() > time.Hour || letter.Reason == "" {
			t.Errorf("the dead letter is %+v", letter)
		}
		for range 2 { // go-redis sends calls again
			if err := queue.Replay(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		if all := g.letters(1); all[0].ID != other {
			t.Errorf("%+v is left, want %s", all, other)
		}
		g.send("GET", "/books", "").is(t, 200, "1 books")
		g.send("GET", "/books/1", "").is(t, 200, "Emma")
		if remote != "192.0.2.7:1234" {
			t.Errorf("the application was asked by %s", remote)
		}
		if e := must(g.cache.Explain(ctx, "/books/1"))(t); e.Job != "1234" {
			t.Errorf("the page is of the job %q", e.Job)
		}
		if names := must(keysOf(rdb, "{"+g.namespace+":0}:q:replies:nobody"))(t); names != 0 {
			t.Error("the reply to nobody is kept")
		}
	})
}

func keysOf(rdb redis.UniversalClient, name string) (int64, error) {
	return rdb.Exists(context.Background(), name).Result()
}

// What is replayed in vain is a dead letter again, and says so.
func TestAReplayThatFailsIsADeadLetterAgain(t *testing.T) {
	var calls atomic.Int64
	answers := map[string]func(http.ResponseWriter){
		"/broken":  func(w http.ResponseWriter) { w.WriteHeader(500) },
		"/panic":   func(http.ResponseWriter) { panic("no") },
		"/refused": func(w http.ResponseWriter) { w.WriteHeader(401) },
	}
	g := newGraveyard(t, redistest.Shared(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			calls.Add(1)
			answers[r.URL.Path](w)
		}
		_, _ = io.WriteString(w, "a page")
	}), setup{})
	ctx, queue := context.Background(), g.cache.Queue()
	for path, reason := range map[string]string{"/broken": "status 500", "/panic": "panicked", "/refused": "status 401"} {
		calls.Store(0)
		id := g.bury("1", "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		for replays := range 2 {
			if err := queue.Replay(ctx, id); err != nil {
				t.Fatal(err)
			}
			letter := g.letters(1)[0]
			if letter.ID == id || letter.Replays != replays+1 || letter.JobID != "1" || !letter.Drift || !strings.Contains(letter.Reason, reason) ||
				letter.Cause != "its worker died and it may not be repeated" || letter.Queued.UnixMilli() != 1795420306879 {
				t.Errorf("%s: the dead letter is %+v", path, letter)
			}
			id = letter.ID
		}
		if calls.Load() != 2 {
			t.Errorf("%s: %d calls, want 2", path, calls.Load())
		}
		if n := must(queue.Drop(ctx, id))(t); n != 1 {
			t.Errorf("%d were dropped", n)
		}
		g.letters(0)
	}
	// Nothing of what the replays did counts as another loss.
	if stats := must(queue.Stats(ctx))(t); stats.Drift != 0 {
		t.Errorf("%+v", stats)
	}
}

// A response that is too large is none that anybody waits for.
func TestAReplayWithALargeResponseIsDone(t *testing.T) {
	var calls atomic.Int64
	g := newGraveyard(t, redistest.Shared(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			calls.Add(1)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 100))
	}), setup{worker: []scales.WorkerOption{scales.MaxReply(10)}})
	if err := g.cache.Queue().Replay(context.Background(), g.bury("1", post)); err != nil {
		t.Fatal(err)
	}
	g.letters(0)
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

// Who replays all there are gets to the end, although what fails is a dead letter again.
func TestADeadLetterIsListedOnce(t *testing.T) {
	const count = 30
	var calls atomic.Int64
	g := newGraveyard(t, redistest.Shared(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.WriteHeader(500)
	}), setup{})
	for range count {
		g.bury("1", post)
	}
	ctx, queue := context.Background(), g.cache.Queue()
	replays := 0
	for letter, err := range queue.DeadLetters(ctx) {
		if err == nil {
			err = queue.Replay(ctx, letter.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		replays++
		await.Until(t, "the job is a dead letter again", func() bool { return must(queue.Stats(ctx))(t).DeadLetters == count })
	}
	if g.letters(count); replays != count || calls.Load() < count {
		t.Errorf("%d replays, %d calls", replays, calls.Load())
	}
}

func TestADeadLetterIsNotReplayedIntoAFullQueue(t *testing.T) {
	g := newGraveyard(t, redistest.Shared(t), newShelf(), setup{idle: true})
	id := g.bury("1", post)
	pipe := g.rdb.Pipeline()
	for range 1000 {
		pipe.XAdd(context.Background(), &redis.XAddArgs{Stream: "{" + g.namespace + ":0}:q:jobs", Values: []string{"id", "2"}})
	}
	_ = must(pipe.Exec(context.Background()))(t)
	if err := g.cache.Queue().Replay(context.Background(), id); !errors.Is(err, scales.ErrQueueFull) {
		t.Error(err)
	}
	if _, err := g.cache.Queue().DeadLetter(context.Background(), id); err != nil {
		t.Error(err)
	}
}

func TestADeadLetterIsShownWithoutItsRequest(t *testing.T) {
	letter := scales.DeadLetter{
		ID: "1-0", Scheme: "https", Remote: "192.0.2.7:1234",
		Request: "POST /login?x HTTP/1.1\r\nHost: a.example\r\nCookie: secret\r\nContent-Type: text/plain\r\n\r\nsecret\r\n\r\ntoo",
	}
	for _, shown := range []string{fmt.Sprint(letter), fmt.Sprintf("%+v", letter), letter.LogValue().String()} {
		if strings.Contains(shown, "secret") {
			t.Error(shown)
		}
	}
	r := must(letter.HTTPRequest())(t)
	body := must(io.ReadAll(r.Body))(t)
	if r.Method != "POST" || r.URL.RequestURI() != "/login?x" || r.Host != "a.example" || r.Header.Get("Cookie") != "secret" ||
		string(body) != "secret\r\n\r\ntoo" || r.ContentLength != int64(len(body)) || r.RemoteAddr != letter.Remote || r.TLS == nil {
		t.Errorf("%+v, %q", r, body)
	}
	if _, err := (scales.DeadLetter{Request: "no"}).HTTPRequest(); !errors.Is(err, scales.ErrNoJob) {
		t.Error(err)
	}
}

func TestDeadLettersThatThereAreNot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		g := newGraveyard(t, rdb, newShelf(), setup{idle: true, cache: []scales.CacheOption{scales.Partitions(partitions)}})
		ctx, queue := context.Background(), g.cache.Queue()
		broken := g.bury("", "")
		for _, id := range []string{"1-1", "", "-", "+", "1", "x-1", "1-1-1", "1-01", "+1-1"} {
			if _, err := queue.DeadLetter(ctx, id); !errors.Is(err, scales.ErrNoDeadLetter) {
				t.Errorf("DeadLetter(%q): %v", id, err)
			}
			if err := queue.Replay(ctx, id); !errors.Is(err, scales.ErrNoDeadLetter) {
				t.Errorf("Replay(%q): %v", id, err)
			}
			if n, err := queue.Drop(ctx, id); n != 0 || id != "1-1" && !errors.Is(err, scales.ErrNoDeadLetter) {
				t.Errorf("Drop(%q): %d, %v", id, n, err)
			}
		}
		for _, id := range []string{broken, g.bury("1", "no request")} {
			if err := queue.Replay(ctx, id); !errors.Is(err, scales.ErrNoJob) {
				t.Errorf("what is no job: %v", err)
			}
			if n, err := queue.Drop(ctx, id); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
		if n, err := queue.Drop(ctx); n != 0 || err != nil {
			t.Errorf("nothing: %d, %v", n, err)
		}
		if n, err := queue.Drop(ctx, g.bury("1", post), "1-1"); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		g.letters(0)
	})
}

// Who waits gets a 503 for a job that no worker begins in time; where nobody does, it must not vanish.
func TestAReplayThatNoWorkerBeginsIsADeadLetterAgain(t *testing.T) {
	app := newShelf()
	g := newGraveyard(t, redistest.Shared(t), app, setup{fill: []string{"/books"}})
	if err := g.rdb.XAdd(context.Background(), &redis.XAddArgs{Stream: "{" + g.namespace + ":0}:q:jobs", Values: []string{
		"id", "1", "server", "nobody", "deadline", "1", "scheme", "http", "remote", "192.0.2.7:1234", "request", post, "replays", "1",
	}}).Err(); err != nil {
		t.Fatal(err)
	}
	if letter := g.letters(1)[0]; letter.Replays != 1 || !strings.Contains(letter.Reason, "no worker has begun it") {
		t.Errorf("the dead letter is %+v", letter)
	}
	g.send("GET", "/books", "").is(t, 200, "0 books")
}

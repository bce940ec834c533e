package localcopy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/itscales/scales/internal/localcopy"
)

type (
	part    = localcopy.Part[string]
	fetched = localcopy.Fetched[string]
)

const large = 1 << 20

// newPart returns the only part of a new copy, whose log is followed from 1-0 on.
func newPart(t *testing.T, limit int64, guards localcopy.Guards) (*localcopy.Copy[string], *part) {
	t.Helper()
	c := localcopy.New[string](1, limit, guards)
	t.Cleanup(c.Close)
	p := c.Part(0)
	p.Begin("1-0")
	return c, p
}

// value is what a fetch brings of the log up to at.
func value(v, at string) func(string) (fetched, error) {
	return func(string) (fetched, error) { return fetched{Value: v, Size: len(v), Keep: true, At: at}, nil }
}

func fetch(t *testing.T, p *part, key string, get func(string) (fetched, error)) string {
	t.Helper()
	v, err := p.Fetch(context.Background(), key, get)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// has expects that the copy has a value under a key, "" for none.
func has(t *testing.T, p *part, key, want string) {
	t.Helper()
	if got, _, ok := p.Get(key); got != want || ok != (want != "") {
		t.Errorf("the copy has %q under %s, %t; want %q", got, key, ok, want)
	}
}

func is(t *testing.T, p *part, want localcopy.State) {
	t.Helper()
	if _, state, _ := p.Get("/none"); state != want {
		t.Errorf("the state is %d, want %d", state, want)
	}
}

// underWay begins a fetch that lands when land is called with what it brings. wait returns what the caller has got.
func underWay(t *testing.T, p *part, key string) (since string, land func(fetched, error) (v string, err error)) {
	t.Helper()
	type outcome struct {
		fetched
		error
	}
	begun, brings, got := make(chan string), make(chan outcome), make(chan outcome, 1)
	go func() {
		v, err := p.Fetch(context.Background(), key, func(since string) (fetched, error) {
			begun <- since
			o := <-brings
			return o.fetched, o.error
		})
		got <- outcome{fetched{Value: v}, err}
	}()
	return <-begun, func(f fetched, err error) (string, error) {
		brings <- outcome{f, err}
		o := <-got
		return o.Value, o.error
	}
}

func (o kept) of(v string) fetched { return fetched{Value: v, Size: len(v), Keep: true, At: string(o)} }

// kept makes what may be kept, of the log up to an id.
type kept string

func TestWhatIsFetchedIsKeptUntilItChanges(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	has(t, p, "/a", "")
	fetch(t, p, "/a", value("one", "1-0"))
	fetch(t, p, "/b", value("two", "1-0"))
	has(t, p, "/a", "one")
	if c.Len() != 2 {
		t.Errorf("it has %d entries", c.Len())
	}
	p.Changed([]string{"/a", "/c"}, []string{"2-0", "3-0"})
	has(t, p, "/a", "")
	has(t, p, "/b", "two")
	fetch(t, p, "/a", value("three", "3-0"))
	has(t, p, "/a", "three")
}

func TestWhatMayNotBeKeptIsNot(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", func(string) (fetched, error) { return fetched{Value: "x", At: "1-0"}, nil })
	fetch(t, p, "/a", value("x", "")) // nobody knows when that was
	failed := errors.New("failed")
	if _, err := p.Fetch(context.Background(), "/a", func(string) (fetched, error) { return kept("1-0").of("x"), failed }); !errors.Is(err, failed) {
		t.Errorf("the error became %v", err)
	}
	has(t, p, "/a", "")
	if c.Used() != 0 {
		t.Errorf("%d bytes are used", c.Used())
	}
}

func TestAPartGoesFromStateToState(t *testing.T) {
	c := localcopy.New[string](1, large, localcopy.Guards{})
	defer c.Close()
	p := c.Part(0)
	is(t, p, localcopy.Void)
	select {
	case <-p.Begun():
		t.Error("it has begun")
	default:
	}
	p.Begin("1-0")
	<-p.Begun()
	is(t, p, localcopy.Current)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	p.Reach(ended, "3-0")
	is(t, p, localcopy.Behind)
	p.Changed(nil, []string{"2-0"})
	is(t, p, localcopy.Behind)
	p.Changed(nil, []string{"3-0"})
	is(t, p, localcopy.Current)
	p.Lost()
	is(t, p, localcopy.Void)
	p.Answered(true)
	is(t, p, localcopy.Void)
	p.Begin("9-0")
	is(t, p, localcopy.Current)
	c.Close()
	is(t, p, localcopy.Void)
	p.Begin("10-0")
	is(t, p, localcopy.Void)
}

// Without an answer of Redis hits go on, and are marked until the end of the log was reached again.
func TestWithoutAnAnswerHitsGoOnMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newPart(t, large, localcopy.Guards{})
		fetch(t, p, "/a", value("one", "1-0"))
		hit := func(want localcopy.State) {
			t.Helper()
			if v, state, ok := p.Get("/a"); v != "one" || state != want || !ok {
				t.Errorf("the hit is %q, state %d, %t; want state %d", v, state, ok, want)
			}
		}
		time.Sleep(1900 * time.Millisecond) // of the time in this bubble
		p.Answered(true)
		time.Sleep(1900 * time.Millisecond)
		hit(localcopy.Current)
		time.Sleep(200 * time.Millisecond)
		hit(localcopy.Unreachable)
		begin := time.Now()
		p.Reach(context.Background(), "1-0")
		hit(localcopy.Unreachable)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		p.Reach(ctx, "2-0") // it does not wait for who does not answer
		is(t, p, localcopy.Behind)
		if took := time.Since(begin); took > 0 {
			t.Errorf("that took %v", took)
		}
		p.Changed([]string{"/b"}, []string{"2-0"})
		p.Answered(false) // there is more to be read
		is(t, p, localcopy.Unreachable)
		p.Changed([]string{"/c"}, []string{"3-0"})
		p.Answered(true)
		is(t, p, localcopy.Current)
		hit(localcopy.Current)
	})
}

func TestReachWaitsUntilTheLogWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newPart(t, large, localcopy.Guards{})
		p.Reach(context.Background(), "1-0") // it was
		reached := make(chan struct{})
		for _, id := range []string{"2-0", "2-5", "3-0"} {
			go func() {
				p.Reach(context.Background(), id)
				reached <- struct{}{}
			}()
		}
		synctest.Wait()
		p.Changed(nil, []string{"2-0"})
		<-reached
		p.Changed(nil, []string{"2-4"})
		synctest.Wait()
		select {
		case <-reached:
			t.Error("another one is woken")
		default:
		}
		p.Changed(nil, []string{"4-0"})
		for range 2 {
			<-reached
		}
		is(t, p, localcopy.Current)
	})
}

func TestReachThatEndsEarlyKeepsItsPromise(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", value("old", "1-0"))
	since, land := underWay(t, p, "/b")
	if since != "1-0" {
		t.Errorf("since %q", since)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	p.Reach(ctx, "5-0")
	has(t, p, "/a", "")
	if _, err := land(kept("1-0").of("old"), nil); err != nil {
		t.Error(err)
	}
	if got := fetch(t, p, "/b", func(since string) (fetched, error) {
		if since != "5-0" {
			t.Errorf("a fetch has to show %q", since)
		}
		return kept("5-0").of("new"), nil
	}); got != "new" {
		t.Errorf("got %q", got)
	}
	p.Changed([]string{"/a"}, []string{"5-0"})
	has(t, p, "/a", "")
	has(t, p, "/b", "new")
}

// Where nobody follows the log a promise holds for reads from replicas.
func TestReachWithoutAFollowerDoesNotWait(t *testing.T) {
	c := localcopy.New[string](1, 0, localcopy.Guards{})
	defer c.Close()
	p := c.Part(0)
	for _, id := range []string{"5-0", "3-0"} {
		p.Reach(context.Background(), id)
		if since, land := underWay(t, p, "/a"); since != "5-0" {
			t.Errorf("a fetch has to show %q", since)
		} else if _, err := land(fetched{}, nil); err != nil {
			t.Error(err)
		}
	}
}

// What the log had come to before it was lost is shown until another one is followed, and not asked for any longer.
func TestAPromiseOutlivesALostLogUntilAnotherOneIsFollowed(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{})
	since := func(want string) {
		t.Helper()
		got, land := underWay(t, p, "/a")
		if got != want {
			t.Errorf("a fetch has to show %q, want %q", got, want)
		}
		_, _ = land(fetched{}, errors.New("none"))
	}
	p.Changed(nil, []string{"7-0"})
	since("7-0")
	p.Lost()
	since("7-0")
	fetch(t, p, "/b", value("x", "8-0"))
	since("8-0")
	p.Reach(context.Background(), "9-0")
	since("9-0")
	p.Begin("3-0") // it was asked for before 9-0 was promised
	since("9-0")
	is(t, p, localcopy.Behind)
	p.Lost()
	p.Begin("4-0")
	since("4-0")
	is(t, p, localcopy.Current)
}

func TestFetchesOfAKeyAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newPart(t, large, localcopy.Guards{})
		_, land := underWay(t, p, "/a")
		const readers = 50
		got := make(chan string, readers)
		for range readers {
			go func() {
				v, err := p.Fetch(context.Background(), "/a", func(string) (fetched, error) {
					t.Error("it is fetched twice")
					return fetched{}, nil
				})
				got <- fmt.Sprint(v, err)
			}()
		}
		synctest.Wait()
		impatient, cancel := context.WithCancelCause(context.Background())
		gone := errors.New("gone")
		cancel(gone)
		if _, err := p.Fetch(impatient, "/a", value("x", "1-0")); !errors.Is(err, gone) {
			t.Errorf("who has gone gets %v", err)
		}
		if _, err := land(kept("1-0").of("one"), nil); err != nil {
			t.Error(err)
		}
		for range readers {
			if v := <-got; v != "one<nil>" {
				t.Errorf("got %s", v)
			}
		}
	})
}

func TestAFetchThatRacesWithAChangeIsNeitherSharedNorKept(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	_, first := underWay(t, p, "/a")
	p.Changed([]string{"/a"}, []string{"2-0"})
	_, second := underWay(t, p, "/a") // it does not wait for the first
	if _, err := second(kept("2-0").of("new"), nil); err != nil {
		t.Error(err)
	}
	if v, err := first(kept("2-0").of("old"), nil); v != "old" || err != nil {
		t.Errorf("the first one got %q, %v", v, err)
	}
	has(t, p, "/a", "new")
	if c.Len() != 1 {
		t.Errorf("it has %d entries", c.Len())
	}
}

func TestTheRaceCheckCanBeSwitchedOff(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{NoRaceCheck: true})
	_, land := underWay(t, p, "/a")
	p.Changed([]string{"/a"}, []string{"2-0"})
	_, _ = land(kept("1-0").of("old"), nil)
	has(t, p, "/a", "old")
}

// A fetch from before the log was followed is not kept, also where another one of its key has begun since.
func TestAFetchFromBeforeTheLogIsNotKept(t *testing.T) {
	c := localcopy.New[string](1, large, localcopy.Guards{})
	defer c.Close()
	p := c.Part(0)
	_, first := underWay(t, p, "/a")
	_, second := underWay(t, p, "/a") // nobody follows: it is not shared
	p.Begin("5-0")
	_, third := underWay(t, p, "/a")
	for _, land := range []func(fetched, error) (string, error){first, second} {
		_, _ = land(kept("5-0").of("old"), nil)
		has(t, p, "/a", "")
	}
	_, _ = third(kept("5-0").of("new"), nil)
	has(t, p, "/a", "new")
}

func TestAFetchIsNotKeptWhenTheLogIsLost(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/b", value("x", "1-0"))
	_, land := underWay(t, p, "/a")
	_, another := underWay(t, p, "/c")
	p.Lost()
	_, _ = land(kept("1-0").of("old"), nil)
	p.Begin("1-0")
	_, _ = another(kept("1-0").of("old"), nil)
	for _, key := range []string{"/a", "/b", "/c"} {
		has(t, p, key, "")
	}
	if c.Used() != 0 {
		t.Errorf("%d bytes are used", c.Used())
	}
}

// A record that a fetch has seen, and that the log does not have, was lost: what the fetch has shown is not so any more.
func TestWhatALostRecordSaidIsNotKept(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", value("lost", "2-0"))
	has(t, p, "/a", "")
	p.Changed([]string{"/b"}, []string{"3-0"}) // without 2-0
	has(t, p, "/a", "")
	fetch(t, p, "/a", value("from before", "1-0"))
	has(t, p, "/a", "")
	_, late := underWay(t, p, "/a")
	p.Changed([]string{"/b"}, []string{"5-0"})
	_, _ = late(kept("4-0").of("lost"), nil)
	has(t, p, "/a", "")
}

// A fetch that shows more than was read is kept when that was read, and not if its key has changed by then.
func TestWhatComesBeforeItsRecordIsKeptWithIt(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", value("new", "3-0"))
	fetch(t, p, "/b", value("old", "3-0"))
	has(t, p, "/a", "")
	if got := fetch(t, p, "/a", value("another", "3-0")); got != "new" {
		t.Errorf("the fetch of /a that waits for its record is not shared: %q", got)
	}
	fetch(t, p, "/c", value("far", "9-0"))
	p.Changed([]string{"/b"}, []string{"2-0", "3-0", "4-0"})
	has(t, p, "/a", "new")
	has(t, p, "/b", "")
	has(t, p, "/c", "")
	if got := fetch(t, p, "/c", value("x", "4-0")); got != "far" {
		t.Errorf("got %q", got)
	}
	p.Lost()
	if c.Used() != 0 {
		t.Errorf("%d bytes are used", c.Used())
	}
}

// An empty log looks like any other one that is empty.
func TestNothingIsKeptByAnEmptyLog(t *testing.T) {
	c := localcopy.New[string](1, large, localcopy.Guards{})
	defer c.Close()
	p := c.Part(0)
	p.Begin("0-0")
	fetch(t, p, "/a", value("x", "0-0"))
	fetch(t, p, "/b", value("y", "5-0"))
	has(t, p, "/a", "")
	p.Changed(nil, []string{"6-0"})
	has(t, p, "/b", "")
}

// A fetch is not shared by who has seen something newer than what it may bring.
func TestAFetchIsNotSharedByWhoHasSeenMore(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{})
	_, land := underWay(t, p, "/a")
	fetch(t, p, "/b", value("x", "5-0"))
	since, another := underWay(t, p, "/a")
	if since != "5-0" {
		t.Errorf("it has to show %q", since)
	}
	_, _ = land(kept("1-0").of("old"), nil)
	has(t, p, "/a", "")
	_, _ = another(kept("5-0").of("new"), nil)
	p.Changed([]string{"/b"}, []string{"5-0"})
	has(t, p, "/a", "new")
}

func TestAPanicOfAFetchIsAnErrorForWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newPart(t, large, localcopy.Guards{})
		begun, release, ended := make(chan struct{}), make(chan struct{}), make(chan any)
		go func() {
			defer func() { ended <- recover() }()
			_, _ = p.Fetch(context.Background(), "/a", func(string) (fetched, error) {
				close(begun)
				<-release
				panic("at the fetch")
			})
		}()
		<-begun
		waits := make(chan error)
		go func() {
			_, err := p.Fetch(context.Background(), "/a", value("", ""))
			waits <- err
		}()
		synctest.Wait()
		close(release)
		if v := <-ended; v != "at the fetch" {
			t.Errorf("recovered %v", v)
		}
		if err := <-waits; err == nil {
			t.Error("who waits gets no error")
		}
		if got := fetch(t, p, "/a", value("one", "1-0")); got != "one" {
			t.Errorf("got %q", got)
		}
	})
}

func TestACopyKeepsToItsLimit(t *testing.T) {
	const limit = 64 << 10
	c, p := newPart(t, limit, localcopy.Guards{})
	big := func(n int) fetched { return fetched{Value: "x", Size: n, Keep: true, At: "1-0"} }
	for i := range 1000 {
		fetch(t, p, fmt.Sprintf("/%d", i), func(string) (fetched, error) { return big(1000), nil })
		if c.Used() > limit {
			t.Fatalf("%d bytes are used after %d fetches", c.Used(), i+1)
		}
	}
	if c.Used() < limit*3/4 || c.Len() < 40 {
		t.Errorf("%d bytes are used by %d entries", c.Used(), c.Len())
	}
	p.Lost()
	p.Begin("1-0")
	fetch(t, p, "/large", func(string) (fetched, error) { return big(limit/4 - 200), nil })
	has(t, p, "/large", "x")
	fetch(t, p, "/large", func(string) (fetched, error) { return big(limit / 4), nil })
	has(t, p, "/large", "") // neither the new one, which is too large, nor the one before
	p.Lost()
	if c.Used() != 0 || c.Len() != 0 {
		t.Errorf("%d bytes are used by %d entries after the loss", c.Used(), c.Len())
	}
}

// Parts of the same copy push out each other's entries, lose theirs and fetch again, all at once; the account is right at
// the end.
func TestTheAccountIsRightWhateverHappensAtOnce(t *testing.T) {
	const limit, parts = 32 << 10, 3
	c := localcopy.New[string](parts, limit, localcopy.Guards{})
	defer c.Close()
	var workers, followers sync.WaitGroup
	var done atomic.Bool
	for number := range parts {
		p := c.Part(number)
		p.Begin("1-0")
		var at atomic.Int64
		at.Store(1)
		id := func(n int64) string { return fmt.Sprintf("%d-0", n) }
		followers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(number), 1))
			for next := int64(2); !done.Load(); next++ {
				if random.IntN(200) == 0 {
					p.Lost()
					p.Begin(id(next))
				} else {
					p.Changed([]string{fmt.Sprintf("/%d", random.IntN(100))}, []string{id(next)})
				}
				at.Store(next)
			}
		})
		for worker := range 2 {
			workers.Go(func() {
				random := rand.New(rand.NewPCG(uint64(number), uint64(worker)+2))
				for range 20_000 {
					key := fmt.Sprintf("/%d", random.IntN(100))
					if _, _, ok := p.Get(key); ok {
						continue
					}
					size := random.IntN(2000)
					ahead := int64(random.IntN(2))
					_, err := p.Fetch(context.Background(), key, func(string) (fetched, error) {
						return fetched{Value: key, Size: size, Keep: true, At: id(at.Load() + ahead)}, nil
					})
					if err != nil {
						t.Error(err)
					}
					if used := c.Used(); used > 2*limit {
						t.Errorf("%d bytes are used", used) // others may be about to make room
					}
				}
			})
		}
	}
	workers.Wait()
	done.Store(true)
	followers.Wait()
	if c.Used() > limit {
		t.Errorf("%d bytes are used when all is quiet", c.Used())
	}
	for number := range parts {
		c.Part(number).Lost()
	}
	if c.Used() != 0 || c.Len() != 0 {
		t.Errorf("%d bytes are used by %d entries in the end", c.Used(), c.Len())
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	_, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", value("one", "1-0"))
	if n := testing.AllocsPerRun(1000, func() {
		if _, _, ok := p.Get("/a"); !ok {
			t.Fatal("no hit")
		}
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}

func TestAClosedCopyStillFetches(t *testing.T) {
	c, p := newPart(t, large, localcopy.Guards{})
	fetch(t, p, "/a", value("one", "1-0"))
	c.Close()
	has(t, p, "/a", "")
	if got := fetch(t, p, "/a", func(since string) (fetched, error) {
		if since != "1-0" {
			t.Errorf("it has to show %q", since)
		}
		return kept("1-0").of("two"), nil
	}); got != "two" {
		t.Errorf("got %q", got)
	}
	has(t, p, "/a", "")
	if c.Used() != 0 {
		t.Errorf("%d bytes are used", c.Used())
	}
}

func TestWhatWasShownIsNotFollowedBySomethingOlder(t *testing.T) {
	c := localcopy.New[string](1, 1<<20, localcopy.Guards{})
	defer c.Close()
	p, ctx := c.Part(0), context.Background()
	shows := func(value, at string) func(string) (localcopy.Fetched[string], error) {
		return func(string) (localcopy.Fetched[string], error) {
			return localcopy.Fetched[string]{Value: value, Size: 1, Keep: true, At: at}, nil
		}
	}
	p.Begin("5-0")
	if _, err := p.Fetch(ctx, "k", shows("one", "5-0")); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	p.Reach(impatient, "6-0") // now reads go where they come from
	if value, err := p.Fetch(ctx, "k", shows("two", "7-0")); value != "two" || err != nil {
		t.Fatal(value, err)
	}
	p.Changed(nil, []string{"6-0"})
	if value, state, ok := p.Get("k"); ok {
		t.Errorf("after two had been shown the copy shows %q, state %v", value, state)
	}
}

func TestAKeyIsKeptWithoutTheRequestThatItIsAPartOf(t *testing.T) {
	c := localcopy.New[string](1, 1<<20, localcopy.Guards{})
	defer c.Close()
	p := c.Part(0)
	p.Begin("5-0")
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 100 {
		request := fmt.Sprintf("/%02d", i) + strings.Repeat("x", 1<<20)
		_, err := p.Fetch(context.Background(), request[:3], func(string) (localcopy.Fetched[string], error) {
			return localcopy.Fetched[string]{Value: "v", Size: 1, Keep: true, At: "5-0"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("100 keys of 3 bytes hold %d MiB", grown>>20)
	}
	if c.Len() != 100 {
		t.Errorf("%d entries", c.Len())
	}
}

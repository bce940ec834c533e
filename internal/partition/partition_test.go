package partition_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

func TestMain(m *testing.M) { os.Exit(redistest.Main(m)) }

// newStore returns a store with a namespace of its own.
func newStore(t *testing.T, rdb redis.UniversalClient, partitions int, change ...func(*partition.Config)) *partition.Store {
	t.Helper()
	config := partition.Config{
		Client: rdb, Namespace: redistest.Namespace(t), Partitions: partitions, TombstoneLife: time.Minute,
		ClaimLease: time.Minute, LogLength: 1000, MaxEntries: 1000, Timeout: 5 * time.Second,
	}
	for _, c := range change {
		c(&config)
	}
	s := partition.New(config)
	t.Cleanup(s.Close)
	return s
}

func value(t *testing.T, ticket, body string, pushOnly bool) string {
	t.Helper()
	b, err := message.AppendEntry(nil, &message.Entry{Ticket: ticket, Status: 200, Body: []byte(body), PushOnly: pushOnly})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// body reads what is stored under a key: its body, "gone" for a tombstone and "" for nothing.
func body(t *testing.T, s *partition.Store, key string) string {
	t.Helper()
	found, err := s.Of(key).Read(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !found.Exists {
		return ""
	}
	e, err := message.ParseEntry(found.Value)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	if e.Gone {
		return "gone"
	}
	return string(e.Body)
}

func claim(t *testing.T, s *partition.Store, key, token, need string) partition.Claim {
	t.Helper()
	c, err := s.Of(key).Claim(context.Background(), partition.Wish{Key: key, Token: token, Need: need})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func commit(t *testing.T, s *partition.Store, operations ...partition.Operation) []partition.Outcome {
	t.Helper()
	c, err := s.Of(operations[0].Key).Commit(context.Background(), operations)
	if err != nil {
		t.Fatal(err)
	}
	return c.Outcomes
}

func stored(t *testing.T, key string, c partition.Claim, text string) partition.Operation {
	return partition.Operation{Kind: partition.OpStore, Key: key, Position: c.Position, Value: value(t, c.Ticket, text, false)}
}

func next(t *testing.T, s *partition.Store, key string) []string {
	t.Helper()
	round, err := s.Of(key).Next(context.Background(), "next", 100, false)
	due := round.Due
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, d := range due {
		keys = append(keys, d.Key)
	}
	slices.Sort(keys)
	return keys
}

func TestARenderIsClaimedCommittedAndRead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		c := claim(t, s, "/a", "1", "")
		if c.Granted != partition.Claimed || len(c.Ticket) != message.TicketWidth || c.Incarnation == "" {
			t.Fatalf("claim: %+v", c)
		}
		if got := commit(t, s, stored(t, "/a", c, "one")); got[0] != partition.Stored {
			t.Fatalf("commit: %v", got)
		}
		if got := body(t, s, "/a"); got != "one" {
			t.Errorf("read %q", got)
		}
		if got := commit(t, s, stored(t, "/a", c, "one")); got[0] != partition.AlreadyDone {
			t.Errorf("the same commit again: %v", got)
		}
		if n, err := s.Of("/a").Len(context.Background()); n != 1 || err != nil {
			t.Errorf("length %d, %v", n, err)
		}
	})
}

func TestALowerTicketChangesNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		for _, destroyed := range []bool{false, true} {
			s := newStore(t, rdb, partitions, func(c *partition.Config) { c.ClaimLease = time.Microsecond })
			late, want := claim(t, s, "/a", "1", ""), "new"
			later := claim(t, s, "/a", "2", "")
			for later.Granted != partition.Claimed { // the lease of the first has to expire
				later = claim(t, s, "/a", "2", "")
			}
			if destroyed {
				want = "gone"
				commit(t, s, partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: later.Position})
			} else {
				commit(t, s, stored(t, "/a", later, "new"))
			}
			if got := commit(t, s, stored(t, "/a", late, "old")); got[0] != partition.Superseded {
				t.Errorf("destroyed %t: a late commit: %v", destroyed, got)
			}
			if got := body(t, s, "/a"); got != want {
				t.Errorf("destroyed %t: read %q", destroyed, got)
			}
		}
	})
}

func TestWithoutItsGuardsALateCommitWins(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		for _, guards := range []partition.Guards{{NoTicketCheck: true}, {NoTombstones: true}} {
			s := newStore(t, rdb, partitions, func(c *partition.Config) { c.Guards, c.ClaimLease = guards, time.Microsecond })
			late := claim(t, s, "/a", "1", "")
			later := claim(t, s, "/a", "2", "")
			for later.Granted != partition.Claimed {
				later = claim(t, s, "/a", "2", "")
			}
			commit(t, s, partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: later.Position})
			commit(t, s, stored(t, "/a", late, "old"))
			if got := body(t, s, "/a"); got != "old" {
				t.Errorf("%+v: read %q: the guard is not what prevents it", guards, got)
			}
		}
	})
}

func TestWhoNeedsAKeyThatIsBeingRenderedWaitsForTheNextRender(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		first := claim(t, s, "/a", "1", "")
		second := claim(t, s, "/a", "2", "")
		if second.Granted != partition.Busy || second.Ticket <= first.Ticket {
			t.Fatalf("while it is rendered: %+v after %+v", second, first)
		}
		ended, missed, stop := s.Of("/a").Watch("/a", second.Tail)
		defer stop()
		if missed {
			t.Error("events were missed before there were any")
		}
		commit(t, s, stored(t, "/a", first, "one"))
		<-ended
		if again := claim(t, s, "/a", "2", second.Ticket); again.Granted != partition.Claimed || again.Ticket <= second.Ticket {
			t.Fatalf("the first render does not show the wish: %+v", again)
		} else {
			third := claim(t, s, "/a", "3", second.Ticket)
			if third.Granted != partition.Busy || third.Ticket != second.Ticket {
				t.Errorf("a second waiter: %+v", third)
			}
			commit(t, s, stored(t, "/a", again, "two"))
		}
		if done := claim(t, s, "/a", "3", second.Ticket); done.Granted != partition.Done {
			t.Errorf("after the next render: %+v", done)
		}
	})
}

func TestAClaimThatIsSentTwiceIsGrantedOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		first, second := claim(t, s, "/a", "1", ""), claim(t, s, "/a", "1", "")
		if first != second {
			t.Errorf("%+v, then %+v", first, second)
		}
	})
}

func TestFailedRendersKeepTheLastEntryAndComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "1", ""), "good"))
		c := claim(t, s, "/a", "2", "")
		fail := partition.Operation{Kind: partition.OpFail, Key: "/a", Position: c.Position, Value: "status 500", Delay: time.Millisecond}
		if got := commit(t, s, fail); got[0] != partition.RenderFailed {
			t.Fatalf("commit: %v", got)
		}
		if got := commit(t, s, fail); got[0] != partition.Lost {
			t.Errorf("the same commit again: %v", got)
		}
		if got := body(t, s, "/a"); got != "good" {
			t.Errorf("read %q", got)
		}
		await.Until(t, "the key is pending", func() bool { return len(next(t, s, "/a")) > 0 })
	})
}

func TestAWaiterHearsOfAFailure(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		first := claim(t, s, "/a", "1", "")
		waiter := claim(t, s, "/a", "2", "")
		commit(t, s, stored(t, "/a", first, "one"))
		other := claim(t, s, "/a", "3", "")
		commit(t, s, partition.Operation{Kind: partition.OpFail, Key: "/a", Position: other.Position, Value: "status 500", Delay: time.Hour})
		if got := claim(t, s, "/a", "2", waiter.Ticket); got.Granted != partition.Failed || got.Detail != "status 500" {
			t.Errorf("%+v", got)
		}
	})
}

func TestPendingKeysAreClaimedWhenTheyAreDue(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		commit(t, s,
			partition.Operation{Kind: partition.OpPend, Key: "/now"},
			partition.Operation{Kind: partition.OpPend, Key: "/also"},
			partition.Operation{Kind: partition.OpPend, Key: "/later", Delay: time.Hour})
		if got := next(t, s, "/"); !slices.Equal(got, []string{"/also", "/now"}) {
			t.Errorf("due: %v", got)
		}
		if got := next(t, s, "/"); len(got) != 0 {
			t.Errorf("due again: %v", got)
		}
	})
}

func TestAnExpiredClaimIsPendingAgainAndARenewedOneIsNot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1, func(c *partition.Config) { c.ClaimLease = 50 * time.Millisecond })
		claim(t, s, "/lost", "1", "")
		kept := claim(t, s, "/kept", "2", "")
		var got []string
		for len(got) == 0 {
			if err := s.Of("/").Renew(context.Background(), []partition.Due{{Key: "/kept", Position: kept.Position}}); err != nil {
				t.Fatal(err)
			}
			got = next(t, s, "/")
		}
		if !slices.Equal(got, []string{"/lost"}) {
			t.Errorf("pending again: %v", got)
		}
	})
}

func TestARefusedTicketRefusesItsWholeGroup(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		good := claim(t, s, "/good", "1", "")
		foreign, future, old := good.Position, good.Position, good.Position
		foreign.Incarnation = "another"
		future.Ticket = "09999999999999999999"
		old.Ticket = "00000000000000000001"
		for want, position := range map[partition.Outcome]partition.Position{
			partition.WrongIncarnation: foreign, partition.FutureTicket: future, partition.OldTicket: old,
		} {
			got := commit(t, s, stored(t, "/good", good, "x"),
				partition.Operation{Kind: partition.OpStore, Key: "/bad", Position: position, Value: value(t, position.Ticket, "x", false)})
			if !slices.Equal(got, []partition.Outcome{want, want}) {
				t.Errorf("%s: %v", want, got)
			}
			if body(t, s, "/good") != "" || body(t, s, "/bad") != "" {
				t.Errorf("%s: something was stored", want)
			}
			if !want.Again() {
				t.Errorf("%s is not to be made again", want)
			}
		}
	})
}

func TestAPushHappensOnlyOverWhatItHasSeen(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		p := s.Of("/a")
		before := claim(t, s, "/a", "1", "")
		commit(t, s, stored(t, "/a", before, "old"))
		floor, err := p.Ticket(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		push := func(kind partition.Kind) []partition.Outcome {
			return commit(t, s, partition.Operation{Kind: kind, Key: "/a", Position: floor, Value: value(t, floor.Ticket, "pushed", false)})
		}
		if got := push(partition.OpPush); got[0] != partition.Stored || body(t, s, "/a") != "pushed" {
			t.Errorf("over what is older: %v, read %q", got, body(t, s, "/a"))
		}
		if got := next(t, s, "/a"); !slices.Equal(got, []string{"/a"}) {
			t.Errorf("to be confirmed: %v", got)
		}
		s = newStore(t, rdb, partitions)
		if floor, err = s.Of("/a").Ticket(context.Background()); err != nil {
			t.Fatal(err)
		}
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "2", ""), "newer"))
		for _, kind := range []partition.Kind{partition.OpPush, partition.OpRemove} {
			if got := push(kind); got[0] != partition.Superseded || body(t, s, "/a") != "newer" {
				t.Errorf("%s over what is newer: %v, read %q", kind, got, body(t, s, "/a"))
			}
		}
		if got := next(t, s, "/a"); !slices.Equal(got, []string{"/a"}) {
			t.Errorf("to be rendered: %v", got)
		}
	})
}

func TestPushOnlyEntriesAreNotRendered(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		push := partition.Operation{Kind: partition.OpOverwrite, Key: "/a", Value: value(t, "", "pushed", true)}
		if got := commit(t, s, push); got[0] != partition.Stored || body(t, s, "/a") != "pushed" {
			t.Fatalf("%v, read %q", got, body(t, s, "/a"))
		}
		if got := next(t, s, "/a"); len(got) != 0 {
			t.Errorf("to be confirmed: %v", got)
		}
		if got := claim(t, s, "/a", "1", ""); got.Granted != partition.Pushed {
			t.Errorf("claim: %+v", got)
		}
		if got := commit(t, s, partition.Operation{Kind: partition.OpRemove, Key: "/a"}); got[0] != partition.Destroyed || body(t, s, "/a") != "gone" {
			t.Errorf("remove: %v, read %q", got, body(t, s, "/a"))
		}
		if got := next(t, s, "/a"); len(got) != 0 {
			t.Errorf("to be confirmed after the removal: %v", got)
		}
	})
}

func TestAMissIsReadTogetherWithItsMeaning(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		s := newStore(t, rdb, partitions)
		p := s.Of("/a")
		read := func() partition.Found {
			found, err := p.Read(ctx, "/a")
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		if found := read(); found.Exists || found.Filled || found.Lost {
			t.Errorf("of an empty Redis: %+v", found)
		}
		incarnation, err := p.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if marked, err := p.MarkFilled(ctx, partition.Position{Incarnation: "another"}); marked || err != nil || read().Filled {
			t.Errorf("a fill of another incarnation: %t, %v", marked, err)
		}
		if marked, err := p.MarkFilled(ctx, partition.Position{Incarnation: incarnation}); !marked || err != nil || !read().Filled {
			t.Errorf("a fill: %t, %v", marked, err)
		}
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "1", ""), "x"))
		if err := rdb.Del(ctx, p.EntryName("/a")).Err(); err != nil {
			t.Fatal(err)
		}
		if found := read(); found.Exists || !found.Lost {
			t.Errorf("of an entry that was deleted by hand: %+v", found)
		}
	})
}

func TestAnotherLayoutIsRefused(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		namespace := redistest.Namespace(t)
		named := func(c *partition.Config) { c.Namespace = namespace }
		two, three := newStore(t, rdb, 2, named), newStore(t, rdb, 3, named)
		for _, p := range two.All() {
			if _, err := p.Incarnation(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := three.All()[0].Claim(context.Background(), partition.Wish{Key: "/a", Token: "1"})
		if !errors.Is(err, partition.ErrLayout) || !strings.Contains(err.Error(), "2 partitions") {
			t.Errorf("claim: %v", err)
		}
		if _, _, err := three.All()[0].Filled(context.Background()); !errors.Is(err, partition.ErrLayout) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestEntriesThatRequestsBringUpAreBounded(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		s := newStore(t, rdb, 1, func(c *partition.Config) { c.MaxEntries = 2 })
		put := func(key string, limited bool) partition.Outcome {
			op := stored(t, key, claim(t, s, key, key, ""), "x")
			op.Limited = limited
			return commit(t, s, op)[0]
		}
		got := []partition.Outcome{put("/1", true), put("/2", true), put("/3", true), put("/3", false), put("/1", true)}
		want := []partition.Outcome{partition.Stored, partition.Stored, partition.Full, partition.Stored, partition.Stored}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestKeysAreListedInOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		s := newStore(t, rdb, 1)
		for _, key := range []string{"/c", "/a", "/b?x=1", "/b"} {
			commit(t, s, stored(t, key, claim(t, s, key, key, ""), "x"))
		}
		var all []string
		for after := ""; ; {
			page, err := s.Of("/").Keys(context.Background(), after, 3)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if len(page) < 3 {
				break
			}
			after = page[len(page)-1]
		}
		if !slices.Equal(all, []string{"/a", "/b", "/b?x=1", "/c"}) {
			t.Errorf("keys: %v", all)
		}
	})
}

// A wrong type under an entry's name counts as no entry, and is overwritten.
func TestWhatIsNoEntryCountsAsAbsent(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		ctx := context.Background()
		s := newStore(t, rdb, 1)
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "1", ""), "x"))
		name := s.Of("/a").EntryName("/a")
		for _, spoil := range []func() error{
			func() error { return errors.Join(rdb.Del(ctx, name).Err(), rdb.RPush(ctx, name, "x").Err()) },
			func() error { return rdb.Set(ctx, name, "{\"ticket\":\"99", 0).Err() },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if got := commit(t, s, stored(t, "/a", claim(t, s, "/a", "1", ""), "good")); got[0] != partition.Stored || body(t, s, "/a") != "good" {
				t.Errorf("commit: %v, read %q", got, body(t, s, "/a"))
			}
		}
	})
}

func TestOperationsAreCutIntoParts(t *testing.T) {
	large := partition.Operation{Value: strings.Repeat("x", 20<<20)}
	for want, operations := range map[string][]partition.Operation{
		"":         nil,
		"1":        {large},
		"1 1 2":    {large, large, large, {}},
		"1000 500": make([]partition.Operation, 1500),
	} {
		var sizes []string
		for part := range partition.Parts(operations) {
			sizes = append(sizes, strconv.Itoa(len(part)))
		}
		if got := strings.Join(sizes, " "); got != want {
			t.Errorf("%d operations: parts of %s, want %s", len(operations), got, want)
		}
	}
}

// A push that is sent again, late, does not undo what has followed it; and a render that found nothing does not undo a push.
func TestOfPushOnlyWritesTheLastOneStays(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		ticket := func() partition.Position {
			position, err := s.Of("/a").Ticket(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return position
		}
		push := func(text string) partition.Operation {
			return partition.Operation{Kind: partition.OpOverwrite, Key: "/a", Position: ticket(), Value: value(t, "", text, true)}
		}
		early := push("first")
		late := claim(t, s, "/a", "1", "")
		commit(t, s, partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: late.Position})
		check := func(op partition.Operation, want string) {
			t.Helper()
			commit(t, s, op)
			if got := body(t, s, "/a"); got != want {
				t.Errorf("after %s: %q, want %q", op.Kind, got, want)
			}
		}
		check(early, "first")
		check(early, "first")
		second := push("second")
		check(second, "second")
		check(early, "second")
		check(partition.Operation{Kind: partition.OpErase, Key: "/a", Position: ticket()}, "gone")
		check(second, "gone")
		check(push("third"), "third")
	})
}

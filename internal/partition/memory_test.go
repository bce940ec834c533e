package partition_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// look is what every worker does twice a second.
func look(t *testing.T, s *partition.Store) partition.Round {
	t.Helper()
	round, err := s.Of("/a").Next(context.Background(), "1-1", 0, false)
	if err != nil {
		t.Fatal(err)
	}
	return round
}

// another returns a further process of the same cache.
func another(t *testing.T, rdb redis.UniversalClient, s *partition.Store) *partition.Store {
	return newStore(t, rdb, 1, func(c *partition.Config) { c.Namespace, c.LogLength = s.Namespace(), 1 })
}

func TestAProcessThatWasAwayWhileTheLogWasTrimmedHasNoDoubt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1, func(c *partition.Config) { c.LogLength = 1 })
		render(t, s, "/a")
		other := another(t, rdb, s)
		for i := range 300 { // the log is trimmed in pieces of a hundred records
			render(t, other, fmt.Sprint("/", i))
		}
		if round := look(t, s); round.Unsure {
			t.Errorf("%+v", round)
		}
	})
}

func TestALostRecordIsNoticedOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		s := newStore(t, rdb, 1)
		render(t, s, "/kept")
		away, witness := another(t, rdb, s), another(t, rdb, s)
		render(t, s, "/a", "g")
		mark(t, s, "/a", 0, "g")
		for _, p := range []*partition.Store{away, witness} {
			if round := look(t, p); round.Unsure {
				t.Fatalf("before anything is lost: %+v", round)
			}
		}
		log := partition.Prefix(s.Namespace(), 0) + "log"
		records := rdb.XRange(ctx, log, "-", "+").Val()
		for _, record := range records[1:] {
			if err := rdb.XDel(ctx, log, record.ID).Err(); err != nil {
				t.Fatal(err)
			}
		}
		round := look(t, s)
		if !round.Unsure || !slices.Contains(round.Lost, "/a") || !slices.Equal(round.LostGroups, []string{"g"}) {
			t.Errorf("who has written what is lost: %+v", round)
		}
		since, err := s.Of("/a").Unsure(ctx)
		if err != nil || since == "" {
			t.Fatalf("unsure since %q, %v", since, err)
		}
		if round := look(t, witness); !round.Unsure || len(round.Lost) != 0 {
			t.Errorf("who has only seen it: %+v", round)
		}
		if again, err := s.Of("/a").Unsure(ctx); err != nil || again != since {
			t.Errorf("the doubt is another one by now: %q, %v", again, err)
		}
		if err := s.Of("/a").Sure(ctx, "another doubt"); err != nil {
			t.Fatal(err)
		}
		if filled, unsure, err := s.Of("/a").Filled(ctx); unsure || filled || err != nil { // it was never filled
			t.Errorf("filled %t, unsure %t, %v", filled, unsure, err)
		}
		if err := s.Of("/a").Sure(ctx, since); err != nil {
			t.Fatal(err)
		}
		if round := look(t, away); round.Unsure {
			t.Errorf("who was away raises the doubt again: %+v", round)
		}
		if again, err := s.Of("/a").Unsure(ctx); err != nil || again != "" {
			t.Errorf("unsure since %q, %v", again, err)
		}
	})
}

// What a process goes on writing after a loss does not hide it, however much that is.
func TestALostRecordIsNoticedBehindNewerOnes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		s := newStore(t, rdb, 1)
		render(t, s, "/kept")
		if round := look(t, s); round.Unsure {
			t.Fatalf("before anything is lost: %+v", round)
		}
		log := partition.Prefix(s.Namespace(), 0) + "log"
		before := len(rdb.XRange(ctx, log, "-", "+").Val())
		for i := range 300 { // more than are looked for one by one
			render(t, s, fmt.Sprintf("/lost/%d", i))
		}
		for _, record := range rdb.XRange(ctx, log, "-", "+").Val()[before:] {
			if err := rdb.XDel(ctx, log, record.ID).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 300 {
			render(t, s, fmt.Sprintf("/later/%d", i))
		}
		round := look(t, s)
		if !round.Unsure {
			t.Fatal("the loss was not noticed")
		}
		for i := range 300 {
			if key := fmt.Sprintf("/lost/%d", i); !slices.Contains(round.Lost, key) {
				t.Errorf("%s is lost, and is not rendered again", key)
			}
		}
		if round := look(t, s); round.Unsure {
			t.Errorf("the loss is noticed again: %+v", round)
		}
	})
}

// A cache that was flushed has lost no writes: it was lost as a whole, and everybody sees that.
func TestAFlushedCacheIsNoDoubt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		s := newStore(t, rdb, 1)
		render(t, s, "/a")
		away := another(t, rdb, s)
		for _, p := range []*partition.Store{s, away} {
			if round := look(t, p); round.Unsure {
				t.Fatalf("before anything is lost: %+v", round)
			}
		}
		prefix := partition.Prefix(s.Namespace(), 0)
		for _, name := range []string{"meta", "index", "pending", "running", "claims", "failing", "log", "wanted", "e:/a"} {
			if err := rdb.Del(ctx, prefix+name).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := another(t, rdb, s).Of("/a").Ticket(ctx); err != nil { // makes the clock anew; the log is empty
			t.Fatal(err)
		}
		if round := look(t, s); round.Unsure {
			t.Errorf("with an empty log: %+v", round)
		}
		// As after a flush by a Redis whose clock is behind.
		if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: prefix + "log", ID: "1-1", Values: []string{"key", "/b"}}).Err(); err != nil {
			t.Fatal(err)
		}
		if round := look(t, away); round.Unsure {
			t.Errorf("with a log of an earlier time: %+v", round)
		}
		if since, err := s.Of("/a").Unsure(ctx); err != nil || since != "" {
			t.Errorf("unsure since %q, %v", since, err)
		}
	})
}

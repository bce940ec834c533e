package partition_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// filling is the one partition of a store, for tests of the record of a fill.
type filling struct {
	*partition.Partition
	t *testing.T
}

func (f filling) begin(anew bool) partition.Filling {
	f.t.Helper()
	begun, err := f.BeginFill(context.Background(), anew)
	if err != nil {
		f.t.Fatal(err)
	}
	return begun
}

func (f filling) end(began partition.Position) bool {
	f.t.Helper()
	marked, err := f.MarkFilled(context.Background(), began)
	if err != nil {
		f.t.Fatal(err)
	}
	return marked
}

// recorded returns the ticket of the fill that has begun and not ended, "" if there is none.
func (f filling) recorded() string {
	f.t.Helper()
	begun, _, err := f.Filling(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return begun.Ticket
}

func eachFilling(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, f filling)) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, _ int) {
		test(t, rdb, filling{newStore(t, rdb, 1).All()[0], t})
	})
}

func TestAFillThatHasNotEndedIsGoneOnWith(t *testing.T) {
	eachFilling(t, func(t *testing.T, _ redis.UniversalClient, f filling) {
		if f.recorded() != "" {
			t.Errorf("before any fill there is a record of one, %s", f.recorded())
		}
		before := time.Now()
		first := f.begin(false)
		if first.Resumed || len(first.Ticket) != 20 || f.recorded() != first.Ticket {
			t.Errorf("the first: %+v, recorded %s", first, f.recorded())
		}
		if began := first.Began(); began.Before(before.Add(-time.Minute)) || began.After(time.Now().Add(time.Minute)) {
			t.Errorf("it began at %v", began)
		}
		if again := f.begin(false); !again.Resumed || again.Position != first.Position {
			t.Errorf("the second: %+v, want the first, %+v", again, first)
		}
		anew := f.begin(true)
		if anew.Resumed || anew.Ticket <= first.Ticket || f.recorded() != anew.Ticket {
			t.Errorf("anew: %+v, recorded %s", anew, f.recorded())
		}
		if !f.end(anew.Position) || f.recorded() != "" {
			t.Errorf("at its end there is a record, %s", f.recorded())
		}
		if next := f.begin(false); next.Resumed {
			t.Errorf("after the end: %+v", next)
		}
	})
}

// Two fills share a record, and a third begins anew: whoever ends first marks the partition, and so do the others.
func TestFillsThatEndInAnyOrderMarkThePartition(t *testing.T) {
	eachFilling(t, func(t *testing.T, _ redis.UniversalClient, f filling) {
		one, two := f.begin(false), f.begin(false)
		three := f.begin(true)
		if !f.end(one.Position) || f.recorded() != three.Ticket {
			t.Errorf("the end of the first leaves the record %q, want that of the third", f.recorded())
		}
		if filled, _, err := f.Filled(context.Background()); !filled || err != nil {
			t.Errorf("filled: %t, %v", filled, err)
		}
		if !f.end(three.Position) || f.recorded() != "" {
			t.Errorf("the end of the third leaves the record %q", f.recorded())
		}
		four := f.begin(false)
		if !f.end(two.Position) || f.recorded() != four.Ticket {
			t.Errorf("the end of the second leaves the record %q, want that of the fourth", f.recorded())
		}
		if !f.end(partition.Position{Incarnation: four.Incarnation}) || f.recorded() != "" {
			t.Errorf("who declares the partition filled leaves the record %q", f.recorded())
		}
	})
}

func TestAFillIsOfOneIncarnation(t *testing.T) {
	eachFilling(t, func(t *testing.T, rdb redis.UniversalClient, f filling) {
		ctx := context.Background()
		lost := f.begin(false)
		meta := strings.TrimSuffix(f.EntryName(""), "e:") + "meta"
		if err := rdb.Del(ctx, meta).Err(); err != nil {
			t.Fatal(err)
		}
		if f.recorded() != "" {
			t.Errorf("the record has outlived its incarnation")
		}
		found := f.begin(false)
		if found.Resumed || found.Incarnation == lost.Incarnation {
			t.Errorf("in another incarnation: %+v", found)
		}
		if f.end(lost.Position) || f.recorded() != found.Ticket {
			t.Errorf("the end of a fill of another incarnation leaves the record %q", f.recorded())
		}
		if err := rdb.HSet(ctx, meta, "filling", lost.Incarnation+" "+lost.Ticket).Err(); err != nil {
			t.Fatal(err)
		}
		if f.recorded() != "" || f.begin(false).Resumed {
			t.Error("a record of another incarnation is gone on with")
		}
	})
}

func TestAReadTellsWhatTheIndexHas(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		ctx := context.Background()
		s := newStore(t, rdb, partitions)
		p := s.Of("/a")
		expect := func(what string, want partition.Found) {
			t.Helper()
			found, err := p.ReadListed(ctx, "/a")
			found.Value, found.At = "", ""
			if err != nil || found != want {
				t.Errorf("%s: %+v, %v; want %+v", what, found, err, want)
			}
		}
		expect("nothing", partition.Found{})
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "1", ""), "x"))
		expect("an entry", partition.Found{Exists: true, Listed: true})
		if err := rdb.ZRem(ctx, strings.TrimSuffix(p.EntryName(""), "e:")+"index", "/a").Err(); err != nil {
			t.Fatal(err)
		}
		expect("an entry that the index has not", partition.Found{Exists: true})
		commit(t, s, stored(t, "/a", claim(t, s, "/a", "2", ""), "x"))
		if err := rdb.Del(ctx, p.EntryName("/a")).Err(); err != nil {
			t.Fatal(err)
		}
		expect("a lost entry", partition.Found{Lost: true, Listed: true})
	})
}

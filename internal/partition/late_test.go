package partition_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// Whoever was to render it may be gone before it can say so.
func TestARefusedRenderLeavesItsKeyPending(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions, func(c *partition.Config) { c.TombstoneLife = time.Millisecond })
		commit(t, s, partition.Operation{Kind: partition.OpPend, Key: "/a"})
		round, err := s.Of("/a").Next(context.Background(), "1", 1, false)
		due := round.Due
		if err != nil || len(due) != 1 {
			t.Fatalf("due: %v, %v", due, err)
		}
		op := partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: due[0].Position}
		taken, err := strconv.ParseInt(due[0].Ticket, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ended := fmt.Sprintf("%020d", taken+2*time.Millisecond.Microseconds())
		for now := due[0].Ticket; now < ended; { // until tombstones as old as the ticket have ended
			position, err := s.Of("/a").Ticket(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			now = position.Ticket
		}
		if got := commit(t, s, op); got[0] != partition.OldTicket {
			t.Fatalf("commit: %v", got)
		}
		if got := next(t, s, "/a"); !slices.Equal(got, []string{"/a"}) {
			t.Errorf("pending: %v", got)
		}
	})
}

// The process that renders has a ticket above all that the process of the job has heard of.
func TestARenderThatWasUnderWayDoesNotReplaceAPush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		for _, kind := range []partition.Kind{partition.OpPush, partition.OpRemove, partition.OpOverwrite, partition.OpErase} {
			s := newStore(t, rdb, partitions)
			floor, err := s.Of("/a").Ticket(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			late := claim(t, s, "/a", "1", "")
			waiter := claim(t, s, "/a", "2", "")
			op := partition.Operation{Kind: kind, Key: "/a", Position: floor, Value: value(t, floor.Ticket, "pushed", false)}
			if kind == partition.OpOverwrite || kind == partition.OpErase {
				op.Position = partition.Position{} // its ticket is taken now
			}
			commit(t, s, op)
			want := body(t, s, "/a")
			if got := commit(t, s, stored(t, "/a", late, "old")); got[0] != partition.Unseen || !got[0].Again() || body(t, s, "/a") != want {
				t.Errorf("%s: the render: %v, read %q", kind, got, body(t, s, "/a"))
			}
			// The render may have shown what the push does not, so neither it nor its waiters are done.
			again := claim(t, s, "/a", "2", waiter.Ticket)
			if again.Granted != partition.Claimed {
				t.Errorf("%s: a waiter: %+v", kind, again)
			}
			if got := commit(t, s, stored(t, "/a", again, "new")); got[0] != partition.Stored || body(t, s, "/a") != "new" {
				t.Errorf("%s: the next render: %v, read %q", kind, got, body(t, s, "/a"))
			}
		}
	})
}

func TestARenderFromBeforeTheFloorOfAPushIsDone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		late := claim(t, s, "/a", "1", "")
		waiter := claim(t, s, "/a", "2", "")
		floor, err := s.Of("/a").Ticket(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		push := partition.Operation{Kind: partition.OpPush, Key: "/a", Position: floor, Value: value(t, floor.Ticket, "pushed", false)}
		if got := commit(t, s, push); got[0] != partition.Stored {
			t.Fatalf("push: %v", got)
		}
		if got := commit(t, s, push); got[0] != partition.Superseded {
			t.Errorf("the same push again: %v", got)
		}
		if got := claim(t, s, "/a", "2", waiter.Ticket); got.Granted != partition.Done {
			t.Errorf("a waiter: %+v", got)
		}
		if got := commit(t, s, stored(t, "/a", late, "old")); got[0] != partition.Superseded || body(t, s, "/a") != "pushed" {
			t.Errorf("the render: %v, read %q", got, body(t, s, "/a"))
		}
	})
}

// Redis may lose time: its clock is set back, or a replica takes over whose clock is behind. Tickets then run ahead of it.
func TestATombstoneOutlivesCommitsFromBeforeItWhenTheClockWasSetBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		const life = 50 * time.Millisecond
		ctx, namespace := context.Background(), redistest.Namespace(t)
		s := newStore(t, rdb, partitions, func(c *partition.Config) { c.Namespace, c.TombstoneLife = namespace, life })
		now := func() time.Time {
			now, err := rdb.Time(ctx).Result()
			if err != nil {
				t.Fatal(err)
			}
			return now
		}
		p := s.Of("/a")
		if _, err := p.Ticket(ctx); err != nil { // makes the clock
			t.Fatal(err)
		}
		ahead := fmt.Sprintf("%020d", now().Add(time.Hour).UnixMicro())
		if err := rdb.HSet(ctx, partition.Prefix(namespace, p.Number)+"meta", "clock", ahead).Err(); err != nil {
			t.Fatal(err)
		}
		late := claim(t, s, "/a", "1", "")
		position, err := p.Ticket(ctx)
		if err != nil {
			t.Fatal(err)
		}
		commit(t, s, partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: position})
		for end := now().Add(2 * life); now().Before(end); {
		}
		if got := commit(t, s, stored(t, "/a", late, "old")); got[0] == partition.Stored || body(t, s, "/a") == "old" {
			t.Errorf("a late commit: %v, read %q", got, body(t, s, "/a"))
		}
	})
}

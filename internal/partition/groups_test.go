package partition_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// in returns the operation with groups.
func in(op partition.Operation, groups ...string) partition.Operation {
	op.Groups = groups
	return op
}

// render claims a key and commits an entry that is in the groups.
func render(t *testing.T, s *partition.Store, key string, groups ...string) partition.Outcome {
	t.Helper()
	return commit(t, s, in(stored(t, key, claim(t, s, key, key, ""), "a page"), groups...))[0]
}

func mark(t *testing.T, s *partition.Store, key string, limit int, groups ...string) (keys []string) {
	t.Helper()
	marked, err := s.Of(key).Mark(context.Background(), groups, limit, "the-job")
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range marked.Members {
		keys = append(keys, member.Key)
	}
	return keys
}

// walk takes steps until there is none to take, and returns the keys that are due then.
func walk(t *testing.T, s *partition.Store, key string, n int) []string {
	t.Helper()
	for range 1000 {
		more, err := s.Of(key).Walk(context.Background(), n, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return next(t, s, key)
		}
	}
	t.Fatal("the walk does not end")
	return nil
}

func groupsOf(t *testing.T, s *partition.Store, key string) []string {
	t.Helper()
	groups, err := s.Of(key).Groups(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

func members(t *testing.T, s *partition.Store, key, group string) []string {
	t.Helper()
	keys, err := s.Of(key).Members(context.Background(), group, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestMembershipFollowsEachCommit(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions)
		odd := []string{"", " ", "a b", `"\`, "~"}
		render(t, s, "/a", odd...)
		if got := groupsOf(t, s, "/a"); !slices.Equal(got, odd) {
			t.Errorf("groups: %q", got)
		}
		for _, group := range odd {
			if got := members(t, s, "/a", group); !slices.Equal(got, []string{"/a"}) {
				t.Errorf("members of %q: %q", group, got)
			}
		}
		render(t, s, "/a", "a b", "new")
		if got := groupsOf(t, s, "/a"); !slices.Equal(got, []string{"a b", "new"}) {
			t.Errorf("groups after the next render: %q", got)
		}
		if got := members(t, s, "/a", "~"); len(got) != 0 {
			t.Errorf("it left the group and is still a member: %q", got)
		}
		c := claim(t, s, "/a", "2", "")
		commit(t, s, partition.Operation{Kind: partition.OpFail, Key: "/a", Position: c.Position, Value: "no answer"})
		if got := members(t, s, "/a", "new"); len(got) != 1 {
			t.Errorf("a render that failed took it out of its group: %q", got)
		}
		c = claim(t, s, "/a", "3", "")
		commit(t, s, partition.Operation{Kind: partition.OpDestroy, Key: "/a", Position: c.Position})
		if got := append(groupsOf(t, s, "/a"), members(t, s, "/a", "new")...); len(got) != 0 {
			t.Errorf("destroyed, and still a member: %q", got)
		}
	})
}

func TestAGroupIsNoPrefixOfAnother(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		render(t, s, "/a", "x")
		render(t, s, "/b", "x ")
		render(t, s, "/c", "x/c")
		render(t, s, "/d", "xx", "")
		for group, want := range map[string]string{"x": "/a", "x ": "/b", "x/c": "/c", "xx": "/d", "": "/d"} {
			if got := mark(t, s, "/a", 10, group); !slices.Equal(got, []string{want}) {
				t.Errorf("members of %q: %q", group, got)
			}
		}
	})
}

func TestALowerTicketChangesNoMembership(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, partitions, func(c *partition.Config) { c.ClaimLease = time.Microsecond })
		late := claim(t, s, "/a", "1", "")
		if got := render(t, s, "/a", "new"); got != partition.Stored {
			t.Fatal(got)
		}
		if got := commit(t, s, in(stored(t, "/a", late, "old"), "old"))[0]; got != partition.Superseded {
			t.Errorf("a late commit: %v", got)
		}
		if got := groupsOf(t, s, "/a"); !slices.Equal(got, []string{"new"}) {
			t.Errorf("groups: %q", got)
		}
	})
}

// lateJoin commits a key into a group that has changed since the key was claimed, and returns what is due then.
func lateJoin(t *testing.T, rdb redis.UniversalClient, partitions int, g partition.Guards, before ...string) []string {
	s := newStore(t, rdb, partitions, func(c *partition.Config) { c.Guards = g })
	c := claim(t, s, "/a", "1", "")
	for _, group := range before {
		mark(t, s, "/a", 10, group)
	}
	if got := commit(t, s, in(stored(t, "/a", c, "version 1"), "other", "g"))[0]; got != partition.Stored {
		t.Fatal(got)
	}
	return next(t, s, "/a")
}

func TestAnEntryThatJoinsAGroupWhichHasChangedIsRenderedAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		if got := lateJoin(t, rdb, partitions, partition.Guards{}, "g"); !slices.Equal(got, []string{"/a"}) {
			t.Errorf("due: %q", got)
		}
		if got := lateJoin(t, rdb, partitions, partition.Guards{}, "unrelated"); len(got) != 0 {
			t.Errorf("due after a change of another group: %q", got)
		}
	})
}

func TestWithoutMarksAnEntryThatJoinsLateStaysAsItIs(t *testing.T) {
	if got := lateJoin(t, redistest.Shared(t), 1, partition.Guards{NoMarks: true}, "g"); len(got) != 0 {
		t.Errorf("due: %q: it is not the mark that has it rendered", got)
	}
}

// More groups change than may have a mark of their own: nothing is forgotten.
func TestMarksAreBoundedAndNoneIsForgotten(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		early := claim(t, s, "/a", "1", "")
		mark(t, s, "/a", 0, "g")
		for i := range 101 {
			var groups []string
			for j := range 100 {
				groups = append(groups, fmt.Sprint("group ", i, " ", j))
			}
			mark(t, s, "/a", 0, groups...)
		}
		marks := partition.Prefix(s.Namespace(), 0) + "marks"
		if n := rdb.ZCard(context.Background(), marks).Val(); n != 10_000 {
			t.Errorf("%d marks", n)
		}
		commit(t, s, in(stored(t, "/a", early, "version 1"), "g"))
		if got := next(t, s, "/a"); !slices.Equal(got, []string{"/a"}) {
			t.Errorf("due: %q", got)
		}
		render(t, s, "/b", "g")
		if got := next(t, s, "/b"); len(got) != 0 {
			t.Errorf("due, although it was asked for after the change: %q", got)
		}
	})
}

func TestMembersBeyondTheLimitAreWalked(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		var all []string
		for i := range 25 {
			all = append(all, fmt.Sprintf("/%02d", i))
			render(t, s, all[i], "g", "other")
		}
		if got := mark(t, s, "/", 25, "g"); !slices.Equal(got, all) {
			t.Errorf("members within the limit: %q", got)
		}
		if got := walk(t, s, "/", 10); len(got) != 0 {
			t.Errorf("due, although the caller renders all of them: %q", got)
		}
		if got := mark(t, s, "/", 5, "g"); !slices.Equal(got, all[:5]) {
			t.Errorf("members at the limit: %q", got)
		}
		render(t, s, "/07", "g") // has seen the change
		if got, want := walk(t, s, "/", 10), slices.Delete(slices.Clone(all[5:]), 2, 3); !slices.Equal(got, want) {
			t.Errorf("due: %q", got)
		}
		if got := walk(t, s, "/", 10); len(got) != 0 {
			t.Errorf("the walk has not ended: %q", got)
		}
	})
}

// A group that changes while it is walked is walked to its end and around, instead of from its beginning again; and every
// member comes in turn after the last change, also the one at which the walk was.
func TestAGroupThatChangesAllTheTimeIsWalkedAround(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		for i := range 30 {
			render(t, s, fmt.Sprintf("/%02d", i), "g")
		}
		seen := make(map[string]bool)
		step := func() (n int) {
			t.Helper()
			if _, err := s.Of("/").Walk(context.Background(), 10, 1000); err != nil {
				t.Fatal(err)
			}
			round, err := s.Of("/").Next(context.Background(), "next", 100, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, due := range round.Due {
				seen[due.Key] = true
				commit(t, s, in(stored(t, due.Key, partition.Claim{Position: due.Position}, "a page"), "g"))
			}
			return len(round.Due)
		}
		for range 3 { // it changes before each step: three steps reach all members all the same
			mark(t, s, "/", 0, "g")
			step()
		}
		if len(seen) != 30 {
			t.Errorf("%d of 30 members came in turn", len(seen))
		}
		for range 10 {
			step() // to the end
		}
		mark(t, s, "/", 0, "g")
		if n := step(); n != 10 {
			t.Fatalf("a step of a new walk makes %d keys pending", n)
		}
		mark(t, s, "/", 0, "g") // the walk stands on a member in the middle
		clear(seen)
		for range 10 {
			step()
		}
		if len(seen) != 30 {
			t.Errorf("%d of 30 members have seen the last change", len(seen))
		}
		if n := rdb.HLen(context.Background(), partition.Prefix(s.Namespace(), 0)+"walks").Val(); n != 0 {
			t.Error("the walk has not ended")
		}
	})
}

// Somebody who looks at the backlog sees for how long the oldest change is not shown by all members, however often the group
// changes.
func TestAWalkIsAsOldAsTheOldestChangeThatIsToBeShown(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		p := s.Of("/")
		for i := range 30 {
			render(t, s, fmt.Sprintf("/%02d", i), "g")
		}
		age := func() time.Duration {
			t.Helper()
			b, err := p.Backlog(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(b.WalkAge) * time.Microsecond
		}
		change := func() time.Time {
			begin := time.Now()
			mark(t, s, "/", 0, "g")
			for age := time.Since(begin); age < 20*time.Millisecond; age = time.Since(begin) { // what follows is younger by that
			}
			return begin
		}
		step := func() {
			if _, err := p.Walk(context.Background(), 10, 1000); err != nil {
				t.Fatal(err)
			}
		}
		isSince := func(change, next time.Time, what string) {
			t.Helper()
			// Redis's clock may be read in another millisecond than ours.
			if got := age() + time.Millisecond; got < time.Since(next) || got > time.Since(change)+2*time.Millisecond {
				t.Errorf("%s: the walk is %v old; the change is of %v ago, the next of %v ago", what, got, time.Since(change), time.Since(next))
			}
		}
		first := change()
		step()
		second := change()
		step()
		third := change()
		isSince(first, second, "20 members have seen the first change")
		step()
		step() // to the end, and around
		isSince(second, third, "all have seen the first change, and 10 not the second")
		step()
		isSince(second, third, "10 of the 20 before the place of the third change are left")
		for range 3 {
			step()
		}
		if got := age(); got != 0 {
			t.Errorf("the walk has ended, and is %v old", got)
		}

		// One change after the other, three in each time around.
		var begins []time.Time
		for range 5 {
			begins = append(begins, time.Now())
			for range 3 {
				change()
				step()
			}
			step()
			if n := len(begins); n > 1 {
				isSince(begins[n-2], time.Now(), "the walk goes round and round")
			}
		}
	})
}

func TestAWalkWaitsUntilLittleIsDue(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient, partitions int) {
		s := newStore(t, rdb, 1)
		for i := range 10 {
			render(t, s, fmt.Sprintf("/%02d", i), "g")
		}
		mark(t, s, "/", 0, "g")
		commit(t, s, partition.Operation{Kind: partition.OpPend, Key: "/due"}, partition.Operation{Kind: partition.OpPend, Key: "/later", Delay: time.Hour})
		if more, err := s.Of("/").Walk(context.Background(), 10, 1); more || err != nil {
			t.Errorf("walked although a key is due: %t, %v", more, err)
		}
		if more, err := s.Of("/").Walk(context.Background(), 10, 2); !more || err != nil {
			t.Errorf("did not walk: %t, %v", more, err)
		}
	})
}

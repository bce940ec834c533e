package batch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/itscales/scales/internal/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a round trip that the test lets land.
type gate struct {
	sent chan []int
	land chan error
}

func newGate() *gate { return &gate{make(chan []int, 100), make(chan error, 100)} }

func (g *gate) send(requests []int) ([]int, error) {
	g.sent <- slices.Clone(requests)
	if err := <-g.land; err != nil {
		return nil, err
	}
	doubled := make([]int, len(requests))
	for i, r := range requests {
		doubled[i] = 2 * r
	}
	return doubled, nil
}

func TestWhatWaitsDuringARoundTripLeavesTogether(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send})
	var group sync.WaitGroup
	call := func(n int) {
		group.Go(func() {
			if got, err := b.Do(context.Background(), n); got != 2*n || err != nil {
				t.Errorf("Do(%d) = %d, %v", n, got, err)
			}
		})
	}
	call(1)
	if first := <-g.sent; !slices.Equal(first, []int{1}) {
		t.Fatalf("an idle batcher sent %v first", first)
	}
	results := make(chan []int)
	go func() {
		doubled, _ := b.DoAll(context.Background(), []int{2, 3, 4})
		results <- doubled
	}()
	// Nothing is sent while the first round trip is under way; when it lands, the rest leaves as one.
	g.land <- nil
	if second := <-g.sent; !slices.Equal(second, []int{2, 3, 4}) {
		t.Fatalf("the second round trip took %v", second)
	}
	g.land <- nil
	if doubled := <-results; !slices.Equal(doubled, []int{4, 6, 8}) {
		t.Errorf("results %v", doubled)
	}
	group.Wait()
}

func TestARoundTripIsBoundedInCallsAndWeight(t *testing.T) {
	for _, test := range []struct {
		name   string
		config batch.Config[int, int]
	}{
		{"calls", batch.Config[int, int]{MaxCalls: 2}},
		{"weight", batch.Config[int, int]{MaxWeight: 20, Weight: func(int) int { return 10 }}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate()
			test.config.Send = g.send
			b := batch.New(test.config)
			done := make(chan struct{})
			go func() {
				b.DoAll(context.Background(), []int{1, 2, 3, 4, 5})
				close(done)
			}()
			for _, want := range [][]int{{1, 2}, {3, 4}, {5}} {
				if got := <-g.sent; !slices.Equal(got, want) {
					t.Errorf("a round trip took %v, not %v", got, want)
				}
				g.land <- nil
			}
			<-done
		})
	}
}

func TestAnErrorIsThatOfEveryCall(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send})
	broken := errors.New("broken")
	g.land <- broken
	_, errs := b.DoAll(context.Background(), []int{1, 2})
	for i, err := range errs {
		if !errors.Is(err, broken) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestTooFewResultsAreAnError(t *testing.T) {
	b := batch.New(batch.Config[int, int]{Send: func([]int) ([]int, error) { return nil, nil }})
	if _, err := b.Do(context.Background(), 1); err == nil {
		t.Error("no error")
	}
}

func TestACallThatNeverLeftIsToldFromOneThatDid(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send, Patience: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := b.Do(ctx, 1)
		left <- err
	}()
	<-g.sent
	waits := make(chan error, 1)
	waiting, giveUp := context.WithCancel(context.Background())
	go func() {
		giveUp()
		_, err := b.Do(waiting, 2)
		waits <- err
	}()
	if err := <-waits; !errors.Is(err, batch.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("a call that waited: %v", err)
	}
	cancel()
	if err := <-left; errors.Is(err, batch.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("a call that had left: %v", err)
	}
	g.land <- nil
	// What was given up is not sent later.
	go g.send(nil)
	if got := <-g.sent; len(got) != 0 {
		t.Errorf("sent %v", got)
	}
	g.land <- nil
}

func TestACallDoesNotQueueBehindADeadConnection(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send, Patience: time.Millisecond})
	results := make(chan int, 2)
	for n := 1; n <= 2; n++ {
		go func() {
			got, err := b.Do(context.Background(), n)
			if err != nil {
				t.Error(err)
			}
			results <- got
		}()
		<-g.sent // the second leaves although the first has not come back
	}
	g.land <- nil
	g.land <- nil
	if sum := <-results + <-results; sum != 6 {
		t.Errorf("results sum up to %d", sum)
	}
	// The batcher works on with its one flight.
	g.land <- nil
	if got, err := b.Do(context.Background(), 5); got != 10 || err != nil {
		t.Errorf("Do = %d, %v", got, err)
	}
}

func TestAFullRoundTripLeavesBesideAnother(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send, MaxCalls: 2, FullFlights: 1, Patience: time.Hour})
	var calls []batch.Call[int, int]
	start := func(n int) { calls = append(calls, b.Start(n)) }
	start(1)
	if got := <-g.sent; !slices.Equal(got, []int{1}) {
		t.Fatalf("sent %v", got)
	}
	start(2) // waits, because 3 still fits beside it
	start(3)
	if got := <-g.sent; !slices.Equal(got, []int{2, 3}) {
		t.Errorf("sent %v beside the first one", got)
	}
	start(4)
	start(5)
	start(6)
	// Two are under way, which is the most. When one lands, the full one follows; the rest waits until both have landed.
	for _, step := range []struct {
		landings int
		sent     []int
	}{{1, []int{4, 5}}, {2, []int{6}}} {
		for range step.landings {
			select {
			case got := <-g.sent:
				t.Errorf("sent %v before its time", got)
			default:
			}
			g.land <- nil
		}
		if got := <-g.sent; !slices.Equal(got, step.sent) {
			t.Errorf("sent %v, not %v", got, step.sent)
		}
	}
	g.land <- nil
	for i, call := range calls {
		if got, err := call.Wait(context.Background()); got != 2*(i+1) || err != nil {
			t.Errorf("call %d: %d, %v", i+1, got, err)
		}
	}
}

func TestACallThatIsTakenBackInTimeNeverLeaves(t *testing.T) {
	g := newGate()
	b := batch.New(batch.Config[int, int]{Send: g.send, Patience: time.Hour})
	first := b.Start(1)
	<-g.sent
	second, third, fourth := b.Start(2), b.Start(3), b.Start(4)
	if first.GiveUp() {
		t.Error("a call that has left was taken back")
	}
	if !third.GiveUp() {
		t.Error("a call that waits was not taken back")
	}
	g.land <- nil
	if got := <-g.sent; !slices.Equal(got, []int{2, 4}) {
		t.Errorf("sent %v", got)
	}
	g.land <- nil
	for call, want := range map[batch.Call[int, int]]int{first: 2, second: 4, fourth: 8} {
		if got, err := call.Wait(context.Background()); got != want || err != nil {
			t.Errorf("%d, %v instead of %d", got, err, want)
		}
	}
	fifth := b.Start(5)
	<-g.sent
	sixth := b.Start(6)
	sixth.GiveUp()
	g.land <- nil
	// A round trip that everybody has left is not made.
	if got, err := fifth.Wait(context.Background()); got != 10 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	last := b.Start(7)
	if got := <-g.sent; !slices.Equal(got, []int{7}) {
		t.Errorf("sent %v", got)
	}
	g.land <- nil
	if got, err := last.Wait(context.Background()); got != 14 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

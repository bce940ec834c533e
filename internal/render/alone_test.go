package render_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/itscales/scales/internal/redistest"
	"github.com/itscales/scales/internal/render"
)

// performAtOnce has many callers need the same key at the same time and returns how often it was rendered.
func performAtOnce(t *testing.T, callers int, guards render.Guards) int64 {
	t.Helper()
	r, renders := renderer(t, redistest.Shared(t), guards)
	begin := make(chan struct{})
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			<-begin
			results, err := r.Perform(t.Context(), needs("/a"))
			if want := []render.Result{{Key: "/a", State: render.Stored}}; err != nil || !slices.Equal(results, want) {
				t.Errorf("%+v, %v; want %+v", results, err, want)
			}
		})
	}
	close(begin)
	group.Wait()
	return renders.Load()
}

func TestWhoNeedsAKeyAtTheSameTimeSharesItsRender(t *testing.T) {
	redistest.Require(t)
	const callers = 200
	if n := performAtOnce(t, callers, render.Guards{}); n > callers/2 {
		t.Errorf("%d callers cost %d renders", callers, n)
	}
}

func TestWithoutSharingEveryNeedCostsARender(t *testing.T) {
	redistest.Require(t)
	const callers = 200
	if n := performAtOnce(t, callers, render.Guards{NoSharing: true}); n != callers {
		t.Errorf("%d callers cost %d renders: it is not the sharing that saves renders", callers, n)
	}
}

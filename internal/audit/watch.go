package audit

import (
	"context"
	"sync"
	"time"

	"github.com/itscales/scales/internal/streamid"
)

// A watch tells which jobs have not ended, without asking for every key. It is safe for concurrent use.
type watch struct {
	span func(ctx context.Context) (oldest, newest string, err error)
	keep time.Duration // how long an answer is good enough: what had ended then has ended

	mu               sync.Mutex
	asked            time.Time // before the last answer
	oldest, youngest string    // "" if there is none
}

// newest returns the id of the newest job that was there at the time of the call, or of a later one; "" if there was none.
func (w *watch) newest(ctx context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ask(ctx); err != nil {
		return "", err
	}
	return w.youngest, nil
}

// ended reports whether a job that newest has returned, and all that came before it, have ended.
func (w *watch) ended(ctx context.Context, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.asked) > w.keep {
		if err := w.ask(ctx); err != nil {
			return false, err
		}
	}
	return id == "" || w.oldest == "" || streamid.Less(id, w.oldest), nil
}

// ask asks which jobs there are. The caller holds mu.
func (w *watch) ask(ctx context.Context) error {
	at := time.Now()
	oldest, newest, err := w.span(ctx)
	if err != nil {
		return err
	}
	w.asked, w.oldest, w.youngest = at, oldest, newest
	return nil
}

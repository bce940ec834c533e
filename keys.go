package scales

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/itscales/scales/internal/discover"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/message"
)

// Keys returns a sequence of these keys, for Fill.
func Keys(keys ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

// canonicalKeys yields the keys of a sequence in canonical form. One that has none is yielded as it is: whoever works on it
// finds out.
func (c *Cache) canonicalKeys(keys iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for key, err := range keys {
			if canonicalKey, bad := c.parse(key); bad == nil {
				key = canonicalKey
			}
			if !yield(key, err) {
				return
			}
		}
	}
}

// links returns the keys that the entry of a key leads to, in the order of the document.
func (c *Cache) links(key string, entry *message.Entry) []string {
	base, err := c.urlOf(key)
	if err != nil {
		return nil
	}
	var keys []string
	for _, one := range entry.Representations() {
		references := discover.Links(one.Header.Get("Content-Type"), base, one.Body)
		if one.Status >= http.StatusMultipleChoices && one.Status < http.StatusBadRequest {
			references = append(references, one.Header.Values("Location")...)
		}
		for _, reference := range references {
			if key, ok := c.sameOrigin(reference, base); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// urlOf returns the URL with which the application is asked for a canonical key.
func (c *Cache) urlOf(key string) (*url.URL, error) {
	host, target := c.rules.Target(key)
	if host == "" {
		host = c.origin.Host
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	u.Scheme, u.Host = c.origin.Scheme, host
	return u, nil
}

// sameOrigin returns the key of what a reference names, if that is of the origin of the cache and has a key.
func (c *Cache) sameOrigin(reference string, base *url.URL) (string, bool) {
	hosts := append([]string{c.origin.Host}, c.rules.Hosts...)
	host, path, query, ok := field.SameOrigin(reference, base, hosts...)
	if !ok {
		return "", false
	}
	key, err := c.rules.Key(host, path, query)
	return key, err == nil
}

// A walk does something with each key of a sequence, and with each key that these lead to. It is used once.
//
// The keys of a sequence are taken one by one, as there is room; those that were found wait in memory until the sequence
// has ended. Without follow nothing is remembered, so that a sequence may be of any length, and have a key twice.
type walk struct {
	walkConfig
	parallel int // keys worked on at once

	// do works on a key and returns the keys that it leads to. An error ends the walk.
	do func(ctx context.Context, at visit) (links []string, err error)

	slots   chan struct{}
	group   sync.WaitGroup
	changed chan struct{} // something may have come to its end

	mu      sync.Mutex
	known   map[string]struct{} // with follow: every key there is, done or not
	waiting []visit             // keys that were found
	working int
}

// A visit is a key that is worked on.
type visit struct {
	key  string
	from string // a key that leads to it, "" for one of the sequence
}

// linked adds to a text about a key from where it is linked.
func (v visit) linked(text string) string {
	if v.from == "" {
		return text
	}
	return text + "; " + v.from + " leads there"
}

// run goes through the keys. It returns when nothing is left, or when what is under way has come to its end after an
// error, of the sequence or of do, or after ctx has ended.
func (w *walk) run(ctx context.Context, keys iter.Seq2[string, error]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.slots, w.changed = make(chan struct{}, w.parallel), make(chan struct{}, 1)
	w.known = make(map[string]struct{})
	for key, err := range keys {
		if err != nil {
			cancel(fmt.Errorf("scales: the sequence of keys: %w", err))
			break
		}
		if !w.start(ctx, cancel, key) {
			break
		}
	}
	for {
		at, ok := w.next(ctx)
		if !ok || !w.begin(ctx, cancel, at) {
			break
		}
	}
	w.group.Wait()
	return context.Cause(ctx)
}

// start begins with a key of the sequence, unless it is known. It reports whether the walk goes on.
func (w *walk) start(ctx context.Context, cancel context.CancelCauseFunc, key string) bool {
	w.mu.Lock()
	key, fresh, err := w.learn(key)
	w.mu.Unlock()
	if err != nil {
		cancel(err)
	}
	return err == nil && (!fresh || w.begin(ctx, cancel, visit{key: key}))
}

// begin works on a key when there is a slot. It reports whether the walk goes on.
func (w *walk) begin(ctx context.Context, cancel context.CancelCauseFunc, at visit) bool {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return false
	}
	w.mu.Lock()
	w.working++
	w.mu.Unlock()
	w.group.Go(func() {
		links, err := w.do(ctx, at)
		if err == nil {
			err = w.found(at, links)
		}
		if err != nil {
			cancel(err)
		}
		w.end()
		<-w.slots
	})
	return true
}

// found takes note of the keys that a key leads to.
func (w *walk) found(at visit, links []string) error {
	if !w.follow {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range links {
		key, fresh, err := w.learn(key)
		if err != nil {
			return err
		}
		if fresh {
			w.waiting = append(w.waiting, visit{key: key, from: at.key})
		}
	}
	return nil
}

// learn reports whether a key was not known, and returns one that keeps nothing of the page it was found in. w.mu is held.
func (w *walk) learn(key string) (own string, fresh bool, err error) {
	if !w.follow {
		return key, true, nil
	}
	if _, known := w.known[key]; known {
		return key, false, nil
	}
	if len(w.known) >= w.maxKeys {
		return key, false, fmt.Errorf("%w: over %d (option MaxKeys); the next would be %s", ErrTooManyKeys, w.maxKeys, key)
	}
	own = strings.Clone(key)
	w.known[own] = struct{}{}
	return own, true, nil
}

func (w *walk) end() {
	w.mu.Lock()
	w.working--
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// next returns a key that was found. It waits for one as long as work is under way that may find some.
func (w *walk) next(ctx context.Context) (visit, bool) {
	for ctx.Err() == nil {
		w.mu.Lock()
		if len(w.waiting) > 0 {
			at := w.waiting[0]
			w.waiting[0] = visit{}
			w.waiting = w.waiting[1:]
			w.mu.Unlock()
			return at, true
		}
		working := w.working
		w.mu.Unlock()
		if working == 0 {
			return visit{}, false
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
		}
	}
	return visit{}, false
}

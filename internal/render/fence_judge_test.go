package render_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
)

// A shown is what the cache shows under a key.
type shown struct {
	page         // of the application, if it shows one
	nothing bool // nothing, or a tombstone
	partly  bool // some of its variants are missing
	odd     string
}

// read reads a key.
func (h *history) read(ctx context.Context, key string) (shown, error) {
	found, err := h.observer.Of(key).Read(ctx, key)
	if err != nil || !found.Exists {
		s := shown{nothing: true}
		if found.Lost {
			s.odd = "nothing, although the index has it"
		}
		return s, err
	}
	return h.decode(key, found.Value), nil
}

// decode returns what a stored value shows.
func (h *history) decode(key, value string) shown {
	entry, err := message.ParseEntry(value)
	if err != nil {
		return shown{odd: err.Error()}
	}
	if entry.Gone {
		return shown{nothing: true}
	}
	representations := entry.Representations()
	s := shown{partly: len(representations) < len(entry.Variants)}
	for i, one := range representations {
		page, ok := h.app.shows(key, string(one.Body))
		if !ok || one.Status != http.StatusOK {
			return shown{odd: fmt.Sprintf("status %d and %q, which the application never answered", one.Status, one.Body)}
		}
		if i == 0 {
			s.page = page
		} else {
			s.page = s.page.together(page)
		}
	}
	return s
}

// together returns what two variants of a page show at least, in the groups of both.
func (p page) together(other page) page {
	least := page{p.resource, maps.Clone(p.shared)}
	if other.version < p.version {
		least.resource = other.resource
	}
	for group, version := range other.shared {
		least.shared[group] = min(version, least.shared[group])
	}
	least.groups = slices.Compact(slices.Sorted(slices.Values(slices.Concat(p.groups, other.groups))))
	return least
}

// checkReply checks, after a job was replied to, that the cache shows a key as it was at a moment, or later: with its
// version, and with that of each group that it is in.
func (h *history) checkReply(ctx context.Context, j *job, key string, least page) {
	if h.careless {
		return
	}
	s, err := h.read(ctx, key)
	if err != nil {
		h.fail("read %s: %w", key, err)
		return
	}
	now := h.app.look(key)
	switch {
	case s.odd != "":
	case (s.nothing || s.partly) && now.absent < least.version:
		s.odd = "nothing, or lacks a variant"
	case !s.nothing && s.version < least.version:
		s.odd = fmt.Sprintf("version %d", s.version)
	default:
		for _, group := range s.groups { // none where it shows nothing
			if s.shared[group] < least.shared[group] {
				s.odd = fmt.Sprintf("version %d of group %q instead of %d", s.shared[group], group, least.shared[group])
			}
		}
	}
	if s.odd == "" {
		h.settle(key, least.version)
		return
	}
	h.stale("after %s, %s has to show version %d or a later one, and shows %s", j.name, key, least.version, s.odd)
}

// stale notes a read that showed what it must not show at that moment.
func (h *history) stale(format string, args ...any) {
	h.note(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict.stale = append(h.verdict.stale, fmt.Sprintf(format, args...))
}

// drift notes what differs between cache and application when all is quiet.
func (h *history) drift(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict.drift = append(h.verdict.drift, fmt.Sprintf(format, args...))
}

// driftOf notes that a key differs.
func (h *history) driftOf(key, format string, args ...any) {
	h.drifted[key] = true
	h.drift("%s %s", key, fmt.Sprintf(format, args...))
}

// judge waits until all is quiet and compares the cache with the application. False means that it could not.
func (h *history) judge(ctx context.Context) bool {
	if err := h.quiet(ctx); err != nil {
		h.fail("waiting for quiet: %w", err)
		return false
	}
	listed := make(map[string]bool)
	for _, p := range h.observer.All() {
		keys, err := p.Keys(ctx, "", 100)
		if err != nil {
			h.fail("list keys: %w", err)
		}
		for _, key := range keys {
			listed[key] = true
		}
	}
	members := make(map[string][]string) // the groups that each key with an entry has to be in
	for _, key := range h.keys {
		s, err := h.read(ctx, key)
		if err != nil {
			h.fail("read %s: %w", key, err)
			return false
		}
		is := h.app.look(key)
		if difference := h.compare(key, s, is); difference != "" {
			h.driftOf(key, "%s", difference)
		} else if s.nothing == listed[key] {
			h.driftOf(key, "is listed: %t, although it shows nothing: %t", listed[key], s.nothing)
		}
		if !s.nothing {
			members[key] = is.groups
		}
	}
	h.judgeGroups(ctx, members)
	return true
}

// compare returns how the cache differs from the application.
func (h *history) compare(key string, s shown, is page) string {
	switch {
	case s.odd != "":
		return "shows " + s.odd
	case s.nothing && is.state == live && h.named[key]:
		return fmt.Sprintf("shows nothing, the application is at version %d", is.version)
	case s.nothing:
		return ""
	case s.partly:
		return "lacks a variant"
	case is.state != live:
		return fmt.Sprintf("shows version %d, the application has nothing since version %d", s.version, is.version)
	case h.app.body(key, s.page) != h.app.body(key, is):
		return fmt.Sprintf("shows %q, the application answers %q", h.app.body(key, s.page), h.app.body(key, is))
	}
	return ""
}

// quiet waits until nothing is pending, running or walked, in Redis and in the processes.
func (h *history) quiet(ctx context.Context) error {
	h.alive(h.dice, nil) // somebody has to render what is pending
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	relief := time.NewTimer(reliefAfter)
	defer relief.Stop()
	for {
		busy := h.claimed.Load()
		for number := range h.storeConfig.Partitions {
			prefix := partition.Prefix(h.storeConfig.Namespace, number)
			counts, err := h.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.ZCard(ctx, prefix+"pending")
				pipe.ZCard(ctx, prefix+"running")
				pipe.HLen(ctx, prefix+"walks")
				return nil
			})
			if err != nil {
				return fmt.Errorf("%d keys and groups are busy: %w", busy, err)
			}
			for _, count := range counts {
				busy += count.(*redis.IntCmd).Val()
			}
		}
		if busy == 0 {
			return nil
		}
		h.mu.Lock()
		for _, p := range h.processes {
			p.renderer.Kick()
		}
		h.mu.Unlock()
		select {
		case <-ticker.C:
		case <-relief.C:
			h.relieve(ctx)
		case <-ctx.Done():
			return fmt.Errorf("%d keys and groups are busy: %w", busy, ctx.Err())
		}
	}
}

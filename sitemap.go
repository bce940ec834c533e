package scales

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"

	"github.com/itscales/scales/internal/discover"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/render"
)

// Sitemap returns the sequence of the keys in a sitemap of the application (https://www.sitemaps.org/protocol.html), for
// Fill. Key is where it is, as "/sitemap.xml".
//
// The application is asked for it when the sequence is gone through, each time anew, as in a render: with the host of
// Origin, bounded in time (RenderTimeout) and size (MaxEntrySize). It is not stored by that. The sitemap may be compressed
// with gzip. If it is an index, the sitemaps in it are read one after the other, each when its turn comes: at most 50,000,
// of 50,000 locations each, as the protocol has it. An index in an index is an error.
//
// Locations of another origin than the Origin of the cache and its Hosts, and those that have no key, are skipped; when the
// sequence ends, their number and the first one are logged. Locations are not compared with each other: a key that is
// there twice comes twice.
//
// An error ends the sequence; what came before it stands. It is ErrSitemap, ErrKey for a bad key, or what has ended ctx.
func (w *Worker) Sitemap(ctx context.Context, key string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s := sitemap{worker: w, yield: yield}
		defer s.logSkipped(key)
		key, err := w.cache.parse(key)
		if err == nil {
			err = s.read(ctx, key, true)
		}
		if err != nil && !s.ended {
			yield("", err)
		}
	}
}

// sitemap is a sitemap that is being read, with those that it is the index of.
type sitemap struct {
	worker *Worker
	yield  func(string, error) bool
	ended  bool // whoever reads the sequence wants no more

	skipped int
	first   string // location that was skipped
}

// read yields the keys in a sitemap, or in the sitemaps of an index if it may be one.
func (s *sitemap) read(ctx context.Context, key string, index bool) error {
	body, base, err := s.get(ctx, key)
	if err != nil {
		return err
	}
	for entry, err := range discover.Sitemap(bytes.NewReader(body)) {
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrSitemap, key, err)
		}
		found, ok := s.worker.cache.sameOrigin(entry.Location, base)
		switch {
		case entry.Sitemap && !index:
			return fmt.Errorf("%w: %s is an index in an index", ErrSitemap, key)
		case !ok:
			s.skip(entry.Location)
		case entry.Sitemap:
			if err := s.read(ctx, found, false); err != nil {
				return err
			}
		default:
			s.ended = !s.yield(found, nil)
		}
		if s.ended {
			return nil
		}
	}
	return nil
}

// get asks the application for a sitemap. It returns its body and its URL.
func (s *sitemap) get(ctx context.Context, key string) ([]byte, *url.URL, error) {
	base, err := s.worker.cache.urlOf(key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrSitemap, key, err)
	}
	op, result := s.worker.renderer.Look(ctx, key)
	switch {
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case result.State == render.Destroyed:
		return nil, nil, fmt.Errorf("%w: %s: the application has no such resource", ErrSitemap, key)
	case result.State != render.Stored:
		return nil, nil, fmt.Errorf("%w: %s: %s", ErrSitemap, key, result.Reason)
	}
	entry, err := message.ParseEntry(op.Value)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrSitemap, key, err)
	}
	answer := entry.Representations()[0]
	switch {
	case answer.Status != http.StatusOK && answer.Status != http.StatusNonAuthoritativeInfo:
		return nil, nil, fmt.Errorf("%w: %s: the application answered with status %d", ErrSitemap, key, answer.Status)
	}
	return answer.Body, base, nil
}

func (s *sitemap) skip(location string) {
	if s.skipped++; s.skipped == 1 {
		s.first = location
	}
}

func (s *sitemap) logSkipped(key string) {
	if s.skipped > 0 {
		s.worker.cache.config.logger.Warn("scales: locations in a sitemap are of another origin or have no key; they were skipped",
			"sitemap", key, "skipped", s.skipped, "first", s.first, "origin", s.worker.cache.origin.String())
	}
}

package representation

import (
	"net/http"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/variant"
)

// Complete gives an entry that is going to be stored what is made once for all requests: an Etag, unless the application
// has set one, and the codings of its body, unless Cache-Control has no-transform (RFC 9110 §7.7).
func Complete(e *message.Entry, encoder *coding.Encoder) {
	if entityTag(e.Header) == "" {
		if tag := Tag(e.Status, e.Header, e.Body); tag != "" {
			e.Header.Set("Etag", tag)
		}
	}
	if encoder != nil && !field.NoTransform(e.Header) {
		e.Codings = encoder.Encode(e.Header.Get("Content-Type"), e.Body)
	}
}

// Of returns the representation of an entry that is no tombstone, or all of them: Select says which one a request gets. It
// keeps the bodies of the entry, which must not change any more.
func Of(e *message.Entry) *Representation {
	if len(e.Vary) == 0 {
		return New(Source{Status: e.Status, Header: e.Header, Body: e.Body, Codings: e.Codings})
	}
	v := &variants{selector: variant.SelectorOf(e.Vary), all: make([]*Representation, len(e.Variants))}
	for i, one := range e.Variants {
		if one != nil {
			v.all[i] = Of(one)
		}
	}
	return &Representation{variants: v}
}

// variants are the representations of a resource, nil where it has none.
type variants struct {
	selector *variant.Selector
	all      []*Representation
}

// Select returns the representation that a request with this header gets: the only one, or one of the variants. It is nil
// where the application has none for such a request. What it returns can be served.
func (r *Representation) Select(header http.Header) *Representation {
	if r.variants == nil {
		return r
	}
	return r.variants.all[r.variants.selector.Select(header)]
}

func (v *variants) size() int {
	const overhead, pointerSize = 128, 8
	size := overhead + pointerSize*len(v.all)
	for _, r := range v.all {
		if r != nil {
			size += overhead + r.Size()
		}
	}
	return size
}

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

// Of returns the representation of an entry that is no tombstone, or all of them. It keeps the bodies of the entry, which must
// not change any more.
func Of(e *message.Entry) *Representation {
	if len(e.Vary) == 0 {
		return New(Source{Status: e.Status, Header: e.Header, Body: e.Body, Codings: e.Codings})
	}
	return ofVariants(e, variant.SelectorOf(e.Vary), func(int) bool { return true })
}

// OfSelected is Of for one request only: it has what a request with this header selects.
func OfSelected(e *message.Entry, header http.Header) *Representation {
	if len(e.Vary) == 0 {
		return Of(e)
	}
	selector := variant.SelectorOf(e.Vary)
	selected := selector.Select(header)
	return ofVariants(e, selector, func(i int) bool { return i == selected })
}

func ofVariants(e *message.Entry, selector *variant.Selector, wanted func(variant int) bool) *Representation {
	v := &variants{selector: selector, all: make([]*Representation, len(e.Variants))}
	for _, f := range e.Vary {
		v.names = append(v.names, f.Name)
	}
	for i, one := range e.Variants {
		if one == nil || !wanted(i) {
			continue
		}
		source := Source{Status: one.Status, Header: one.Header, Body: one.Body, Codings: one.Codings}
		if sharesTag(e.Variants, i) {
			source.TagSuffix = suffixOf(e.Vary.String(i))
		}
		v.all[i] = New(source)
	}
	return &Representation{variants: v}
}

// sharesTag reports whether another variant has the same entity tag, because the application has given them one, or because
// their content is the same.
func sharesTag(variants []*message.Entry, i int) bool {
	tag := entityTag(variants[i].Header)
	for j, other := range variants {
		if j != i && other != nil && tag != "" && sameWeakly(entityTag(other.Header), tag) {
			return true
		}
	}
	return false
}

// variants are the representations of a resource, nil where it has none.
type variants struct {
	selector *variant.Selector
	names    []string // of the fields that select
	all      []*Representation
}

// Answer answers a GET or HEAD request with the representation that it selects: the only one, or one of the variants; see
// Serve. It is false, and nothing was answered, where there is none for such a request; Vary is set then.
func (r *Representation) Answer(w http.ResponseWriter, req *http.Request, note Note) bool {
	if v := r.variants; v != nil {
		if r = v.all[v.selector.Select(req.Header)]; r == nil {
			field.Merge(w.Header(), http.Header{"Vary": v.names})
			return false
		}
	}
	r.Serve(w, req, note)
	return true
}

// size returns the number of bytes of memory that variants hold, in the unit of Size.
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

package representation

import (
	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/message"
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

// Package coding has the content codings of HTTP (RFC 9110 §8.4.1): it compresses a body once, when an entry is written,
// for all requests that will ask for it, and decodes what an application has compressed.
package coding

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/itscales/scales/internal/message"
)

// The codings, by their names in the IANA registry.
const (
	Brotli    = "br"   // RFC 7932
	Zstandard = "zstd" // RFC 8878, with the window of RFC 9659
	Gzip      = "gzip" // RFC 1952
)

// DefaultMinSize is the size of a body from which compressing pays. One of 1024 bytes leaves in one TCP segment (1460
// bytes on Ethernet) together with its header, so a smaller one would not arrive earlier; the entry in the cache would
// still get larger by it.
const DefaultMinSize = 1024

// leastGain: a coding has to save one byte in this many. What saves less costs memory for each entry, and time at each
// client, for next to nothing.
const leastGain = 20

// Coding is a body in a content coding: Brotli, Zstandard or Gzip.
type Coding = message.Coding

// Config says what is compressed, and how.
type Config struct {
	// Names are the codings to be made: Brotli, Zstandard, Gzip. Without any nothing is compressed.
	Names []string

	// MinSize is the number of bytes that a body has at least. DefaultMinSize is a good value.
	MinSize int

	// Types are patterns of the media types that are compressed, in any case. A pattern is the name of a type
	// ("application/json"), or has an asterisk in place of a whole part ("text/*") or before a structured syntax suffix
	// ("*/*+json", RFC 6838 §4.2.8). An asterisk does not stand for types whose content is compressed already, such as
	// most images; they have to be named. DefaultTypes is a good value.
	Types []string
}

// DefaultNames returns all codings.
func DefaultNames() []string { return []string{Brotli, Zstandard, Gzip} }

// Encoder compresses bodies. It is safe for concurrent use.
type Encoder struct {
	names   []string
	minSize int
	types   []pattern

	busy chan struct{} // the bodies that are compressed at this moment: as many as there are processors, for the memory and time it takes
}

// New returns an encoder. The error names every setting that is wrong: a coding that is unknown or there twice, a negative
// size, a malformed pattern.
func New(config Config) (*Encoder, error) {
	var wrong []error
	e := &Encoder{names: slices.Clone(config.Names), minSize: config.MinSize, busy: make(chan struct{}, runtime.GOMAXPROCS(0))}
	for i, name := range config.Names {
		switch {
		case encoders[name] == nil:
			wrong = append(wrong, fmt.Errorf("coding: Names: %w %q; there are %q", ErrUnknown, name, DefaultNames()))
		case slices.Contains(config.Names[:i], name):
			wrong = append(wrong, fmt.Errorf("coding: Names: %q is there twice", name))
		}
	}
	if config.MinSize < 0 {
		wrong = append(wrong, fmt.Errorf("coding: MinSize: %d is negative", config.MinSize))
	}
	for _, text := range config.Types {
		p, err := parsePattern(text)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("coding: Types: %w", err))
		}
		e.types = append(e.types, p)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return e, nil
}

// Encode returns the codings of a body with a media type, the value of a Content-Type field, in the order of
// Config.Names. There are none if the body is too small or of another type; a coding that does not save 5 % of the bytes
// is left out. No more bodies are compressed at once than there are processors; others wait. The same body gives the same codings for a version of the library and of those that it uses.
func (e *Encoder) Encode(contentType string, body []byte) []Coding {
	if len(e.names) == 0 || len(body) < e.minSize || len(body) == 0 || !e.compresses(contentType) {
		return nil
	}
	e.busy <- struct{}{}
	defer func() { <-e.busy }()
	var codings []Coding
	for _, name := range e.names {
		coded, err := encoders[name].encode(body)
		if err == nil && len(coded) <= len(body)-(len(body)+leastGain-1)/leastGain {
			codings = append(codings, Coding{Name: name, Body: coded})
		}
	}
	return codings
}

func (e *Encoder) compresses(contentType string) bool {
	mainType, subtype, ok := mediaType(contentType)
	if !ok {
		return false
	}
	return slices.ContainsFunc(e.types, func(p pattern) bool { return p.matches(mainType, subtype) })
}

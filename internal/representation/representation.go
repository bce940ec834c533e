// Package representation makes an entry ready to be served: to any number of requests at once, in the coding that each
// accepts, whole or in ranges, or with the word that it has not changed (RFC 9110 §8.8, §12.5.3, §13, §14).
//
// All that can be done once for an entry is done by New, so that a hit costs a few assignments to the header of the answer,
// and no memory.
package representation

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/itscales/scales/internal/coding"
)

// A Source is what a representation is made of.
type Source struct {
	// Status is one that is stored: 200, 203, 204, 300 to 303, 307, 308.
	Status int

	// Header has the end-to-end fields as they are stored, with canonical names. New leaves out what a server says about
	// the message that it sends (Content-Length, Date, Age, Content-Encoding, Content-Range, Cache-Status, and
	// Accept-Ranges of a 200), and an Etag that is no entity tag (RFC 9110 §8.8.3), which no client could send back.
	Header http.Header

	// Body is the content without a coding.
	Body []byte

	// TagSuffix tells the Etag from that of another variant that the application has given the same one: what comes behind it,
	// "--variant-3c1f9a07". TakeSuffixes takes it off again.
	TagSuffix string

	// Codings are codings of Body that are stored with it. Those that package coding doesn't make are left out.
	Codings []coding.Coding
}

// A Representation is an entry that is ready to be served. It doesn't change, and is safe for concurrent use.
type Representation struct {
	shape *shape // what it shares with other representations

	// values has the values of the entry's own fields, all in one piece of memory: the Content-Length and the Etag of the
	// identity and then of each coding ("" where there is none), then those of shape.own.
	values []string

	body     []byte
	codings  []coded // the smallest first
	modified int64   // Last-Modified in seconds since 1970, or noDate

	variants *variants // then there is nothing else
}

const noDate = math.MinInt64

// coded is the body in a coding.
type coded struct {
	body   []byte
	coding codingNumber
}

// codingNumber tells the codings apart; it is an index of the following arrays.
type codingNumber uint8

const codingCount = 3

var (
	codingNames = [codingCount]string{coding.Brotli, coding.Zstandard, coding.Gzip}

	// contentEncodings are values that all answers share.
	contentEncodings = [codingCount][]string{{coding.Brotli}, {coding.Zstandard}, {coding.Gzip}}

	// suffixes tell the entity tags of the codings from that of the identity.
	suffixes = [codingCount]string{"--" + coding.Brotli, "--" + coding.Zstandard, "--" + coding.Gzip}
)

// New returns the representation of a source. It keeps Body and the bodies of the codings, which must not change any more,
// and copies what else it needs, so that the header may be a part of something larger.
func New(source Source) *Representation {
	r := &Representation{body: source.Body, codings: codedBodies(source.Codings), modified: noDate}
	tag := addSuffix(entityTag(source.Header), source.TagSuffix)
	plan := planOf(source, len(r.codings) > 0, tag != "")
	r.shape = shapes.find(plan)
	r.values = r.ownValues(plan.own, tag)
	if values := source.Header["Last-Modified"]; len(values) == 1 {
		if date, err := http.ParseTime(values[0]); err == nil {
			r.modified = date.Unix()
		}
	}
	return r
}

func codedBodies(codings []coding.Coding) []coded {
	if len(codings) == 0 {
		return nil
	}
	bodies := make([]coded, 0, len(codings))
	for _, c := range codings {
		if number := slices.Index(codingNames[:], c.Name); number >= 0 {
			bodies = append(bodies, coded{c.Body, codingNumber(number)})
		}
	}
	slices.SortFunc(bodies, func(a, b coded) int {
		return cmp.Or(cmp.Compare(len(a.body), len(b.body)), cmp.Compare(a.coding, b.coding))
	})
	return slices.Clip(bodies)
}

// ownValues returns Representation.values. Their text is one string.
func (r *Representation) ownValues(own []fieldValues, tag string) []string {
	count := 2 * (1 + len(r.codings))
	for _, f := range own {
		count += len(f.values)
	}
	values := make([]string, 0, count)
	values = append(values, strconv.Itoa(len(r.body)), tag)
	for _, c := range r.codings {
		values = append(values, strconv.Itoa(len(c.body)), addSuffix(tag, suffixes[c.coding]))
	}
	for _, f := range own {
		values = append(values, f.values...)
	}
	text := strings.Join(values, "")
	for i, value := range values {
		values[i], text = text[:len(value)], text[len(value):]
	}
	return values
}

// Size returns the number of bytes of memory that the representation holds beyond a constant: its bodies, the text of
// its own fields, and what leads to them. What it shares with others is not counted.
func (r *Representation) Size() int {
	if r.variants != nil {
		return r.variants.size()
	}
	const stringSize, codedSize = 16, 32
	size := cap(r.body) + stringSize*cap(r.values) + codedSize*cap(r.codings) + r.shape.privateSize
	for _, c := range r.codings {
		size += cap(c.body)
	}
	for _, value := range r.values {
		size += len(value)
	}
	return size
}

// A choice is the body that a request gets: 0 is the identity, 1 the first coding.
type choice int

func (r *Representation) bodyOf(c choice) []byte {
	if c == 0 {
		return r.body
	}
	return r.codings[c-1].body
}

// lengthOf and tagOf return the value of a field in a slice to be assigned to a header. Appending to it copies it.
func (r *Representation) lengthOf(c choice) []string { return r.values[2*c : 2*c+1 : 2*c+1] }
func (r *Representation) tagOf(c choice) []string    { return r.values[2*c+1 : 2*c+2 : 2*c+2] }

// ownStart is where the values of shape.own begin.
func (r *Representation) ownStart() int { return 2 * (1 + len(r.codings)) }

package representation

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/itscales/scales/internal/field"
)

// A shape is what many entries have in common: the status, the fields that are the same for all pages of a kind, and the
// names of those that are an entry's own. It doesn't change.
type shape struct {
	status      int
	conditional bool // preconditions apply
	ranges      bool // ranges apply
	hasTag      bool
	hasLength   bool
	hasDigest   bool   // some field is about the bytes of the identity
	contentType string // "" if there is none

	// Fields with all their values. The first sharedIn304 go with a 304, too (RFC 9110 §15.4.5).
	shared      []sharedField
	sharedIn304 int

	// Fields whose values are in Representation.values. The first ownIn304 go with a 304, too.
	own      []ownField
	ownIn304 int

	vary []string // the values of Vary, for answers without the other fields

	privateSize int // the memory it takes if no other representation can have it
}

type sharedField struct {
	name   string
	joins  bool // see field.Joins
	values []string
}

type ownField struct {
	name       string
	joins      bool
	start, end int // in Representation.values, from ownStart
}

// A plan says what shape an entry has. Its strings are those of the source.
type plan struct {
	status int
	hasTag bool
	shared []fieldValues
	own    []fieldValues
}

type fieldValues struct {
	name   string
	values []string
}

// Digests of the content as it is sent, and of the whole representation, coded as it is (RFC 9530; RFC 1864, RFC 3230). An
// application has made them of the identity.
var (
	contentDigests = [...]string{"Content-Digest", "Content-Md5"}
	reprDigests    = [...]string{"Repr-Digest", "Digest"}
)

var (
	noCache        = []string{"no-cache"}
	acceptRanges   = []string{"bytes"}
	acceptEncoding = []string{"Accept-Encoding"}
)

// planOf sorts the fields of a source into those that are shared and those that are its own, each with those of a 304
// first.
func planOf(source Source, hasCodings, hasTag bool) plan {
	p := plan{status: source.Status, hasTag: hasTag}
	p.shared = make([]fieldValues, 0, 8)
	if source.Header.Get("Cache-Control") == "" {
		p.shared = append(p.shared, fieldValues{"Cache-Control", noCache})
	}
	vary := source.Header["Vary"]
	if hasCodings {
		joined := http.Header{"Vary": vary}
		field.Merge(joined, http.Header{"Vary": acceptEncoding})
		vary = joined["Vary"]
	}
	if len(vary) > 0 {
		p.shared = append(p.shared, fieldValues{"Vary", vary})
	}
	if source.Status == http.StatusOK {
		p.shared = append(p.shared, fieldValues{"Accept-Ranges", acceptRanges})
	}
	for name, values := range source.Header {
		switch name {
		case "Etag", "Vary", "Content-Length", "Date", "Age", "Content-Encoding", "Content-Range", "Cache-Status":
			continue
		case "Cache-Control":
			if len(values) == 0 || values[0] == "" {
				continue
			}
		case "Accept-Ranges":
			if source.Status == http.StatusOK {
				continue
			}
		}
		switch {
		case len(values) == 0:
		case isShared(name):
			p.shared = append(p.shared, fieldValues{name, values})
		default:
			p.own = append(p.own, fieldValues{name, values})
		}
	}
	for _, fields := range [][]fieldValues{p.shared, p.own} {
		slices.SortFunc(fields, func(a, b fieldValues) int {
			if in := p.in304(a.name); in != p.in304(b.name) {
				if in {
					return -1
				}
				return 1
			}
			return strings.Compare(a.name, b.name)
		})
	}
	return p
}

// isShared says whether a field usually has the same values in many entries.
func isShared(name string) bool {
	switch name {
	case "Cache-Control", "Content-Type", "Vary", "Content-Language", "Accept-Ranges", "Allow", "Server", "X-Powered-By",
		"Strict-Transport-Security", "Content-Security-Policy", "Content-Security-Policy-Report-Only", "Referrer-Policy",
		"Permissions-Policy", "X-Content-Type-Options", "X-Frame-Options", "X-Xss-Protection", "X-Robots-Tag",
		"X-Ua-Compatible", "X-Dns-Prefetch-Control", "X-Permitted-Cross-Domain-Policies", "X-Download-Options",
		"Timing-Allow-Origin", "Origin-Agent-Cluster", "Reporting-Endpoints", "Report-To", "Nel", "Accept-Ch", "Alt-Svc",
		"Cdn-Cache-Control", "Surrogate-Control", "No-Vary-Search":
		return true
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "Cross-Origin-")
}

// in304 says whether a field goes with a 304 (RFC 9110 §15.4.5). Last-Modified is of use there only to a client that has
// no entity tag to store.
func (p plan) in304(name string) bool {
	switch name {
	case "Cache-Control", "Content-Location", "Expires", "Vary":
		return true
	case "Last-Modified":
		return !p.hasTag
	}
	return false
}

// appendKey appends what tells the plan from all that lead to other shapes.
func (p plan) appendKey(key []byte) []byte {
	text := func(s string) { key = append(binary.AppendUvarint(key, uint64(len(s))), s...) }
	key = binary.AppendUvarint(key, uint64(p.status))
	if p.hasTag {
		key = append(key, 1)
	} else {
		key = append(key, 0)
	}
	key = binary.AppendUvarint(key, uint64(len(p.shared)))
	for _, f := range p.shared {
		text(f.name)
		key = binary.AppendUvarint(key, uint64(len(f.values)))
		for _, value := range f.values {
			text(value)
		}
	}
	for _, f := range p.own {
		text(f.name)
		key = binary.AppendUvarint(key, uint64(len(f.values)))
	}
	return key
}

// shape returns a new shape, which holds nothing of the source.
func (p plan) shape() *shape {
	s := &shape{
		status:      p.status,
		conditional: 200 <= p.status && p.status <= 299,
		ranges:      p.status == http.StatusOK,
		hasTag:      p.hasTag,
		hasLength:   p.status != http.StatusNoContent && p.status != http.StatusResetContent && p.status != http.StatusNotModified,
	}
	for _, f := range p.shared {
		values := make([]string, len(f.values))
		for i, value := range f.values {
			values[i] = strings.Clone(value)
		}
		name := strings.Clone(f.name)
		s.shared = append(s.shared, sharedField{name, field.Joins(name), values})
		switch name {
		case "Content-Type":
			s.contentType = values[0]
		case "Vary":
			s.vary = values
		}
		if p.in304(name) {
			s.sharedIn304++
		}
	}
	end := 0
	for _, f := range p.own {
		name := strings.Clone(f.name)
		s.own = append(s.own, ownField{name, field.Joins(name), end, end + len(f.values)})
		end += len(f.values)
		if p.in304(name) {
			s.ownIn304++
		}
		s.hasDigest = s.hasDigest || slices.Contains(contentDigests[:], name) || slices.Contains(reprDigests[:], name)
	}
	return s
}

// The bounds of a shapeTable. An application has a few dozen shapes.
const (
	maxShapes   = 1024
	maxShapeKey = 4096 // bytes
)

// shapes has the shapes of the process. They never change, so nobody can tell whether theirs is shared.
var shapes = shapeTable{shapes: make(map[string]weak.Pointer[shape])}

// shapeTable finds the shape that another representation has already. Its memory is bounded: it holds at most maxShapes
// keys of maxShapeKey bytes, and the shapes only as long as a representation uses them. When it is full of shapes that
// are in use, further ones belong to one representation each, and count for its size.
type shapeTable struct {
	mu     sync.Mutex
	shapes map[string]weak.Pointer[shape]
	wait   int // representations to come before a full table is swept again
}

func (t *shapeTable) find(p plan) *shape {
	var buffer [512]byte
	key := p.appendKey(buffer[:0])
	if len(key) <= maxShapeKey {
		t.mu.Lock()
		defer t.mu.Unlock()
		pointer, known := t.shapes[string(key)]
		if s := pointer.Value(); s != nil {
			return s
		}
		if known || t.hasRoom() {
			s := p.shape()
			t.shapes[string(key)] = weak.Make(s)
			return s
		}
	}
	s := p.shape()
	s.privateSize = 256 + 3*len(key) // roughly: its text, and the slices around it
	return s
}

// hasRoom says whether there is room for another shape, and makes some if it can. Looking at all shapes is worth it only
// once in a while.
func (t *shapeTable) hasRoom() bool {
	if len(t.shapes) < maxShapes {
		return true
	}
	if t.wait > 0 {
		t.wait--
		return false
	}
	for key, pointer := range t.shapes {
		if pointer.Value() == nil {
			delete(t.shapes, key)
		}
	}
	t.wait = maxShapes
	return len(t.shapes) < maxShapes
}

package representation

import (
	"net/http"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/problem"
)

// A Note is what the Cache-Status of an answer says (RFC 9211).
type Note uint8

// The notes.
const (
	Hit              Note = iota // scales; hit
	StoreUnreachable             // scales; hit; detail=store-unreachable
)

var cacheStatus = [...][]string{
	Hit:              {"scales; hit"},
	StoreUnreachable: {"scales; hit; detail=store-unreachable"},
}

// Serve answers a GET or HEAD request: with the entry, in the coding that the request accepts, or with what its
// preconditions and its Range ask for. HEAD is answered as GET, without content and without ranges.
//
// What middleware has set in the header of w is merged as field.Merge does it. The slices of values that w's header has
// afterwards are shared by all answers: appending to one copies it, but nobody may write to its elements.
//
// A 412 or 416 is a problem of Scales (RFC 9457), without the fields of the entry and without Cache-Status.
func (r *Representation) Serve(w http.ResponseWriter, req *http.Request, note Note) {
	c := choice(0)
	if len(r.codings) > 0 {
		c = r.negotiate(req.Header["Accept-Encoding"])
	}
	if r.shape.conditional && len(req.Header) > 0 {
		switch r.evaluate(req.Header, r.values[2*c+1]) {
		case notModified:
			r.serveNotModified(w, c, note)
			return
		case failed:
			r.serveProblem(w, req, problem.PreconditionFailed())
			return
		}
		if values := req.Header["Range"]; len(values) == 1 && r.shape.ranges && req.Method == http.MethodGet &&
			r.serveRanges(w, req, c, note) {
			return
		}
	}
	r.setHeader(w.Header(), c, note)
	w.WriteHeader(r.shape.status)
	if body := r.bodyOf(c); req.Method != http.MethodHead && len(body) > 0 && r.shape.hasLength {
		_, _ = w.Write(body) // an error means that the client has gone
	}
}

// setHeader sets the fields of the whole answer.
func (r *Representation) setHeader(header http.Header, c choice, note Note) {
	s := r.shape
	set(header, s.shared, s.own, r.values[r.ownStart():])
	if s.hasTag {
		header["Etag"] = r.tagOf(c)
	}
	if s.hasLength {
		header["Content-Length"] = r.lengthOf(c)
	}
	if c > 0 {
		header["Content-Encoding"] = contentEncodings[r.codings[c-1].coding]
		if s.hasDigest {
			remove(header, contentDigests[:])
			remove(header, reprDigests[:])
		}
	}
	if s.contentType == "" {
		if _, ok := header["Content-Type"]; !ok {
			header["Content-Type"] = nil // or net/http would guess
		}
	}
	setStatus(header, note)
}

var aboutContent = [...]string{"Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Range"}

// serveNotModified answers 304 with the fields of RFC 9110 §15.4.5; Date is net/http's to set.
func (r *Representation) serveNotModified(w http.ResponseWriter, c choice, note Note) {
	s := r.shape
	header := w.Header()
	if len(header) > 0 { // nothing that middleware says about content that isn't sent
		remove(header, aboutContent[:])
	}
	set(header, s.shared[:s.sharedIn304], s.own[:s.ownIn304], r.values[r.ownStart():])
	if s.hasTag {
		header["Etag"] = r.tagOf(c)
	}
	setStatus(header, note)
	w.WriteHeader(http.StatusNotModified)
}

func (r *Representation) serveProblem(w http.ResponseWriter, req *http.Request, p problem.Problem) {
	if r.shape.vary != nil {
		put(w.Header(), "Vary", true, r.shape.vary)
	}
	p.Write(w, req)
}

func remove(header http.Header, names []string) {
	for _, name := range names {
		delete(header, name)
	}
}

func setStatus(header http.Header, note Note) {
	if int(note) >= len(cacheStatus) {
		note = Hit
	}
	put(header, "Cache-Status", true, cacheStatus[note])
}

// set sets the fields that are shared, and own ones, whose values are in values.
func set(header http.Header, shared []sharedField, own []ownField, values []string) {
	if len(header) == 0 {
		// Nothing is there that could have to be joined.
		for i := range shared {
			header[shared[i].name] = shared[i].values
		}
		for i := range own {
			f := &own[i]
			header[f.name] = values[f.start:f.end:f.end]
		}
		return
	}
	for i := range shared {
		put(header, shared[i].name, shared[i].joins, shared[i].values)
	}
	for i := range own {
		f := &own[i]
		put(header, f.name, f.joins, values[f.start:f.end:f.end])
	}
}

// put sets a field as field.Merge does, and allocates only where it has to join.
func put(header http.Header, name string, joins bool, values []string) {
	if joins && len(header[name]) > 0 {
		field.Merge(header, http.Header{name: values})
		return
	}
	header[name] = values
}

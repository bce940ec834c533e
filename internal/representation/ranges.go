package representation

import (
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/itscales/scales/internal/problem"
)

// maxRanges is the number of ranges of a request that are looked at. With more it gets the whole: there is no client that
// needs them, and each costs a header of its own.
const maxRanges = 16

// byteRange is a part of a body that is not empty.
type byteRange struct{ start, end int } // end is exclusive

func (b byteRange) contentRange(size int) string {
	return "bytes " + strconv.Itoa(b.start) + "-" + strconv.Itoa(b.end-1) + "/" + strconv.Itoa(size)
}

// serveRanges answers a request that has a Range (RFC 9110 §14.2) with 206 or 416. It returns false, and has done nothing,
// where the request gets the whole: if the Range is malformed or has another unit, if If-Range does not hold, if the
// ranges are too many or larger than the whole together, if the body is empty, and if several ranges of a coding are asked
// for, since clients do not agree on whether a Content-Encoding means the multipart body or the parts.
func (r *Representation) serveRanges(w http.ResponseWriter, req *http.Request, c choice, note Note) bool {
	body := r.bodyOf(c)
	ranges, ok := parseRanges(req.Header["Range"][0], len(body))
	if !ok || len(body) == 0 || !r.ifRange(req.Header["If-Range"], r.values[2*c+1]) {
		return false
	}
	total := 0
	for _, part := range ranges {
		total += part.end - part.start
	}
	switch {
	case len(ranges) == 0:
		r.serveProblem(unsatisfiedWriter{w, len(body)}, req, problem.RangeNotSatisfiable(len(body)))
	case total > len(body), len(ranges) > 1 && c > 0:
		return false
	case len(ranges) == 1:
		part := ranges[0]
		header := w.Header()
		r.setPartHeader(header, c, note)
		header["Content-Range"] = []string{part.contentRange(len(body))}
		header["Content-Length"] = []string{strconv.Itoa(total)}
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body[part.start:part.end])
	default:
		r.serveParts(w, ranges, note)
	}
	return true
}

func (r *Representation) setPartHeader(header http.Header, c choice, note Note) {
	r.setHeader(header, c, note)
	if r.shape.hasDigest {
		remove(header, contentDigests[:])
	}
}

// serveParts answers with several ranges of the identity as multipart/byteranges (RFC 9110 §14.6).
func (r *Representation) serveParts(w http.ResponseWriter, ranges []byteRange, note Note) {
	boundary := multipart.NewWriter(io.Discard).Boundary() // a random one
	var heads [maxRanges]string
	length := 0
	for i, part := range ranges {
		heads[i] = "--" + boundary + "\r\nContent-Range: " + part.contentRange(len(r.body)) + "\r\n"
		if i > 0 {
			heads[i] = "\r\n" + heads[i]
		}
		if r.shape.contentType != "" {
			heads[i] += "Content-Type: " + r.shape.contentType + "\r\n"
		}
		heads[i] += "\r\n"
		length += len(heads[i]) + part.end - part.start
	}
	tail := "\r\n--" + boundary + "--\r\n"
	header := w.Header()
	r.setPartHeader(header, 0, note)
	header["Content-Type"] = []string{"multipart/byteranges; boundary=" + boundary}
	header["Content-Length"] = []string{strconv.Itoa(length + len(tail))}
	w.WriteHeader(http.StatusPartialContent)
	for i, part := range ranges {
		if _, err := io.WriteString(w, heads[i]); err != nil {
			return // the client has gone
		}
		if _, err := w.Write(r.body[part.start:part.end]); err != nil {
			return
		}
	}
	_, _ = io.WriteString(w, tail)
}

// unsatisfiedWriter adds to a problem what a 416 has to say (RFC 9110 §15.5.17).
type unsatisfiedWriter struct {
	http.ResponseWriter
	size int
}

func (w unsatisfiedWriter) WriteHeader(status int) {
	w.Header()["Content-Range"] = []string{"bytes */" + strconv.Itoa(w.size)}
	w.ResponseWriter.WriteHeader(status)
}

// ifRange says whether a Range applies with these values of If-Range (RFC 9110 §13.1.5): with the entity tag, if it is
// strong, or exactly the date of Last-Modified, if it is strong (§8.8.2.2). It is not while its second lasts, in which the
// resource may change once more.
func (r *Representation) ifRange(values []string, tag string) bool {
	if !isGiven(values) {
		return true
	}
	if len(values) != 1 {
		return false
	}
	if listed, rest, ok := scanTag(values[0]); ok {
		return rest == "" && tag != "" && sameStrongly(listed, tag)
	}
	date, ok := r.comparableDate(values)
	return ok && date == r.modified && date < time.Now().Unix()
}

// parseRanges returns the ranges in a value of Range that a body of a size can satisfy (RFC 9110 §14.1.2). It is not ok if
// the value is malformed, has another unit than bytes, or too many ranges.
func parseRanges(value string, size int) (ranges []byteRange, ok bool) {
	unit, set, ok := strings.Cut(value, "=")
	if !ok || !sameToken(unit, "bytes") {
		return nil, false
	}
	count := 0
	for spec := range strings.SplitSeq(set, ",") {
		spec = trim(spec)
		if spec == "" {
			continue
		}
		if count++; count > maxRanges {
			return nil, false
		}
		part, valid := parseRange(spec, size)
		if !valid {
			return nil, false
		}
		if part.start < part.end {
			ranges = append(ranges, part)
		}
	}
	return ranges, count > 0
}

// parseRange returns one range, which is empty if the body can't satisfy it.
func parseRange(spec string, size int) (part byteRange, ok bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok || first == "" && last == "" {
		return part, false
	}
	if first == "" {
		length, ok := parseNumber(last)
		return byteRange{size - min(length, size), size}, ok
	}
	start, ok := parseNumber(first)
	if !ok {
		return part, false
	}
	end := size
	if last != "" {
		n, ok := parseNumber(last)
		if !ok || n < start {
			return part, false
		}
		end = min(n, size-1) + 1
	}
	return byteRange{start, end}, true
}

// parseNumber reads digits. A number that is too large is as good as the largest one.
func parseNumber(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		digit := int(s[i] - '0')
		if n > (math.MaxInt-digit)/10 {
			n = math.MaxInt
			continue
		}
		n = 10*n + digit
	}
	return n, s != ""
}

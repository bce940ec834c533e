package message

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// ParseEntry reads an entry as it came from Redis. The bodies have to have the
// sizes that the metadata says, so a cut entry is an error. The result keeps
// nothing of s. The error wraps [ErrMalformed].
func ParseEntry(s string) (*Entry, error) { return parseEntry(s, true) }

// parseEntry is ParseEntry; mayVary is false for what is itself a variant.
func parseEntry(s string, mayVary bool) (*Entry, error) {
	end := strings.IndexByte(s[:min(len(s), MaxHead)], '\n')
	if end < 0 {
		return nil, fmt.Errorf("%w: entry without a line of metadata of up to %d bytes", ErrMalformed, MaxHead)
	}
	// A copy, lest the parts of it keep the whole entry in memory.
	line := strings.Clone(s[:end])
	if EntryTicket(line) == "" {
		return nil, fmt.Errorf("%w: metadata %q does not begin with a ticket", ErrMalformed, excerpt(line))
	}
	e, sizes, ok := scanMetadata(line)
	if !ok {
		var err error
		if e, sizes, err = decodeMetadata(line); err != nil {
			return nil, err
		}
	}
	if len(e.Vary) > 0 && !mayVary {
		return nil, fmt.Errorf("%w: a variant with variants", ErrMalformed)
	}
	if err := e.cut(sizes, s[end+1:]); err != nil {
		return nil, err
	}
	return e, nil
}

// sizes are the sizes of the body of an entry and of its codings, or of its
// variants.
type sizes struct {
	body     int64
	codings  []int64
	variants []int64
}

// cut cuts what follows the metadata into the bodies of an entry.
func (e *Entry) cut(sizes sizes, bodies string) error {
	if len(e.Vary) > 0 {
		return e.cutVariants(sizes.variants, bodies)
	}
	rest := int64(len(bodies))
	for _, size := range append([]int64{sizes.body}, sizes.codings...) {
		if size < 0 || size > rest {
			rest = -1
			break
		}
		rest -= size
	}
	if rest != 0 {
		return fmt.Errorf("%w: entry with a body of %d bytes that should have %d, and %v in codings", ErrMalformed, len(bodies), sizes.body, sizes.codings)
	}
	all := []byte(bodies)
	take := func(size int64) []byte {
		if size == 0 {
			return nil
		}
		part := all[:size:size]
		all = all[size:]
		return part
	}
	e.Body = take(sizes.body)
	for i, size := range sizes.codings {
		e.Codings[i].Body = take(size)
	}
	return nil
}

// decodeMetadata reads metadata however it is written.
func decodeMetadata(line string) (*Entry, sizes, error) {
	var metadata struct {
		Ticket   string              `json:"ticket"`
		Status   int                 `json:"status"`
		Gone     bool                `json:"gone"`
		PushOnly bool                `json:"pushOnly"`
		Header   map[string][]string `json:"header"`
		Size     *int64              `json:"size"`
		Codings  []namedSize         `json:"codings"`
		Vary     [][]string          `json:"vary"`
		Variants []int64             `json:"variants"`
		Job      string              `json:"job"`
		Why      string              `json:"why"`
		Refusal  string              `json:"refusal"`
	}
	if err := json.Unmarshal([]byte(line), &metadata); err != nil {
		return nil, sizes{}, fmt.Errorf("%w: metadata: %w", ErrMalformed, err)
	}
	var size sizes
	if metadata.Size != nil {
		size.body = *metadata.Size
	}
	var codings []Coding
	for _, c := range metadata.Codings {
		codings, size.codings = append(codings, Coding{Name: c.name}), append(size.codings, c.size)
	}
	switch {
	case metadata.Ticket != EntryTicket(line):
		return nil, sizes{}, fmt.Errorf("%w: metadata with two tickets", ErrMalformed)
	case len(metadata.Vary) > 0 || len(metadata.Variants) > 0:
		if metadata.Status != 0 || metadata.Gone || metadata.PushOnly || len(metadata.Header) > 0 || metadata.Size != nil || len(codings) > 0 {
			return nil, sizes{}, fmt.Errorf("%w: an entry with variants and with what only a variant has", ErrMalformed)
		}
		e := &Entry{Ticket: metadata.Ticket, Job: printable(metadata.Job), Why: printable(metadata.Why)}
		if err := e.setVary(metadata.Vary, metadata.Variants); err != nil {
			return nil, sizes{}, err
		}
		return e, sizes{variants: metadata.Variants}, nil
	case metadata.Gone && (metadata.Status != 0 || len(metadata.Header) > 0 || size.body != 0 || len(codings) > 0):
		return nil, sizes{}, fmt.Errorf("%w: a tombstone with a status, header or body", ErrMalformed)
	case !metadata.Gone && (!isFinal(metadata.Status) || metadata.Size == nil):
		return nil, sizes{}, fmt.Errorf("%w: metadata %q without a status of a final response or without a size", ErrMalformed, excerpt(line))
	}
	if err := checkCodings(codings); err != nil {
		return nil, sizes{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	e := &Entry{
		Ticket: metadata.Ticket, Status: metadata.Status, Gone: metadata.Gone, PushOnly: metadata.PushOnly, Codings: codings,
		Job: printable(metadata.Job), Why: printable(metadata.Why),
	}
	if e.Gone {
		e.Refusal = printable(metadata.Refusal)
		return e, size, nil
	}
	e.Header = make(http.Header, len(metadata.Header))
	for name, values := range metadata.Header {
		if err := addDecoded(e.Header, name, values); err != nil {
			return nil, sizes{}, err
		}
	}
	return e, size, nil
}

// namedSize is the name and the size of a coding: a JSON array of two.
type namedSize struct {
	name string
	size int64
}

func (c *namedSize) UnmarshalJSON(text []byte) error {
	var members []json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	if len(members) != 2 {
		return fmt.Errorf("a coding with %d members instead of its name and size", len(members))
	}
	if err := json.Unmarshal(members[0], &c.name); err != nil {
		return err
	}
	return json.Unmarshal(members[1], &c.size)
}

// addDecoded adds a field of decoded metadata to a header.
func addDecoded(header http.Header, name string, values []string) error {
	key := textproto.CanonicalMIMEHeaderKey(name)
	if !isToken(name) || header[key] != nil {
		return fmt.Errorf("%w: metadata with the field name %q, which is no token or comes twice", ErrMalformed, excerpt(name))
	}
	for _, value := range values {
		decoded, ok := bytesOf(value)
		if !ok {
			return fmt.Errorf("%w: metadata with a field %s that is not bytes", ErrMalformed, excerpt(name))
		}
		decoded = textproto.TrimString(decoded)
		if !isFieldValue(decoded) {
			return fmt.Errorf("%w: field %s has a control character", ErrMalformed, excerpt(name))
		}
		header[key] = append(header[key], decoded)
	}
	return nil
}

// bytesOf makes bytes of code points.
func bytesOf(text string) (string, bool) {
	b := make([]byte, 0, len(text))
	for _, r := range text { // what is not UTF-8 gives U+FFFD
		if r > 0xFF {
			return "", false
		}
		b = append(b, byte(r))
	}
	return string(b), true
}

// scanMetadata reads metadata that is written exactly as AppendEntry writes it,
// several times faster than decodeMetadata. It fails for all other, and where it
// doesn't fail, its result is that of decodeMetadata.
func scanMetadata(line string) (e *Entry, size sizes, ok bool) {
	s := scanner{rest: line[TicketOffset+TicketWidth+len(`"`):]}
	e = &Entry{Ticket: EntryTicket(line)}
	if s.skip(`,"gone":true`) {
		e.Gone = true
		return e, size, s.origin(e)
	}
	e.PushOnly = s.skip(`,"pushOnly":true`)
	if !s.skip(`,"status":`) {
		return nil, size, false
	}
	status, ok := s.number()
	if !ok || !isFinal(int(status)) {
		return nil, size, false
	}
	e.Status = int(status)
	if !s.skip(`,"header":{`) {
		return nil, size, false
	}
	if e.Header, ok = s.header(); !ok || !s.skip(`,"size":`) {
		return nil, size, false
	}
	if size.body, ok = s.number(); !ok {
		return nil, size, false
	}
	if e.Codings, size.codings, ok = s.codings(); !ok {
		return nil, size, false
	}
	return e, size, s.origin(e)
}

// codings reads the names and sizes of codings, if there are any.
func (s *scanner) codings() (codings []Coding, sizes []int64, ok bool) {
	if !s.skip(`,"codings":[`) {
		return nil, nil, true
	}
	for {
		if !s.skip("[") {
			return nil, nil, false
		}
		name, ok := s.string()
		if !ok || !s.skip(",") {
			return nil, nil, false
		}
		size, ok := s.number()
		if !ok || !s.skip("]") {
			return nil, nil, false
		}
		codings, sizes = append(codings, Coding{Name: name}), append(sizes, size)
		if s.skip("]") {
			return codings, sizes, checkCodings(codings) == nil
		}
		if !s.skip(",") {
			return nil, nil, false
		}
	}
}

// origin reads where an entry comes from, up to its closing brace.
func (s *scanner) origin(e *Entry) bool {
	for _, member := range [...]struct {
		name  string
		value *string
	}{{`,"job":`, &e.Job}, {`,"why":`, &e.Why}, {`,"refusal":`, &e.Refusal}} {
		if !s.skip(member.name) {
			continue
		}
		value, ok := s.string()
		if !ok || value != printable(value) {
			return false
		}
		*member.value = value
	}
	return s.rest == "}" && (e.Gone || e.Refusal == "")
}

// scanner reads JSON from the front of a string.
type scanner struct{ rest string }

// skip skips a prefix if it is there.
func (s *scanner) skip(prefix string) (ok bool) {
	s.rest, ok = strings.CutPrefix(s.rest, prefix)
	return ok
}

// number reads a number that another character follows.
func (s *scanner) number() (int64, bool) {
	end := 0
	for end < len(s.rest) && '0' <= s.rest[end] && s.rest[end] <= '9' {
		end++
	}
	n, ok := parseNumber(s.rest[:end])
	s.rest = s.rest[end:]
	return n, ok
}

// header reads a header from its first name to its closing brace. The names
// have to be canonical and sorted, so that none comes twice.
func (s *scanner) header() (http.Header, bool) {
	if s.skip("}") {
		return http.Header{}, true
	}
	count := strings.Count(s.rest, `":[`)
	header := make(http.Header, count)
	values := make([]string, count)
	for last := ""; ; {
		name, ok := s.string()
		if !ok || name <= last || !isToken(name) || textproto.CanonicalMIMEHeaderKey(name) != name || !s.skip(":[") {
			return nil, false
		}
		for {
			value, ok := s.string()
			value = textproto.TrimString(value)
			if !ok || !isFieldValue(value) {
				return nil, false
			}
			values = addValue(header, values, name, value)
			if !s.skip(",") {
				break
			}
		}
		if s.skip("]}") {
			return header, true
		}
		if !s.skip("],") {
			return nil, false
		}
		last = name
	}
}

// string reads a string and makes bytes of its code points.
func (s *scanner) string() (string, bool) {
	if !s.skip(`"`) {
		return "", false
	}
	for i := range len(s.rest) {
		switch b := s.rest[i]; {
		case b == '"':
			plain := s.rest[:i]
			s.rest = s.rest[i+1:]
			return plain, true
		case b == '\\' || b >= 0x80:
			return s.escaped(i)
		case b < ' ':
			return "", false
		}
	}
	return "", false
}

// escaped reads the rest of a string, of which the first n bytes are plain.
func (s *scanner) escaped(n int) (string, bool) {
	value := append(make([]byte, 0, n+64), s.rest[:n]...)
	for i := n; i < len(s.rest); i++ {
		b := s.rest[i]
		if b == '"' {
			s.rest = s.rest[i+1:]
			return string(value), true
		}
		if b == '\\' || b >= 0x80 {
			i++
			if i == len(s.rest) {
				return "", false
			}
			next := s.rest[i]
			switch {
			case b == '\\' && (next == '"' || next == '\\'):
				b = next
			case b == '\\' && next == 't':
				b = '\t'
			case (b == 0xC2 || b == 0xC3) && 0x80 <= next && next <= 0xBF: // U+0080 to U+00FF
				b = b<<6 | next&0x3F
			default:
				return "", false
			}
		} else if b < ' ' {
			return "", false
		}
		value = append(value, b)
	}
	return "", false
}

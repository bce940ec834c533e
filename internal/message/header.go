package message

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// nameBuffer is how many names are sorted without an allocation.
const nameBuffer = 32

// sortedNames returns the sorted names of a header, in buffer where they fit,
// and the header itself. If a name isn't in canonical form, the header is a
// canonical copy, in which the spellings of a name are joined in their order.
func sortedNames(buffer []string, header http.Header) ([]string, http.Header) {
	names := buffer
	canonical := true
	for name := range header {
		canonical = canonical && textproto.CanonicalMIMEHeaderKey(name) == name
		names = append(names, name)
	}
	slices.Sort(names)
	if canonical {
		return names, header
	}
	joined := make(http.Header, len(header))
	for _, name := range names {
		key := textproto.CanonicalMIMEHeaderKey(name)
		joined[key] = append(joined[key], header[name]...)
	}
	names = names[:0]
	for name := range joined {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, joined
}

// headSize estimates the size of a head from above, but for what escaping adds.
func headSize(header http.Header) int {
	const lines = 128 // the first line, or the other metadata of an entry
	size := lines
	for name, values := range header {
		for _, value := range values {
			size += len(name) + len(value) + len(`"":[""],`)
		}
	}
	return size
}

// parseFields reads field lines, each with its CRLF.
func parseFields(lines string) (http.Header, error) {
	count := strings.Count(lines, "\n")
	header := make(http.Header, count)
	// One array has the values of all names that come once, as in net/textproto.
	values := make([]string, count)
	for lines != "" {
		line, rest, ok := strings.Cut(lines, "\r\n")
		name, value, colon := strings.Cut(line, ":")
		// A folded line (RFC 9112 §5.2) begins with white space, so it has no name.
		if !ok || !colon || !isToken(name) {
			return nil, fmt.Errorf("%w: field line %q", ErrMalformed, excerpt(line))
		}
		value = textproto.TrimString(value)
		if !isFieldValue(value) {
			return nil, fmt.Errorf("%w: field %s has a control character", ErrMalformed, excerpt(name))
		}
		values = addValue(header, values, textproto.CanonicalMIMEHeaderKey(name), value)
		lines = rest
	}
	return header, nil
}

// addValue adds a value to a header. The first one of a name gets its place in
// the array of values, which is returned without it.
func addValue(header http.Header, values []string, name, value string) []string {
	if present := header[name]; present != nil || len(values) == 0 {
		header[name] = append(present, value)
		return values
	}
	values[0] = value
	header[name] = values[:1:1]
	return values[1:]
}

// class is a set of properties that a byte has in a message.
type class uint8

const (
	inToken   class = 1 << iota // RFC 9110 §5.6.2
	inValue                     // RFC 9110 §5.5: visible, white space, obs-text
	isVisibly                   // neither white space nor a control character
)

// classes is read only.
var classes = makeClasses()

func makeClasses() (table [256]class) {
	for b := range 256 {
		switch {
		case b > ' ' && b != 0x7F:
			table[b] = inValue | isVisibly
		case b == ' ' || b == '\t':
			table[b] = inValue
		}
	}
	for _, b := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[b] |= inToken
	}
	return table
}

func isToken(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&inToken == 0 {
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&inValue == 0 {
			return false
		}
	}
	return true
}

func isVisible(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&isVisibly == 0 {
			return false
		}
	}
	return true
}

func isTarget(s string) bool {
	return isVisible(s) && (strings.HasPrefix(s, "/") || s == "*")
}

func isFinal(status int) bool {
	return 200 <= status && status <= 999
}

// parseNumber reads a decimal number of up to 18 digits, written without a sign
// or a leading zero.
func parseNumber(s string) (int64, bool) {
	if s == "" || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// excerpt shortens what an error quotes.
func excerpt(s string) string {
	const length = 80
	if len(s) > length {
		return s[:length] + "…"
	}
	return s
}

// Package field has what HTTP says about fields: which go only one hop, which
// may be stored, how two headers become one, where links lead.
//
// Names of fields are compared without regard to case: a header that a program
// made may have "set-cookie" as a key, and must not be trusted less or more for
// that. What is returned or written has canonical names.
package field

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrInvalid is what [Valid] wraps.
var ErrInvalid = errors.New("invalid field")

// Valid checks that every name is a token and that no value has a control
// character other than a tab (RFC 9110 §5.1, §5.5). So nothing in a valid header
// can end a line of it. The error wraps [ErrInvalid].
func Valid(h http.Header) error {
	for name, values := range h {
		if !IsName(name) {
			return fmt.Errorf("%w: name %q is not a token", ErrInvalid, name)
		}
		for _, value := range values {
			for i := range len(value) {
				if b := value[i]; b < ' ' && b != '\t' || b == 0x7F {
					return fmt.Errorf("%w: %s has the control character %#02x", ErrInvalid, name, b)
				}
			}
		}
	}
	return nil
}

// IsName says whether s can be the name of a field: a token (RFC 9110 §5.6.2).
func IsName(s string) bool {
	for i := range len(s) {
		b := s[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' ||
			strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0) {
			return false
		}
	}
	return s != ""
}

// remove deletes the fields for which unwanted, given a canonical name, is true.
func remove(h http.Header, unwanted func(name string) bool) {
	for name := range h {
		if unwanted(http.CanonicalHeaderKey(name)) {
			delete(h, name)
		}
	}
}

// valuesOf returns the values of a field, whose name is canonical, in all
// spellings of it.
func valuesOf(h http.Header, name string) []string {
	var values []string
	for key, more := range h {
		if key == name || len(key) == len(name) && strings.EqualFold(key, name) {
			if values == nil {
				values = more[:len(more):len(more)]
			} else {
				values = append(values, more...)
			}
		}
	}
	return values
}

// Elements splits the values of a list-based field at the commas outside of
// quoted strings (RFC 9110 §5.6.1, §5.6.4), without empty elements and the white
// space around others. It isn't ok if a quoted string doesn't end; then that
// element is missing and so is what follows it.
func Elements(values []string) (list []string, ok bool) {
	for _, value := range values {
		start, quoted := 0, false
		add := func(end int) {
			if element := strings.Trim(value[start:end], " \t"); element != "" {
				list = append(list, element)
			}
			start = end + 1
		}
		for i := 0; i < len(value); i++ {
			switch b := value[i]; {
			case b == '"':
				quoted = !quoted
			case b == '\\' && quoted:
				i++
			case b == ',' && !quoted:
				add(i)
			}
		}
		if quoted {
			return list, false
		}
		add(len(value))
	}
	return list, true
}

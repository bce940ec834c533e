// Package variant tells apart the variants of a resource: representations among which fields of a request select (RFC 9110
// §12.1).
package variant

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/itscales/scales/internal/field"
)

// Max is how many variants a resource has at most.
const Max = 64

// A Field is a field of requests that selects, and the values that the application is asked with, "" for a request without
// the field. A request that asks for none of them gets what the first one gets.
type Field struct {
	Name   string // canonical
	Values []string
}

// Fields are fields that select together: there is a variant for each combination of their values. The variants are
// numbered; of two neighbours the last field has another value, unless it has run through all.
type Fields []Field

// ErrInvalid is what Check wraps.
var ErrInvalid = errors.New("invalid variants")

// Check reports whether an application can be asked with each of the values, and whether requests can select among them.
func (fs Fields) Check() error {
	for _, f := range fs {
		if err := f.checkMeaning(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return fs.CheckForm()
}

// CheckForm is Check for what somebody else has written: it does not ask whether the values mean something.
func (fs Fields) CheckForm() error {
	count := 1
	for i, f := range fs {
		if err := f.checkForm(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if slices.ContainsFunc(fs[:i], func(other Field) bool { return other.Name == f.Name }) {
			return fmt.Errorf("%w: %s comes twice", ErrInvalid, f.Name)
		}
		if count *= len(f.Values); count > Max {
			return fmt.Errorf("%w: the values make more than %d of them", ErrInvalid, Max)
		}
	}
	return nil
}

func (f Field) checkForm() error {
	switch {
	case !field.IsName(f.Name) || f.Name != http.CanonicalHeaderKey(f.Name):
		return fmt.Errorf("%q is not the name of a field in its canonical form", f.Name)
	case unfit(f.Name) != "":
		return fmt.Errorf("%s %s", f.Name, unfit(f.Name))
	case len(f.Values) == 0:
		return fmt.Errorf("%s without values", f.Name)
	}
	for i, value := range f.Values {
		if err := field.Valid(http.Header{f.Name: {value}}); err != nil {
			return err
		}
		switch {
		case value != strings.Trim(value, " \t"):
			return fmt.Errorf("%s: %q begins or ends with white space", f.Name, value)
		case slices.ContainsFunc(f.Values[:i], func(other string) bool { return strings.EqualFold(other, value) }):
			return fmt.Errorf("%s: %q comes twice", f.Name, value)
		}
	}
	return nil
}

// checkMeaning checks that the values are what the name of the field promises.
func (f Field) checkMeaning() error {
	for _, value := range f.Values {
		var err error
		switch f.Name {
		case "Accept-Language":
			_, err = language.Parse(value)
		case "Accept":
			err = checkMediaType(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %q: %w", f.Name, value, err)
		}
	}
	return nil
}

// unfit says why nothing may be selected by a field; "" if it may.
func unfit(name string) string {
	switch name {
	case "Cookie", "Authorization", "Proxy-Authorization":
		return "tells who asks, and what is stored is for everybody"
	case "Accept-Encoding":
		return "is negotiated among the codings that are stored anyway"
	case "Host":
		return "is a part of keys, if anything (option Hosts)"
	case "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Expect", "Content-Length":
		return "selects no representation"
	}
	if field.IsHopByHop(name) {
		return "is about a connection"
	}
	return ""
}

// checkMediaType checks that a value is the name of a media type, or "*/*".
func checkMediaType(value string) error {
	name, parameters, err := mime.ParseMediaType(value)
	switch {
	case err != nil:
		return err
	case len(parameters) > 0:
		return errors.New("a media type with parameters")
	case strings.Count(name, "/") != 1 || strings.Contains(name, "*") && name != anyType:
		return errors.New("no media type")
	}
	return nil
}

// Count returns how many variants there are; it is 1 without fields.
func (fs Fields) Count() int {
	count := 1
	for _, f := range fs {
		count *= len(f.Values)
	}
	return count
}

// indexes returns which value of each field a variant has.
func (fs Fields) indexes(variant int) []int {
	indexes := make([]int, len(fs))
	for i := len(fs) - 1; i >= 0; i-- {
		indexes[i] = variant % len(fs[i].Values)
		variant /= len(fs[i].Values)
	}
	return indexes
}

// Set gives a header the fields with which the application is asked for a variant.
func (fs Fields) Set(header http.Header, variant int) {
	for i, index := range fs.indexes(variant) {
		if value := fs[i].Values[index]; value != "" {
			header[fs[i].Name] = []string{value}
		} else {
			delete(header, fs[i].Name)
		}
	}
}

// String tells a variant to people: `Accept-Language: de`.
func (fs Fields) String(variant int) string {
	parts := make([]string, len(fs))
	for i, index := range fs.indexes(variant) {
		parts[i] = fs[i].Name + ": " + fs[i].Values[index]
	}
	return strings.Join(parts, ", ")
}

// Within returns those of the fields for which in is true, and the numbers of the variants that have the first value of each
// other field: in the order of the variants of the result.
func (fs Fields) Within(in []bool) (within Fields, numbers []int) {
	for i, f := range fs {
		if in[i] {
			within = append(within, f)
		}
	}
	for variant := range fs.Count() {
		outside := false
		for i, index := range fs.indexes(variant) {
			outside = outside || index > 0 && !in[i]
		}
		if !outside {
			numbers = append(numbers, variant)
		}
	}
	return within, numbers
}

// Index returns which of the fields has that name, whatever its case, or -1.
func (fs Fields) Index(name string) int {
	return slices.IndexFunc(fs, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

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
	count := 1
	for i, f := range fs {
		if err := f.check(); err != nil {
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

func (f Field) check() error {
	switch {
	case !field.IsName(f.Name) || f.Name != http.CanonicalHeaderKey(f.Name):
		return fmt.Errorf("%q is not the name of a field in its canonical form", f.Name)
	case forbidden[f.Name] != "":
		return fmt.Errorf("%s %s", f.Name, forbidden[f.Name])
	case len(f.Values) == 0:
		return fmt.Errorf("%s without values", f.Name)
	}
	for i, value := range f.Values {
		if err := field.Valid(http.Header{f.Name: {value}}); err != nil {
			return err
		}
		var err error
		switch f.Name {
		case "Accept-Language":
			_, err = language.Parse(value)
		case "Accept":
			_, err = parseMediaType(value)
		}
		switch {
		case err != nil:
			return fmt.Errorf("%s: %q: %w", f.Name, value, err)
		case value != strings.Trim(value, " \t"):
			return fmt.Errorf("%s: %q begins or ends with white space", f.Name, value)
		case slices.ContainsFunc(f.Values[:i], func(other string) bool { return strings.EqualFold(other, value) }):
			return fmt.Errorf("%s: %q comes twice", f.Name, value)
		}
	}
	return nil
}

// forbidden says what speaks against fields that select.
var forbidden = map[string]string{
	"Cookie": ofOne, "Authorization": ofOne, "Proxy-Authorization": ofOne,
	"Accept-Encoding":   "is negotiated among the codings that are stored anyway",
	"Host":              "is a part of keys, if anything",
	"Connection":        ofHop,
	"Keep-Alive":        ofHop,
	"Te":                ofHop,
	"Transfer-Encoding": ofHop,
	"Upgrade":           ofHop,
	"Range":             ofPart, "If-Range": ofPart, "If-Match": ofPart, "If-None-Match": ofPart,
	"If-Modified-Since": ofPart, "If-Unmodified-Since": ofPart,
}

const (
	ofOne  = "tells who asks, and what is stored is for everybody"
	ofHop  = "is about a connection"
	ofPart = "selects no representation"
)

// parseMediaType reads the name of a media type, or "*/*".
func parseMediaType(value string) (string, error) {
	name, parameters, err := mime.ParseMediaType(value)
	switch {
	case err != nil:
		return "", err
	case len(parameters) > 0:
		return "", errors.New("a media type with parameters")
	case strings.Count(name, "/") != 1 || strings.Contains(name, "*") && name != anyType:
		return "", errors.New("no media type")
	}
	return name, nil
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

package variant

import (
	"mime"
	"slices"
	"strings"

	"github.com/itscales/scales/internal/field"
)

const anyType = "*/*"

// A mediaRange is a member of Accept.
type mediaRange struct {
	name  string
	plain bool // it has no parameters
	welcome
}

// welcome is how welcome something is.
type welcome struct {
	weight    field.Weight
	precision int // of the range that says so: 0 for "*/*", 1 for "text/*", 2 for "text/html"
}

func (w welcome) over(other welcome) bool {
	return w.weight > other.weight || w.weight == other.weight && w.weight > 0 && w.precision > other.precision
}

// mediaTypes chooses among media types by Accept (RFC 9110 §12.5.1): the one that is most welcome, and of several the first.
//
// "*/*" is what an application answers that is asked for nothing in particular. It is as welcome as whatever a request
// names besides the other types, and as anything at all.
func mediaTypes(values []string) func(string) int {
	return func(accept string) int {
		ranges := parseAccept(accept)
		best, highest := 0, welcome{}
		for i, value := range values {
			w := weigh(ranges, value)
			if value == anyType {
				w = weighOthers(ranges, values)
			}
			if w.over(highest) {
				best, highest = i, w
			}
		}
		return best
	}
}

// weigh returns how welcome a media type is: the most precise range says so.
func weigh(ranges []mediaRange, value string) (w welcome) {
	precision, plain := -1, false
	for _, r := range ranges {
		if r.covers(value) && (r.precision > precision || r.precision == precision && r.plain && !plain) {
			w, precision, plain = r.welcome, r.precision, r.plain
		}
	}
	return w
}

// weighOthers returns how welcome anything is that is none of the media types.
func weighOthers(ranges []mediaRange, values []string) (most welcome) {
	for _, r := range ranges {
		other := r.precision == 0 || !slices.ContainsFunc(values, r.covers)
		if other && r.over(most) {
			most = r.welcome
		}
	}
	return most
}

func (r mediaRange) covers(value string) bool {
	switch r.precision {
	case 0:
		return true
	case 1:
		return len(value) > len(r.name) && strings.EqualFold(value[:len(r.name)], r.name)
	}
	return strings.EqualFold(value, r.name)
}

// parseAccept reads a value of Accept. Members that are malformed are left out. What is said of a media type with parameters
// counts for the type, unless that itself is named, or it is that it is not wanted.
func parseAccept(value string) (ranges []mediaRange) {
	members, _ := field.Elements([]string{value})
	for _, member := range members[:min(len(members), maxMembers)] {
		name, parameters, err := mime.ParseMediaType(member)
		major, minor, ok := strings.Cut(name, "/")
		if err != nil || !ok || major == "" || minor == "" || major == "*" && minor != "*" {
			continue
		}
		r := mediaRange{name: name, welcome: welcome{field.FullWeight, 2}}
		if q, ok := parameters["q"]; ok {
			r.weight = field.ParseWeight("q=" + q)
			delete(parameters, "q")
		}
		r.plain = len(parameters) == 0
		if r.weight < 0 || r.weight == 0 && !r.plain {
			continue
		}
		switch {
		case name == anyType:
			r.precision = 0
		case minor == "*":
			r.name, r.precision = strings.TrimSuffix(name, "*"), 1
		}
		ranges = append(ranges, r)
	}
	return ranges
}

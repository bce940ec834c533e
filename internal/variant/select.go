package variant

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/itscales/scales/internal/field"
	"golang.org/x/text/language"
)

// A Selector finds the variant that a request selects. It is safe for concurrent use.
type Selector struct{ fields []*chooser }

// A chooser finds the value that a request asks for.
type chooser struct {
	name   string
	values []string
	absent int                    // which one a request without the field gets
	choose func(value string) int // which one fits a value of the field; nil compares

	// What was found before. It is replaced, not changed, so that to look there takes no lock.
	learning sync.Mutex
	known    atomic.Pointer[map[string]int]
}

// A client says what is remembered, so it is not much, and what is longer than maxValue bytes asks for nothing.
const (
	maxKnown = 256
	maxValue = 1024
)

// selectors are shared by all entries that vary in the same way.
var selectors struct {
	sync.Mutex
	known map[string]*Selector
}

// maxSelectors is far more than the applications of one process declare.
const maxSelectors = 1024

// SelectorOf returns a selector. Values that are not what the name of their field promises are compared with those of
// requests; every value is, in fields that Scales does not know.
func SelectorOf(fields Fields) *Selector {
	var name strings.Builder
	for _, f := range fields {
		name.WriteString(f.Name + "\n")
		for _, value := range f.Values {
			name.WriteString(" " + value + "\n")
		}
	}
	selectors.Lock()
	defer selectors.Unlock()
	if s, ok := selectors.known[name.String()]; ok {
		return s
	}
	s := new(Selector)
	for _, f := range fields {
		s.fields = append(s.fields, newChooser(f))
	}
	if selectors.known == nil || len(selectors.known) >= maxSelectors {
		selectors.known = make(map[string]*Selector)
	}
	selectors.known[name.String()] = s
	return s
}

func newChooser(f Field) *chooser {
	c := &chooser{name: f.Name, values: f.Values}
	for i, value := range f.Values {
		if value == "" {
			c.absent = i
		}
	}
	switch f.Name {
	case "Accept-Language":
		c.choose = languages(f.Values)
	case "Accept":
		c.choose = mediaTypes(f.Values)
	}
	c.known.Store(new(map[string]int))
	return c
}

// Select returns the number of the variant that a request selects. For a field that asks for nothing that there is, that is
// the first value. It takes no lock and allocates nothing for values that it has seen before.
func (s *Selector) Select(header http.Header) int {
	variant := 0
	for _, c := range s.fields {
		variant = variant*len(c.values) + c.index(header[c.name])
	}
	return variant
}

func (c *chooser) index(values []string) int {
	switch len(values) {
	case 0:
		return c.absent
	case 1:
		return c.indexOf(values[0])
	}
	return c.indexOf(strings.Join(values, ", ")) // RFC 9110 §5.2
}

func (c *chooser) indexOf(value string) int {
	if c.choose == nil {
		value = strings.Trim(value, " \t")
		for i := range c.values {
			if c.values[i] == value {
				return i
			}
		}
		return 0
	}
	if len(value) > maxValue {
		return 0
	}
	if i, ok := (*c.known.Load())[value]; ok {
		return i
	}
	i := c.choose(value)
	c.learn(value, i)
	return i
}

func (c *chooser) learn(value string, i int) {
	c.learning.Lock()
	defer c.learning.Unlock()
	known := *c.known.Load()
	if len(known) >= maxKnown {
		return
	}
	more := make(map[string]int, len(known)+1)
	maps.Copy(more, known)
	more[strings.Clone(value)] = i
	c.known.Store(&more)
}

// languages chooses among language tags by Accept-Language (RFC 9110 §12.5.4), with what Unicode knows about languages: who
// asks for Austrian German gets German.
func languages(values []string) func(string) int {
	tags := make([]language.Tag, len(values))
	for i, value := range values {
		var err error
		if tags[i], err = language.Parse(value); err != nil {
			return nil
		}
	}
	matcher := language.NewMatcher(tags)
	return func(value string) int {
		_, i := language.MatchStrings(matcher, value)
		return i
	}
}

const anyType = "*/*"

// mediaTypes chooses among media types by Accept (RFC 9110 §12.5.1): the one with the highest weight, and of several the one
// that is named most precisely. The weight of "*/*", which is what an application answers that is asked for nothing in
// particular, is that of whatever the request accepts most.
func mediaTypes(values []string) func(string) int {
	for _, value := range values {
		if _, err := parseMediaType(value); err != nil {
			return nil
		}
	}
	return func(accept string) int {
		ranges := parseAccept(accept)
		best, highest := 0, mediaRange{}
		for i, value := range values {
			r := weigh(ranges, value)
			if r.weight > highest.weight || r.weight == highest.weight && r.weight > 0 && r.precision > highest.precision {
				best, highest = i, r
			}
		}
		return best
	}
}

// weigh returns the range that says how welcome a media type is, a zero one if none does.
func weigh(ranges []mediaRange, value string) (most mediaRange) {
	found := false
	for _, r := range ranges {
		switch {
		case value == anyType:
			if r.weight > most.weight {
				most = mediaRange{weight: r.weight}
			}
		case r.covers(value) && (!found || r.precision > most.precision):
			most, found = r, true
		}
	}
	return most
}

// A mediaRange is a member of Accept.
type mediaRange struct {
	name      string
	precision int // 0 for "*/*", 1 for "text/*", 2 for "text/html"
	weight    field.Weight
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

// parseAccept reads a value of Accept. Members that are malformed are left out. Parameters of media types do not count.
func parseAccept(value string) (ranges []mediaRange) {
	members, _ := field.Elements([]string{value})
	for _, member := range members {
		name, parameters, _ := strings.Cut(member, ";")
		r := mediaRange{name: strings.TrimSpace(name), precision: 2, weight: field.FullWeight}
		switch major, minor, ok := strings.Cut(r.name, "/"); {
		case !ok || major == "" || minor == "":
			continue
		case r.name == anyType:
			r.precision = 0
		case minor == "*":
			r.name, r.precision = strings.TrimSuffix(r.name, "*"), 1
		}
		for parameter := range strings.SplitSeq(parameters, ";") {
			if q := field.ParseWeight(strings.TrimSpace(parameter)); q >= 0 {
				r.weight = q
			}
		}
		ranges = append(ranges, r)
	}
	return ranges
}

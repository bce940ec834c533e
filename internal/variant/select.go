package variant

import (
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// A Selector finds the variant that a request selects. It is safe for concurrent use.
type Selector struct{ fields []*chooser }

// A chooser finds the value that a request asks for.
type chooser struct {
	name   string
	values []string
	absent int                    // which one a request without the field gets
	choose func(value string) int // which one fits a value of the field; nil compares
	found  memory
}

// A client says what is looked at, so it is not much: what is longer than maxValue bytes asks for nothing, and of a list only
// the first members count.
const (
	maxValue   = 1024
	maxMembers = 32
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
	if f.checkMeaning() == nil {
		switch f.Name {
		case "Accept-Language":
			c.choose = languages(f.Values)
		case "Accept":
			c.choose = mediaTypes(f.Values)
		}
	}
	return c
}

// Select returns the number of the variant that a request selects. For a field that asks for nothing that there is, that is
// the first value. It takes no lock, and allocates nothing for a line that it remembers: the latest ones.
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
	size := 0
	for _, value := range values {
		size += len(value)
	}
	if size > maxValue {
		return 0
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
	i, ok := c.found.recall(value)
	if !ok {
		i = c.choose(value)
		c.found.keep(value, i)
	}
	return i
}

// A memory has what was found for values. Where two of them have the same place, the later one has it: however many values
// clients make up, it stays as small as it is, and what many send comes back.
type memory struct {
	places [256]atomic.Pointer[memorized]
}

type memorized struct {
	value string
	index int
}

var seed = maphash.MakeSeed()

func (m *memory) place(value string) *atomic.Pointer[memorized] {
	return &m.places[maphash.String(seed, value)%uint64(len(m.places))]
}

func (m *memory) recall(value string) (int, bool) {
	if known := m.place(value).Load(); known != nil && known.value == value {
		return known.index, true
	}
	return 0, false
}

func (m *memory) keep(value string, index int) {
	m.place(value).Store(&memorized{strings.Clone(value), index})
}

package variant

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/itscales/scales/internal/field"
)

// A languageRange is a member of Accept-Language.
type languageRange struct {
	name   string
	tag    language.Tag // of all but "*"
	weight field.Weight
}

// languages chooses among language tags by Accept-Language (RFC 9110 §12.5.4), as Unicode has it: who asks for Austrian German
// gets German. "*" is every language that no other range names; it counts in the order of the weights. A range with a weight
// of 0 excludes what it is a beginning of (RFC 4647 §3.3.1).
func languages(values []string) func(string) int {
	all := matcherOf(values, make([]bool, len(values)))
	return func(value string) int {
		ranges := parseLanguages(value)
		named, excluded := make([]bool, len(values)), make([]bool, len(values))
		matcher := all
		for i, value := range values {
			for _, r := range ranges {
				if covers(r.name, value) {
					named[i] = true
					excluded[i] = excluded[i] || r.weight == 0
				}
			}
		}
		if slices.Contains(excluded, true) {
			matcher = matcherOf(values, excluded)
		}
		var wanted []language.Tag
		for _, r := range ranges {
			switch {
			case r.weight == 0:
			case r.name == "*":
				if i, ok := matcher.match(wanted); ok {
					return i
				}
				if i := slices.Index(named, false); i >= 0 {
					return i
				}
				wanted = nil
			default:
				wanted = append(wanted, r.tag)
			}
		}
		if i, ok := matcher.match(wanted); ok {
			return i
		}
		return max(0, slices.Index(excluded, false))
	}
}

// A matcher finds the best of several languages.
type matcher struct {
	language.Matcher
	indexes []int // in the values
}

// matcherOf returns the matcher of the values that are not excluded.
func matcherOf(values []string, excluded []bool) (m matcher) {
	var tags []language.Tag
	for i, value := range values {
		if !excluded[i] {
			tags, m.indexes = append(tags, language.Make(value)), append(m.indexes, i)
		}
	}
	m.Matcher = language.NewMatcher(tags)
	return m
}

func (m matcher) match(wanted []language.Tag) (int, bool) {
	if len(wanted) == 0 || len(m.indexes) == 0 {
		return 0, false
	}
	_, i, confidence := m.Match(wanted...)
	return m.indexes[i], confidence > language.No
}

// covers reports whether a language range is a language tag or a beginning of it (RFC 4647 §3.3.1).
func covers(name, tag string) bool {
	return len(tag) >= len(name) && strings.EqualFold(tag[:len(name)], name) && (len(tag) == len(name) || tag[len(name)] == '-')
}

// parseLanguages reads a value of Accept-Language: what is wanted most comes first. Members that are
// malformed or unknown are left out.
func parseLanguages(value string) (ranges []languageRange) {
	members, _ := field.Elements([]string{value})
	for _, member := range members[:min(len(members), maxMembers)] {
		name, weight, weighted := strings.Cut(member, ";")
		r := languageRange{name: strings.TrimSpace(name), weight: field.FullWeight}
		if weighted {
			r.weight = field.ParseWeight(strings.TrimSpace(weight))
		}
		if r.name != "*" {
			// Where a part of a tag is not known, there is an error, and a tag without it.
			var unknown language.ValueError
			var err error
			if r.tag, err = language.Parse(r.name); err != nil && !errors.As(err, &unknown) || r.tag == language.Und {
				continue
			}
		}
		if r.weight >= 0 {
			ranges = append(ranges, r)
		}
	}
	slices.SortStableFunc(ranges, func(a, b languageRange) int { return cmp.Compare(b.weight, a.weight) })
	return ranges
}

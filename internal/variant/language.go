package variant

import (
	"cmp"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/itscales/scales/internal/field"
)

// A languageRange is a member of Accept-Language.
type languageRange struct {
	name   string
	weight field.Weight
}

// languages chooses among language tags by Accept-Language (RFC 9110 §12.5.4; RFC 4647 §3.4), with what Unicode knows about
// languages: who asks for Austrian German gets German. Ranges are asked in the order of their weights. "*" is every language
// that no other range names, and one with a weight of 0 excludes what begins with it.
func languages(values []string) func(string) int {
	tags := make([]language.Tag, len(values))
	for i, value := range values {
		tags[i] = language.Make(value)
	}
	matcher := language.NewMatcher(tags)
	return func(value string) int {
		ranges := parseLanguages(value)
		named := func(i int, excluding bool) bool {
			return slices.ContainsFunc(ranges, func(r languageRange) bool {
				return r.name != "*" && (r.weight == 0 || !excluding) && covers(r.name, values[i])
			})
		}
		for _, r := range ranges {
			if r.weight == 0 {
				break
			}
			if r.name == "*" {
				for i := range values {
					if !named(i, false) {
						return i
					}
				}
				continue
			}
			tag, err := language.Parse(r.name)
			if err != nil {
				continue
			}
			if _, i, confidence := matcher.Match(tag); confidence > language.No && !named(i, true) {
				return i
			}
		}
		return 0
	}
}

// covers reports whether a language range is a language tag or a beginning of it (RFC 4647 §3.3.1).
func covers(name, tag string) bool {
	return len(tag) >= len(name) && strings.EqualFold(tag[:len(name)], name) && (len(tag) == len(name) || tag[len(name)] == '-')
}

// parseLanguages reads a value of Accept-Language: what is wanted most comes first. Members that are malformed are left out.
func parseLanguages(value string) (ranges []languageRange) {
	members, _ := field.Elements([]string{value})
	for _, member := range members[:min(len(members), maxMembers)] {
		name, weight, weighted := strings.Cut(member, ";")
		r := languageRange{strings.TrimSpace(name), field.FullWeight}
		if weighted {
			r.weight = field.ParseWeight(strings.TrimSpace(weight))
		}
		if r.name != "" && r.weight >= 0 {
			ranges = append(ranges, r)
		}
	}
	slices.SortStableFunc(ranges, func(a, b languageRange) int { return cmp.Compare(b.weight, a.weight) })
	return ranges
}

package field

import (
	"net/http"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// ScalesCacheControl is the targeted field (RFC 9213) that speaks to us alone: where an answer has it, it says what may be
// stored, and Cache-Control is for the caches behind us.
const ScalesCacheControl = "Scales-Cache-Control"

// directive is a member of Cache-Control (RFC 9111 §5.2).
type directive struct {
	name      string // in lower case
	argument  string // without quotes
	qualified bool   // has an argument
}

// NoTransform reports whether Cache-Control has no-transform (RFC 9111 §5.2.2.6).
func NoTransform(h http.Header) bool {
	list, _ := directives(h)
	return slices.ContainsFunc(list, func(d directive) bool { return d.name == "no-transform" })
}

// governing returns the directives that say whether an answer may be stored, and which field they are of: those of
// [ScalesCacheControl] if it is a Dictionary that is not empty (RFC 9213 §2.2), else those of Cache-Control. ok is as in
// elements.
func governing(h http.Header) (name string, list []directive, ok bool) {
	if list, ok := targeted(h); ok && len(list) > 0 {
		return ScalesCacheControl, list, true
	}
	list, ok = directives(h)
	return "Cache-Control", list, ok
}

// targeted returns the directives of ScalesCacheControl. A field that is no Dictionary is ignored as a whole (RFC 9213
// §2.1). A directive that is false is not there.
func targeted(h http.Header) (list []directive, ok bool) {
	values := valuesOf(h, ScalesCacheControl)
	if len(values) == 0 {
		return nil, false
	}
	dictionary, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, false
	}
	for _, name := range dictionary.Names() {
		d := directive{name: name}
		member, _ := dictionary.Get(name)
		if item, isItem := member.(httpsfv.Item); isItem {
			switch value := item.Value.(type) {
			case bool:
				if !value {
					d.name = ""
				}
			case string:
				d.argument, d.qualified = value, true
			default:
				d.qualified = true
			}
		}
		list = append(list, d)
	}
	return list, true
}

// directives returns the members of Cache-Control, and ok as elements does.
func directives(h http.Header) (list []directive, ok bool) {
	members, ok := Elements(valuesOf(h, "Cache-Control"))
	for _, member := range members {
		name, argument, qualified := strings.Cut(member, "=")
		list = append(list, directive{
			name:      strings.ToLower(strings.TrimRight(name, " \t")),
			argument:  unquote(strings.TrimLeft(argument, " \t")),
			qualified: qualified,
		})
	}
	return list, ok
}

// unquote returns what a quoted string stands for, and other strings as they are.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s
	}
	unquoted := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		unquoted = append(unquoted, s[i])
	}
	return string(unquoted)
}

package field

import (
	"net/http"
	"strings"
)

// Merge puts the fields of src, those of an entry or a reply, into dst, the
// header of a response in which middleware may have set some. Both have
// canonical names. The slices of dst are its own afterwards: nothing that is done
// to them reaches src.
//
// A field of src replaces that of dst unless both may stand side by side without
// one changing what the other means:
//
//   - Vary (RFC 9110 §12.5.5) gets the names it doesn't have; "*" alone, if
//     either has it.
//   - Link (RFC 8288 §3), Set-Cookie (RFC 6265 §3), Server-Timing,
//     Timing-Allow-Origin, Preference-Applied (RFC 7240 §3), WWW-Authenticate
//     (RFC 9110 §11.6.1), Access-Control-Expose-Headers (Fetch §3.3.3) and
//     Clear-Site-Data are lists; the values of src come after those of dst.
//   - Content-Security-Policy and its Report-Only are lists of policies, all of
//     which are enforced: replacing one would take it away.
//   - Cache-Status (RFC 9211 §2), Proxy-Status (RFC 9209 §2) and Via (RFC 9110
//     §7.6.3) are lists that begin at the origin, so the values of src come first.
//
// All others are replaced, lists too where two answers would make a third one
// that nobody gave: Cache-Control, Allow, Content-Language, Content-Encoding,
// Access-Control-Allow-Methods and the like.
func Merge(dst, src http.Header) {
	count := 0
	for name, values := range src {
		count += len(values)
		if len(dst) > 0 && listKind(name) != single {
			count += len(dst[name])
		}
	}
	// One array has all values, as this is done for every answer.
	array := make([]string, 0, count)
	for name, values := range src {
		if len(values) == 0 {
			continue
		}
		present := dst[name]
		kind := listKind(name)
		start := len(array)
		switch {
		case len(present) == 0 || kind == single:
			array = append(array, values...)
		case kind == appended:
			array = append(append(array, present...), values...)
		case kind == prepended:
			array = append(append(array, values...), present...)
		case kind == set:
			array = append(array, unite(present, values))
		}
		dst[name] = array[start:len(array):len(array)]
	}
}

// Joins says whether [Merge] joins the values of a field that both headers have,
// instead of replacing those of dst.
func Joins(name string) bool { return listKind(name) != single }

// kind says what becomes of a field that both headers have.
type kind int

const (
	single    kind = iota // replaced
	appended              // the present values come first
	prepended             // the present values come last
	set                   // each member once
)

func listKind(name string) kind {
	switch name {
	case "Vary":
		return set
	case "Link", "Set-Cookie", "Server-Timing", "Timing-Allow-Origin", "Preference-Applied", "Www-Authenticate",
		"Access-Control-Expose-Headers", "Clear-Site-Data", "Content-Security-Policy", "Content-Security-Policy-Report-Only":
		return appended
	case "Cache-Status", "Proxy-Status", "Via":
		return prepended
	}
	return single
}

// unite joins the field names in two lists of Vary values.
func unite(present, more []string) string {
	var names []string
	for _, values := range [][]string{present, more} {
		list, _ := Elements(values)
		for _, name := range list {
			if name == "*" {
				return name
			}
			if !containsFold(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

func containsFold(names []string, name string) bool {
	for _, present := range names {
		if strings.EqualFold(present, name) {
			return true
		}
	}
	return false
}

package field

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Verdict is what the answer to a render does to the cache.
type Verdict int

// The verdicts.
const (
	Store   Verdict = iota // the answer becomes the entry
	Destroy                // there is no such resource any more
	Refuse                 // the answer may not be stored; the entry is destroyed and that is reported
	Retry                  // the answer says nothing; the last good entry stays
)

// String returns "store", "destroy", "refuse" or "retry".
func (v Verdict) String() string {
	switch v {
	case Store:
		return "store"
	case Destroy:
		return "destroy"
	case Refuse:
		return "refuse"
	case Retry:
		return "retry"
	}
	return fmt.Sprintf("Verdict(%d)", int(v))
}

// Storable says what becomes of an answer of the application to a render, by
// its status and header, and gives the reason unless it is stored:
//
//   - 200, 203, 204, 300, 301, 302, 303, 307, 308: Store, or Refuse if the
//     header forbids it.
//   - 408, 425, 429, 5xx: Retry. The answer is about this moment (RFC 9110
//     §15.5.9, §15.6; RFC 8470 §5.2; RFC 6585 §4).
//   - other 4xx: Destroy.
//   - all others, such as 206 and 304, which are no answers to a plain GET, and
//     202, which says that there is none yet: Refuse.
//
// A header forbids it with no-store or private in Cache-Control (RFC 9111
// §5.2.2.5, §5.2.2.7), with Set-Cookie, and with Vary on anything but
// Accept-Encoding and the fields by which there are variants (§4.1), since one
// entry answers everyone. A private that names
// fields forbids it, too: it says that there is something in the answer that is
// for one user, and whoever says so is taken at more than his word. A
// Cache-Control in which a quoted string doesn't end might say either, so it
// forbids it. Where there is a [ScalesCacheControl], that counts instead of
// Cache-Control: an application whose framework says private of everything opts
// in with "Scales-Cache-Control: public".
func Storable(status int, h http.Header, variants ...string) (Verdict, string) {
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent,
		http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if reason := forbidden(h, variants); reason != "" {
			return Refuse, reason
		}
		return Store, ""
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return Retry, describe(status)
	}
	switch {
	case 400 <= status && status <= 499:
		return Destroy, describe(status)
	case 500 <= status && status <= 599:
		return Retry, describe(status)
	}
	return Refuse, describe(status) + " is not stored"
}

func describe(status int) string {
	return strings.TrimRight(fmt.Sprintf("status %d %s", status, http.StatusText(status)), " ")
}

// forbidden returns the reason why an answer with this header is not stored.
func forbidden(h http.Header, variants []string) string {
	field, members, ok := governing(h)
	for _, member := range members {
		switch {
		case member.name == "private" && member.qualified:
			return fmt.Sprintf("%s: private=%q", field, member.argument)
		case member.name == "no-store" || member.name == "private":
			return field + ": " + member.name
		}
	}
	if !ok {
		return "Cache-Control: a quoted string does not end"
	}
	if len(valuesOf(h, "Set-Cookie")) > 0 {
		return "Set-Cookie"
	}
	names, ok := Selecting(h)
	if !ok {
		return "Vary: malformed"
	}
	for _, name := range names {
		if !containsFold(variants, name) {
			return "Vary: " + name
		}
	}
	return ""
}

// Selecting returns the request fields by which an answer says that it was
// selected (RFC 9110 §12.5.5), but for Accept-Encoding. It isn't ok if that is
// malformed. An element with a quote is no field name, and no field has it.
func Selecting(h http.Header) (names []string, ok bool) {
	names, ok = Elements(valuesOf(h, "Vary"))
	return slices.DeleteFunc(names, func(name string) bool { return strings.EqualFold(name, "Accept-Encoding") }), ok
}

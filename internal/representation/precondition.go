package representation

import "net/http"

// verdict is what the preconditions of a request say.
type verdict int

const (
	proceed verdict = iota
	notModified
	failed
)

// evaluate evaluates the preconditions of a GET or HEAD in the order of RFC 9110 §13.2.2, but for If-Range, against the
// entity tag of the selected coding ("" if there is none).
//
// A field without a value is as good as none. A date that is malformed, or there twice, is ignored (§13.1.3, §13.1.4), and
// so are dates if the entry has none. Of a list of tags what comes before a malformed place counts.
func (r *Representation) evaluate(request http.Header, tag string) verdict {
	if values := request["If-Match"]; isGiven(values) {
		if !anyMatches(values, tag, sameStrongly) {
			return failed
		}
	} else if date, ok := r.comparableDate(request["If-Unmodified-Since"]); ok && r.modified > date {
		return failed
	}
	if values := request["If-None-Match"]; isGiven(values) {
		// A client most often sends the tag that it got last.
		if values[0] == tag && tag != "" || anyMatches(values, tag, sameWeakly) {
			return notModified
		}
	} else if date, ok := r.comparableDate(request["If-Modified-Since"]); ok && r.modified <= date {
		return notModified
	}
	return proceed
}

func isGiven(values []string) bool {
	for _, value := range values {
		if value != "" {
			return true
		}
	}
	return false
}

// comparableDate returns the date in a field, in seconds since 1970, if it can be compared with Last-Modified.
func (r *Representation) comparableDate(values []string) (seconds int64, ok bool) {
	if len(values) != 1 || r.modified == noDate {
		return 0, false
	}
	return parseDate(values[0])
}

func parseDate(value string) (seconds int64, ok bool) {
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return date.Unix(), true
}

// anyMatches says whether a list of entity tags has a tag, in the sense of same, or is "*", which every entry matches.
func anyMatches(values []string, tag string, same func(a, b string) bool) bool {
	for _, value := range values {
		for {
			value = trim(value)
			if value == "" {
				break
			}
			if value[0] == ',' {
				value = value[1:]
				continue
			}
			if value[0] == '*' {
				return true
			}
			listed, rest, ok := scanTag(value)
			if !ok {
				break
			}
			if tag != "" && same(listed, tag) {
				return true
			}
			value = rest
		}
	}
	return false
}

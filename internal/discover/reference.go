package discover

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// references collects references in their order, each once, up to the limits of
// the package.
type references struct {
	list  []string
	known map[string]struct{}
	bytes int
	full  bool // nothing more is taken
}

// add takes a reference as it is written in a document, unless it leads nowhere.
func (r *references) add(written string) {
	if reference, ok := clean(written); ok {
		r.put(reference)
	}
}

func (r *references) put(reference string) {
	if _, known := r.known[reference]; known || r.full || len(reference) > MaxReferenceLength {
		return
	}
	if r.bytes+len(reference) > maxReferenceBytes {
		r.full = true
		return
	}
	if r.known == nil {
		r.known = make(map[string]struct{})
	}
	r.known[reference] = struct{}{}
	r.list = append(r.list, reference)
	r.bytes += len(reference)
	r.full = len(r.list) == MaxReferences
}

// against returns the references, resolved against a base that was written in the
// page with the given URL (HTML, "The base element"). Without a base they are
// as they were written.
//
// The base is resolved against the page here, and not left to the caller beside
// the references: a reference without a host counts as of the same origin, which
// is wrong below a base that has one.
func (r *references) against(page *url.URL, base string) []string {
	base, ok := clean(base)
	if !ok || len(base) > MaxReferenceLength {
		return r.list
	}
	parsed, err := url.Parse(base)
	if err != nil || parsed.Opaque != "" || lacksHost(base, parsed) {
		return r.list
	}
	path := url.URL{Path: page.Path, RawPath: page.RawPath, RawQuery: page.RawQuery}
	parsed = path.ResolveReference(parsed)
	var resolved references
	for _, reference := range r.list {
		if resolved.full {
			break
		}
		relative, err := url.Parse(reference)
		if err == nil && !lacksHost(reference, relative) {
			resolved.put(written(parsed.ResolveReference(relative)))
		}
	}
	return resolved.list
}

// lacksHost says whether a reference such as "///a" has a host, which is empty.
// What url.Parse makes of it has none, as if it were "/a".
func lacksHost(reference string, parsed *url.URL) bool {
	return strings.HasPrefix(reference, "//") && parsed.Host == ""
}

// written is u.String, where a path that begins with two slashes isn't taken for a
// host.
func written(u *url.URL) string {
	text := u.String()
	if u.Scheme == "" && u.Host == "" && u.User == nil && strings.HasPrefix(u.EscapedPath(), "//") {
		return "/." + text
	}
	return text
}

// clean returns what a reference names, in the form in which it is compared with
// others. It isn't ok if that is the document itself or nothing that is had by
// HTTP.
//
// The steps are those of the URL Standard's basic URL parser: control characters
// and spaces around the reference don't count, tabs and newlines in it neither, and
// a backslash in the path is a slash.
func clean(written string) (string, bool) {
	reference := strings.TrimFunc(written, func(r rune) bool { return r <= ' ' })
	if strings.ContainsAny(reference, "\t\n\r") {
		reference = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(reference)
	}
	reference, _, _ = strings.Cut(reference, "#")
	if path, query, found := strings.Cut(reference, "?"); strings.Contains(path, `\`) {
		reference = strings.ReplaceAll(path, `\`, "/")
		if found {
			reference += "?" + query
		}
	}
	if reference == "" || !utf8.ValidString(reference) {
		return "", false
	}
	scheme := scheme(reference)
	return reference, scheme == "" || strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

// scheme returns the scheme of a reference (RFC 3986 §3.1), "" if it has none.
func scheme(reference string) string {
	for i := range len(reference) {
		c := reference[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		case i > 0 && c == ':':
			return reference[:i]
		default:
			return ""
		}
	}
	return ""
}

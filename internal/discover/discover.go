// Package discover finds what a resource leads to: the references in an HTML
// page, an SVG image or a style sheet ([Links]), and the locations that a sitemap
// lists ([Sitemap]). Whoever follows them from one page reaches the pages and
// assets of a site, without a list of its keys.
//
// It reads text and decides nothing: which of the references are of the same
// origin and have a key is for the caller to say, with
// [github.com/itscales/scales/internal/field.SameOrigin] and
// [github.com/itscales/scales/internal/canonical.Rules.Key]. What it reads is not
// trusted: whatever the bytes are, its results are bounded and it does not panic.
package discover

import (
	"net/url"
	"strings"
)

// Limits of what [Links] returns.
const (
	// MaxReferences is the greatest number of references.
	MaxReferences = 10_000

	// MaxReferenceLength is the length in bytes of the longest reference; longer
	// ones are left out. RFC 9110 §4.1 asks for at least 8000.
	MaxReferenceLength = 8192

	// maxReferenceBytes bounds all references together: a long <base href> makes
	// many short references long.
	maxReferenceBytes = 4 << 20
)

// Links returns the references in a representation by which a browser comes to
// further resources, in the order of the document and each of them once. They are
// as they are written, and have to be resolved against the URL of the resource
// (RFC 3986 §5), which is what field.SameOrigin does.
//
// The media type decides where they are looked for; others than these have none:
//
//   - text/html and application/xhtml+xml: what is linked, embedded, loaded and
//     refreshed to, also in <noscript>, and the CSS in <style> and in style
//     attributes. The targets of forms are not references, since a form without
//     its fields names no resource, and neither is a <link> for something that is
//     no resource (preconnect, pingback). rel=nofollow and robots directives are for
//     strangers and don't matter.
//   - image/svg+xml: the same elements.
//   - text/css: url(), src(), image-set() and @import.
//
// A <base href> is honoured: the references of a page that has one are resolved
// against it here, and so still have to be resolved against the URL of the page.
// page is that URL. It is needed for a base that is relative itself; only its path
// and query are looked at; it is not changed and must not be nil. Where the base has no host, the
// references resolved against it have none either.
//
// A reference begins with "http:" or "https:" or has no scheme; it has no fragment,
// since that names a part of a resource; it is not empty, which means the page
// itself; and it is valid UTF-8. White space, tabs, newlines and backslashes are
// dealt with as browsers do (URL Standard, basic URL parser). It is not checked
// otherwise and need not be a URI.
//
// body is taken to be UTF-8 and is not changed. What is malformed or cut off yields
// what can be found. There are at most [MaxReferences], of 4 MiB together; what
// comes after is left out, so as many as that mean that there may be more. Scripts
// are not run, and what is in their data, in manifests or in srcdoc attributes is
// not looked at.
func Links(contentType string, page *url.URL, body []byte) []string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	var found references
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "text/html":
		d := document{found: &found}
		d.read(body)
		return found.against(page, d.base)
	case "application/xhtml+xml", "image/svg+xml":
		d := document{found: &found, xml: true}
		d.read(body)
		return found.against(page, d.base)
	case "text/css":
		readStyle(&found, body)
	}
	return found.list
}

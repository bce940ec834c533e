package discover_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/itscales/scales/internal/discover"
	"github.com/itscales/scales/internal/field"
)

// FuzzLinks checks what holds for every reference, that the result depends on the
// body alone and leaves it unchanged, and that what stands before a body is found
// whatever follows.
func FuzzLinks(f *testing.F) {
	for _, seed := range []struct{ contentType, body string }{
		{"text/html", `<base href="../x/"><a href="a#b"><img srcset="/a,b 1x, c"><meta http-equiv=refresh content="0;url='d'">`},
		{"text/html", `<style>@import "a";</style><p style="background:url(b)"><svg><script href=c /><style/><use xlink:href="d#e"/></svg>`},
		{"text/html", `<base href="//cdn.example/x"><a href="///a"></a><a href="\\b\c?d"></a><noscript><img src=e></noscript>`},
		{"application/xhtml+xml", `<title/><style><![CDATA[ a > b { src: url("\66 oo") } ]]></style><a href="&#x2f;a"/>`},
		{"image/svg+xml", "<image href='java\nscript:a'/><image href='\\' xlink:href='http:b'/>"},
		{"text/css", "@namespace url(a); @import/**/'b\\\r\nc'; p { x: image-set(\"d\" type('e')) url(f\\) ) url(\xe0\\"},
	} {
		f.Add(seed.contentType, seed.body)
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		memory := []byte(body + "x")
		references := discover.Links(contentType, page, memory[:len(body)])
		if string(memory) != body+"x" {
			t.Fatalf("the body %q became %q", body, memory)
		}
		if again := discover.Links(contentType, page, []byte(body)); !slices.Equal(again, references) {
			t.Fatalf("first %q, then %q", references, again)
		}
		if len(references) > discover.MaxReferences || len(references) > len(body) {
			t.Fatalf("%d bytes give %d references", len(body), len(references))
		}
		seen := make(map[string]bool)
		for _, reference := range references {
			checkReference(t, reference)
			if seen[reference] {
				t.Fatalf("%q comes twice", reference)
			}
			seen[reference] = true
		}
		const known = "http://known.example/"
		for kind, before := range map[string]string{
			"text/html":             "<a href=" + known + "></a>",
			"application/xhtml+xml": "<a href='" + known + "'/>",
			"text/css":              "@import '" + known + "';",
		} {
			if found := discover.Links(kind, page, []byte(before+body)); len(found) == 0 || found[0] != known {
				t.Fatalf("%s: before %q the first reference is lost: %q", kind, body, found)
			}
		}
	})
}

func checkReference(t *testing.T, reference string) {
	t.Helper()
	if reference == "" || len(reference) > discover.MaxReferenceLength || !utf8.ValidString(reference) {
		t.Fatalf("%q is empty, too long or no UTF-8", reference)
	}
	if strings.ContainsAny(reference, "#\t\r\n") || reference[0] <= ' ' {
		t.Fatalf("%q is not cleaned", reference)
	}
	if parsed, err := url.Parse(reference); err == nil && parsed.Scheme != "" && parsed.Scheme != "http" && parsed.Scheme != "https" {
		t.Fatalf("%q has the scheme %q", reference, parsed.Scheme)
	}
	if _, path, _, ok := field.SameOrigin(reference, page, page.Host); ok && path[0] != '/' {
		t.Fatalf("%q leads to %q", reference, path)
	}
}

// FuzzBase checks that the base of a page means what it means to net/url: a
// reference leads to the same whether it is resolved here, and then against the
// page, or at once.
func FuzzBase(f *testing.F) {
	for _, seed := range [][2]string{
		{"/x/", "a"}, {"..", "../a?b"}, {"//cdn.example", "a"}, {"https://cdn.example/x/../y", "//example.com/a"}, {"?x", "?y"}, {"x/", "a//b"}, {"http://user@h/", "%2e%2E/c"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, base, reference string) {
		if strings.ContainsAny(base+reference, "\"&\x00\\\r\n\t#") || strings.HasPrefix(strings.Trim(base, " "), "///") || strings.HasPrefix(strings.Trim(reference, " "), "///") || !utf8.ValidString(base) || len(base) > 1000 || len(reference) > 1000 {
			return // what HTML, or a browser, reads differently
		}
		found := discover.Links("text/html", page, []byte(`<base href="`+base+`"><a href="`+reference+`">`))
		base, reference = strings.Trim(base, " "), strings.Trim(reference, " ")
		parsedBase, err := page.Parse(base)
		if err != nil || base == "" || parsedBase.Host == "" || parsedBase.Opaque != "" || parsedBase.Scheme != "http" && parsedBase.Scheme != "https" {
			return
		}
		want, err := parsedBase.Parse(reference)
		if err != nil || len(found) == 0 {
			return
		}
		got, err := page.Parse(found[0])
		if err != nil {
			t.Fatalf("base %q, reference %q: %v", base, reference, err)
		}
		if got.Host != want.Host || got.EscapedPath() != want.EscapedPath() || got.RawQuery != want.RawQuery {
			t.Fatalf("base %q, reference %q: got %q, which is %v, want %v", base, reference, found[0], got, want)
		}
	})
}

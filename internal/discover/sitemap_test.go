package discover_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/itscales/scales/internal/discover"
)

// entries returns what a sitemap yields, and the error at its end.
func entries(t testing.TB, r io.Reader) ([]discover.Entry, error) {
	t.Helper()
	return collect(t, discover.Sitemap(r))
}

func collect(t testing.TB, sitemap iter.Seq2[discover.Entry, error]) (list []discover.Entry, err error) {
	t.Helper()
	for entry, problem := range sitemap {
		switch {
		case err != nil:
			t.Fatalf("after the error %v comes %v, %v", err, entry, problem)
		case problem != nil && entry != discover.Entry{}:
			t.Fatalf("the error %v comes with %v", problem, entry)
		case problem != nil:
			err = problem
		default:
			list = append(list, entry)
		}
	}
	return list, err
}

func compressed(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := io.WriteString(writer, text); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func pages(locations ...string) (list []discover.Entry) {
	for _, location := range locations {
		list = append(list, discover.Entry{Location: location})
	}
	return list
}

func sitemaps(locations ...string) (list []discover.Entry) {
	for _, location := range locations {
		list = append(list, discover.Entry{Location: location, Sitemap: true})
	}
	return list
}

// ofTheProtocol are the examples of https://www.sitemaps.org/protocol.html in short.
const ofTheProtocol = `<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
  <url>
    <loc>http://www.example.com/</loc>
    <lastmod>2005-01-01</lastmod>
    <priority>0.8</priority>
  </url>
  <url>
    <loc>http://www.example.com/catalog?item=12&amp;desc=vacation_hawaii</loc>
  </url>
</urlset>
`

func TestASitemapListsLocations(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []discover.Entry
	}{
		{"as in the protocol", ofTheProtocol, pages("http://www.example.com/", "http://www.example.com/catalog?item=12&desc=vacation_hawaii")},
		{"compressed", compressed(t, ofTheProtocol), pages("http://www.example.com/", "http://www.example.com/catalog?item=12&desc=vacation_hawaii")},
		{"in several compressed parts", compressed(t, ofTheProtocol[:100]) + compressed(t, ofTheProtocol[100:]), pages("http://www.example.com/", "http://www.example.com/catalog?item=12&desc=vacation_hawaii")},
		{"with a byte order mark", "\uFEFF" + ofTheProtocol, pages("http://www.example.com/", "http://www.example.com/catalog?item=12&desc=vacation_hawaii")},
		{"with a byte order mark and compressed", compressed(t, "\uFEFF"+ofTheProtocol), pages("http://www.example.com/", "http://www.example.com/catalog?item=12&desc=vacation_hawaii")},
		{"of an index", `<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><sitemap><loc>http://example.com/a.xml.gz</loc><lastmod>2004-10-01</lastmod></sitemap><sitemap><loc>http://example.com/b.xml</loc></sitemap></sitemapindex>`, sitemaps("http://example.com/a.xml.gz", "http://example.com/b.xml")},
		{"without a namespace", `<urlset><url><loc>/a</loc></url></urlset>`, pages("/a")},
		{"with prefixes", `<s:urlset xmlns:s="x"><s:url><s:loc>/a</s:loc></s:url></s:urlset>`, pages("/a")},
		{"without white space around", "<urlset><url><loc>\r\n\t /a b \n</loc></url></urlset>", pages("/a b")},
		{"as text in parts", `<urlset><url><loc>/a<!-- x --><![CDATA[?b&c]]><x>y</x>&#x26;d</loc></url></urlset>`, pages("/a?b&c&d")},
		{"each time it names them", `<urlset><url><loc>/a</loc></url><url><loc>/a</loc></url></urlset>`, pages("/a", "/a")},
		{"but not of extensions", `<urlset xmlns:image="i"><url><image:image><image:loc>/i.png</image:loc></image:image><loc>/a</loc><image:x><loc>/j</loc></image:x></url></urlset>`, pages("/a")},
		{"but not elsewhere", `<urlset><loc>/a</loc><sitemap><loc>/b</loc></sitemap><x><loc>/c</loc></x><url><x><loc>/d</loc></x></url></urlset>`, nil},
		{"but not without text", `<urlset><url><loc/></url><url><loc> </loc></url><url/></urlset>`, nil},
		{"in plain ASCII", `<?xml version="1.0" encoding="US-ASCII"?><urlset><url><loc>/a</loc></url></urlset>`, pages("/a")},
		{"or none", `<urlset/>`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := entries(t, strings.NewReader(test.text))
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
			got, err = entries(t, iotest.OneByteReader(strings.NewReader(test.text)))
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("byte by byte: got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestAMalformedSitemapNamesTheLine(t *testing.T) {
	const first = "<urlset>\n<url><loc>/a</loc></url>\n"
	for _, test := range []struct {
		name, text, want string
		before           []discover.Entry
	}{
		{"nothing", "", "malformed sitemap: line 1: there is neither <urlset> nor <sitemapindex>", nil},
		{"only text", "http://example.com/\nhttp://example.com/a\n", "malformed sitemap: line 3: there is neither <urlset> nor <sitemapindex>", nil},
		{"a page", "<!DOCTYPE html>\n<html></html>", "malformed sitemap: line 2: <html> is neither <urlset> nor <sitemapindex>", nil},
		{"cut off", first + "<url><loc>/b</lo", "malformed sitemap: line 3: unexpected EOF", pages("/a")},
		{"not closed", first, "malformed sitemap: line 3: unexpected EOF", pages("/a")},
		{"badly nested", first + "<url><loc>/b</url></loc></urlset>", "malformed sitemap: line 3: element <loc> closed by </url>", pages("/a")},
		{"a bare ampersand", first + "\n<url><loc>/b?x&y</loc></url></urlset>", "malformed sitemap: line 4: invalid character entity &y (no semicolon)", pages("/a")},
		{"an entity of a document type", "<!DOCTYPE urlset [<!ENTITY x \"/b\">\n]>\n" + first + "<url><loc>&x;</loc></url></urlset>", "malformed sitemap: line 5: invalid character entity &x;", pages("/a")},
		{"something behind the end", first + "</urlset>\n<urlset></urlset>", "malformed sitemap: line 4: <urlset> behind the end", pages("/a")},
		{"another encoding", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<urlset/>", `malformed sitemap: line 1: xml: opening charset "ISO-8859-1": a sitemap is in UTF-8`, nil},
		{"no UTF-8", first + "<url><loc>/\xff</loc></url></urlset>", "malformed sitemap: line 3: invalid UTF-8", pages("/a")},
	} {
		for form, text := range map[string]string{"plain": test.text, "compressed": compressed(t, test.text)} {
			t.Run(test.name+", "+form, func(t *testing.T) {
				got, err := entries(t, strings.NewReader(text))
				if !errors.Is(err, discover.ErrMalformed) || err.Error() != test.want || !slices.Equal(got, test.before) {
					t.Errorf("got %v, %v; want %v, %s", got, err, test.before, test.want)
				}
			})
		}
	}
}

func TestReadErrorsOfASitemapAreNotItsFault(t *testing.T) {
	broken := errors.New("connection reset")
	for _, length := range []int{0, 1, 2, 100, len(ofTheProtocol)} {
		_, err := entries(t, io.MultiReader(strings.NewReader(ofTheProtocol[:length]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, discover.ErrMalformed) {
			t.Errorf("after %d bytes: %v", length, err)
		}
	}
	text := compressed(t, ofTheProtocol)
	for length := 2; length < len(text); length++ {
		if _, err := entries(t, strings.NewReader(text[:length])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d compressed bytes: %v", length, err)
		}
	}
	damaged := []byte(text)
	damaged[len(damaged)-8]++ // in the checksum
	if list, err := entries(t, bytes.NewReader(damaged)); !errors.Is(err, gzip.ErrChecksum) || len(list) != 2 {
		t.Errorf("with a wrong checksum: %v, %v", list, err)
	}
}

func TestASitemapOfTooManyLocations(t *testing.T) {
	const entry = "<url><loc>/a</loc></url>\n"
	text := "<urlset>" + strings.Repeat(entry, discover.MaxLocations)
	got, err := entries(t, strings.NewReader(text+"</urlset>"))
	if err != nil || len(got) != discover.MaxLocations {
		t.Errorf("as many as may be: %d, %v", len(got), err)
	}
	got, err = entries(t, strings.NewReader(text+entry+"</urlset>"))
	if !errors.Is(err, discover.ErrTooLarge) || len(got) != discover.MaxLocations || err.Error() != "sitemap too large: line 50001: more than 50000 locations" {
		t.Errorf("one more: %d, %v", len(got), err)
	}
}

func TestASitemapOfTooManyBytes(t *testing.T) {
	text := "\uFEFF" + ofTheProtocol
	for form, text := range map[string]string{"plain": text, "compressed": compressed(t, text)} {
		limit := len("\uFEFF" + ofTheProtocol)
		if got, err := collect(t, discover.SitemapWithin(strings.NewReader(text), limit)); err != nil || len(got) != 2 {
			t.Errorf("%s, as many as may be: %v, %v", form, got, err)
		}
		got, err := collect(t, discover.SitemapWithin(strings.NewReader(text), limit-1))
		if !errors.Is(err, discover.ErrTooLarge) || len(got) != 2 || err.Error() != fmt.Sprintf("sitemap too large: line 11: more than %d bytes", limit-1) {
			t.Errorf("%s, one more: %v, %v", form, got, err)
		}
	}
	if discover.MaxSitemapBytes != 52_428_800 {
		t.Errorf("the limit of the protocol is not %d", discover.MaxSitemapBytes)
	}
}

func TestASitemapThatWouldNeedMemory(t *testing.T) {
	const first = "<urlset><url><loc>/a</loc></url>\n"
	for _, test := range []struct{ name, text, want string }{
		{"an endless text", first + "<url><loc>" + strings.Repeat("x", 1<<20+1), "sitemap too large: line 2: a tag or text of more than 1048576 bytes"},
		{"an endless tag", first + "<url" + strings.Repeat(" a=''", 1<<20/5), "sitemap too large: line 2: a tag or text of more than 1048576 bytes"},
		{"endless elements", first + strings.Repeat("<url>", 1000), "sitemap too large: line 2: 64 elements within each other"},
	} {
		got, err := entries(t, strings.NewReader(test.text))
		if !errors.Is(err, discover.ErrTooLarge) || err.Error() != test.want || !slices.Equal(got, pages("/a")) {
			t.Errorf("%s: %v, %v; want %s", test.name, got, err, test.want)
		}
	}
}

func TestASitemapIsReadAsFarAsItIsWanted(t *testing.T) {
	r := io.MultiReader(strings.NewReader("<urlset><url><loc>/a</loc></url>"+strings.Repeat(" ", 1<<20)), iotest.ErrReader(errors.New("read too far")))
	for entry, err := range discover.Sitemap(r) {
		if err != nil || entry.Location != "/a" {
			t.Errorf("got %v, %v", entry, err)
		}
		break
	}
}

// FuzzSitemap checks what holds for every location, that compression changes
// nothing, and that a location before the rest is found whatever follows.
func FuzzSitemap(f *testing.F) {
	for _, seed := range []string{
		ofTheProtocol,
		"\uFEFF<sitemapindex><sitemap><loc> a<![CDATA[&]]>b </loc></sitemap>\n</sitemapindex>x",
		"<!DOCTYPE x [<!ENTITY y 'z'>]><urlset><url><loc>&y;",
		"<x:urlset xmlns:x='y'><x:url><i:image><i:loc>a</i:loc></i:image></x:url></x:urlset><urlset/>",
		"\x1f\x8b\x08\x00",
		"</loc>",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := entries(t, strings.NewReader(text))
		for _, entry := range list {
			if entry.Location == "" || strings.TrimSpace(entry.Location) != entry.Location || !utf8.ValidString(entry.Location) {
				t.Fatalf("location %q", entry.Location)
			}
			if entry.Sitemap != list[0].Sitemap {
				t.Fatalf("pages and sitemaps in one: %v", list)
			}
		}
		plain := !strings.HasPrefix(text, "\x1f\x8b")
		if plain && (len(list) > len(text) || len(list) > discover.MaxLocations) {
			t.Fatalf("%d bytes give %d locations", len(text), len(list))
		}
		if plain && err != nil && !errors.Is(err, discover.ErrMalformed) && !errors.Is(err, discover.ErrTooLarge) {
			t.Fatalf("an error of no kind: %v", err)
		}
		if plain {
			again, same := entries(t, strings.NewReader(compressed(t, text)))
			if !slices.Equal(again, list) || (err == nil) != (same == nil) || err != nil && err.Error() != same.Error() {
				t.Fatalf("plain %v, %v, but compressed %v, %v", list, err, again, same)
			}
		}
		first, _ := entries(t, strings.NewReader("<urlset><url><loc>/known</loc></url>"+text))
		if len(first) == 0 || first[0].Location != "/known" {
			t.Fatalf("before %q the first location is lost: %v", text, first)
		}
	})
}

package representation_test

import (
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/representation"
)

func TestEqualAnswersHaveEqualTags(t *testing.T) {
	header := fields("Content-Type", "text/html", "Content-Language", "de", "Link", "</a>")
	want := representation.Tag(200, header, []byte("body"))
	// Written out, because all processes and versions have to agree.
	if want != `"jlE6VG6Wyv+ew/EEkdAVpQ"` {
		t.Errorf("got %s", want)
	}
	if !regexp.MustCompile(`^"[0-9A-Za-z+/]{22}"$`).MatchString(want) {
		t.Errorf("%s is no strong tag", want)
	}
	for name, same := range map[string]http.Header{
		"Cache-Control":  fields("Content-Type", "text/html", "Content-Language", "de", "Link", "</a>", "Cache-Control", "max-age=1"),
		"another tag":    fields("Content-Type", "text/html", "Content-Language", "de", "Link", "</a>", "Etag", `"x"`),
		"what may vary":  fields("Content-Type", "text/html", "Content-Language", "de", "Link", "</a>", "X-Request-Id", "1", "Last-Modified", lastWeek),
		"Content-Length": fields("Content-Type", "text/html", "Content-Language", "de", "Link", "</a>", "Content-Length", "4"),
		"an empty one":   {"Content-Type": {"text/html"}, "Content-Language": {"de"}, "Link": {"</a>"}, "Content-Disposition": {}},
	} {
		if got := representation.Tag(200, same, []byte("body")); got != want {
			t.Errorf("with %s it is another tag", name)
		}
	}
}

func TestDifferentAnswersHaveDifferentTags(t *testing.T) {
	seen := map[string]int{}
	for i, answer := range []struct {
		status int
		header http.Header
		body   string
	}{
		{200, nil, ""}, {203, nil, ""}, {200, nil, "a"},
		{200, fields("Content-Type", "text/html"), "a"}, {200, fields("Content-Type", "text/plain"), "a"}, {200, fields("Content-Type", "text/plaina"), ""},
		{200, fields("Content-Language", "de"), "a"}, {200, fields("Content-Language", "de", "Content-Language", "en"), "a"}, {200, fields("Content-Language", "deen"), "a"},
		{200, fields("Content-Security-Policy", "default-src 'self'"), "a"}, {200, fields("Access-Control-Allow-Origin", "*"), "a"}, {200, fields("Link", "</a>"), "a"},
	} {
		tag := representation.Tag(answer.status, answer.header, []byte(answer.body))
		if other, ok := seen[tag]; ok || tag == "" {
			t.Errorf("answers %d and %d have the tag %s", other, i, tag)
		}
		seen[tag] = i
	}
}

func TestOnlyContentIsTagged(t *testing.T) {
	for _, status := range []int{204, 300, 301, 302, 303, 307, 308} {
		if tag := representation.Tag(status, nil, []byte("body")); tag != "" {
			t.Errorf("%d has the tag %s", status, tag)
		}
	}
}

func TestSuffixesAreTakenOffForTheApplication(t *testing.T) {
	for _, test := range []struct{ value, want string }{
		{`"v--br"`, `"v"`},
		{`W/"v--gzip"`, `W/"v"`},
		{`"a", "v--zstd" ,W/"w--br",*`, `"a", "v" ,W/"w",*`},
		{`"v"`, `"v"`},
		{`"--br"`, `""`},
		{`"v--br--br"`, `"v--br"`},
		{`"v--variant-0123abcd", W/"v--variant-0123abcd--br", "--variant-0123abcd"`, `"v", W/"v", ""`},
		{`"v--variant-0123abc", "v--variant-0123abcg", "v--variant-0123ABCD", "v-variant-0123abcd"`, `"v--variant-0123abc", "v--variant-0123abcg", "v--variant-0123ABCD", "v-variant-0123abcd"`},
		{`"v--deflate", "v--brr", "v-br", "--br--"`, `"v--deflate", "v--brr", "v-br", "--br--"`},
		{`"a,b--br"`, `"a,b"`},
		{`*`, `*`},
		{`v--br`, `v--br`},
		{`"v--br", x "w--br`, `"v", x "w--br`},
		{lastWeek, lastWeek},
		{``, ``},
	} {
		for _, name := range []string{"If-Match", "If-None-Match", "If-Range"} {
			values := []string{test.value, `"x"`}
			original := append([]string(nil), values...)
			header := http.Header{name: values, "If": {`"v--br"`}}
			representation.TakeSuffixes(header)
			if want := (http.Header{name: {test.want, `"x"`}, "If": {`"v--br"`}}); !reflect.DeepEqual(header, want) {
				t.Errorf("%s: %s became %v", name, test.value, header)
			}
			if !reflect.DeepEqual(values, original) {
				t.Errorf("%s: the values were written to: %q", name, values)
			}
		}
	}
	representation.TakeSuffixes(nil)
}

// What a client got as the tag of a coding is the application's own again when it comes back.
func FuzzTakeSuffixes(f *testing.F) {
	f.Add("v", false, uint8(0))
	f.Add("v--br", true, uint8(1))
	f.Add("a,b", false, uint8(2))
	f.Fuzz(func(t *testing.T, opaque string, weak bool, which uint8) {
		tag := `"` + opaque + `"`
		if weak {
			tag = "W/" + tag
		}
		source := codedPage()
		source.Header["Etag"] = []string{tag}
		name := []string{"br", "zstd", "gzip"}[which%3]
		got := ask(source, "GET", fields("Accept-Encoding", name)).Header.Get("Etag")
		if got == "" || strings.Contains(opaque, "--variant-") {
			return // it is no tag, or one that loses its end
		}
		if !strings.HasSuffix(got, "--"+name+`"`) {
			t.Errorf("%s became %s", tag, got)
		}
		header := http.Header{"If-Match": {got + ", " + got}}
		representation.TakeSuffixes(header)
		if want := tag + ", " + tag; header["If-Match"][0] != want {
			t.Errorf("%s came back as %s", want, header["If-Match"][0])
		}
	})
}

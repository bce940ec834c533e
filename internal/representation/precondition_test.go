package representation_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/itscales/scales/internal/representation"
)

const (
	weekBefore = "Tue, 10 Nov 2020 10:00:00 GMT"
	weekAfter  = "Tue, 24 Nov 2020 10:00:00 GMT"
)

func TestPreconditions(t *testing.T) { // RFC 9110 §13
	strong := page()
	strong.Header["Last-Modified"] = []string{lastWeek}
	weak := page()
	weak.Header["Etag"] = []string{`W/"v"`}
	dated := page()
	dated.Header = fields("Content-Type", "a/b", "Last-Modified", lastWeek)
	bare := page()
	bare.Header = fields("Content-Type", "a/b")
	for _, test := range []struct {
		name    string
		source  representation.Source
		request http.Header
		want    int
	}{
		// §13.1.1
		{"If-Match: it is the one", strong, fields("If-Match", `"v"`), 200},
		{"If-Match: it is another", strong, fields("If-Match", `"w"`), 412},
		{"If-Match: one of several", strong, fields("If-Match", `"a,b", W/"c" , "v"`), 200},
		{"If-Match: in a second field", strong, fields("If-Match", `"a"`, "If-Match", `"v"`), 200},
		{"If-Match: any", strong, fields("If-Match", "*"), 200},
		{"If-Match: any, without a tag", bare, fields("If-Match", "*"), 200},
		{"If-Match: without a tag", bare, fields("If-Match", `"v"`), 412},
		{"If-Match: a weak tag never matches", weak, fields("If-Match", `W/"v"`), 412},
		{"If-Match: nor does a strong one a weak one", weak, fields("If-Match", `"v"`), 412},
		{"If-Match: nor does a weak one a strong one", strong, fields("If-Match", `W/"v"`), 412},
		{"If-Match: malformed", strong, fields("If-Match", `v, "v"`), 412},
		{"If-Match: empty is none", strong, fields("If-Match", ""), 200},

		// §13.1.4
		{"If-Unmodified-Since: the same date", strong, fields("If-Unmodified-Since", lastWeek), 200},
		{"If-Unmodified-Since: later", strong, fields("If-Unmodified-Since", weekAfter), 200},
		{"If-Unmodified-Since: earlier", strong, fields("If-Unmodified-Since", weekBefore), 412},
		{"If-Unmodified-Since: no date", strong, fields("If-Unmodified-Since", "yesterday"), 200},
		{"If-Unmodified-Since: two dates", strong, fields("If-Unmodified-Since", weekBefore, "If-Unmodified-Since", weekBefore), 200},
		{"If-Unmodified-Since: without Last-Modified", bare, fields("If-Unmodified-Since", weekBefore), 200},
		{"If-Unmodified-Since: obsolete forms", strong, fields("If-Unmodified-Since", "Tuesday, 10-Nov-20 10:00:00 GMT"), 412},

		// §13.1.2
		{"If-None-Match: it is the one", strong, fields("If-None-Match", `"v"`), 304},
		{"If-None-Match: it is another", strong, fields("If-None-Match", `"w"`), 200},
		{"If-None-Match: one of several", strong, fields("If-None-Match", `"a", "v"`), 304},
		{"If-None-Match: in a second field", strong, fields("If-None-Match", `"a"`, "If-None-Match", `"v"`), 304},
		{"If-None-Match: weakly", strong, fields("If-None-Match", `W/"v"`), 304},
		{"If-None-Match: a weak one", weak, fields("If-None-Match", `"v"`), 304},
		{"If-None-Match: any", bare, fields("If-None-Match", "*"), 304},
		{"If-None-Match: without a tag", bare, fields("If-None-Match", `""`), 200},
		{"If-None-Match: malformed", strong, fields("If-None-Match", `v`), 200},
		{"If-None-Match: cut off", strong, fields("If-None-Match", `"v`), 200},
		{"If-None-Match: with commas and tags inside", strong, fields("If-None-Match", `"a,\", "v"`), 304},

		// §13.1.3
		{"If-Modified-Since: the same date", strong, fields("If-Modified-Since", lastWeek), 304},
		{"If-Modified-Since: later", dated, fields("If-Modified-Since", weekAfter), 304},
		{"If-Modified-Since: earlier", dated, fields("If-Modified-Since", weekBefore), 200},
		{"If-Modified-Since: no date", dated, fields("If-Modified-Since", "0"), 200},
		{"If-Modified-Since: two dates", dated, fields("If-Modified-Since", lastWeek, "If-Modified-Since", lastWeek), 200},
		{"If-Modified-Since: without Last-Modified", bare, fields("If-Modified-Since", weekAfter), 200},
		{"If-Modified-Since: asctime", dated, fields("If-Modified-Since", "Tue Nov 17 10:00:00 2020"), 304},

		// §13.2.2
		{"If-Match before If-Unmodified-Since", strong, fields("If-Match", `"v"`, "If-Unmodified-Since", weekBefore), 200},
		{"If-Match before If-None-Match", strong, fields("If-Match", `"w"`, "If-None-Match", `"v"`), 412},
		{"If-Match, then If-None-Match", strong, fields("If-Match", `"v"`, "If-None-Match", `"v"`), 304},
		{"If-Unmodified-Since before If-None-Match", strong, fields("If-Unmodified-Since", weekBefore, "If-None-Match", `"v"`), 412},
		{"If-None-Match before If-Modified-Since", strong, fields("If-None-Match", `"w"`, "If-Modified-Since", lastWeek), 200},
		{"preconditions before Range", strong, fields("If-None-Match", `"v"`, "Range", "bytes=0-1"), 304},
		{"a failed one before Range", strong, fields("If-Match", `"w"`, "Range", "bytes=100-"), 412},
		{"then Range", strong, fields("If-None-Match", `"w"`, "Range", "bytes=0-1"), 206},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD"} {
				want := test.want
				if method == "HEAD" && want == 206 {
					want = 200
				}
				answer := ask(test.source, method, test.request.Clone())
				if answer.StatusCode != want {
					t.Errorf("%s got %d, want %d", method, answer.StatusCode, want)
				}
				if body := bodyOf(t, answer); body != "" && (method == "HEAD" || want == 304) {
					t.Errorf("%s got a body: %q", method, body)
				}
			}
		})
	}
}

// The other statuses come before preconditions (RFC 9110 §13.2.1).
func TestOnlySuccessIsConditional(t *testing.T) {
	for status, want := range map[int]int{200: 304, 203: 304, 204: 304, 300: 300, 301: 301, 302: 302, 303: 303, 307: 307, 308: 308} {
		source := representation.Source{Status: status, Header: fields("Etag", `"v"`, "Location", "/a", "Last-Modified", lastWeek)}
		for _, request := range []http.Header{fields("If-None-Match", `"v"`), fields("If-Modified-Since", lastWeek)} {
			if answer := ask(source, "GET", request); answer.StatusCode != want {
				t.Errorf("%d for %v: got %d, want %d", status, request, answer.StatusCode, want)
			}
		}
		if answer := ask(source, "GET", fields("If-Match", `"w"`)); status > 299 && answer.StatusCode != status {
			t.Errorf("%d became %d", status, answer.StatusCode)
		}
	}
}

func TestPreconditionsAreAboutTheSelectedCoding(t *testing.T) { // RFC 9110 §8.8.3.3, §13.2
	for _, test := range []struct {
		accept, name, value string
		want                int
	}{
		{"br", "If-None-Match", `"v--br"`, 304},
		{"br", "If-None-Match", `W/"v--br"`, 304},
		{"br", "If-None-Match", `"v"`, 200},
		{"br", "If-None-Match", `"v", "v--br"`, 304},
		{"gzip", "If-None-Match", `"v--br"`, 200},
		{"", "If-None-Match", `"v--br"`, 200},
		{"br", "If-Match", `"v--br"`, 200},
		{"br", "If-Match", `"v"`, 412},
	} {
		answer := ask(codedPage(), "GET", fields("Accept-Encoding", test.accept, test.name, test.value))
		if answer.StatusCode != test.want {
			t.Errorf("%s with %s: %s got %d, want %d", test.accept, test.name, test.value, answer.StatusCode, test.want)
		}
		if answer.StatusCode == 304 && answer.Header.Get("Etag") != `"v--br"` {
			t.Errorf("the 304 has %v", answer.Header)
		}
	}
}

func TestNotModifiedHasOnlyTheFieldsThatItMustHave(t *testing.T) { // RFC 9110 §15.4.5
	source := codedPage()
	for name, value := range map[string]string{"Expires": weekAfter, "Content-Location": "/a", "Last-Modified": lastWeek, "Link": "</a>", "Content-Language": "de", "X-A": "b"} {
		source.Header.Set(name, value)
	}
	want := http.Header{
		"Cache-Control": {"no-cache"}, "Content-Location": {"/a"}, "Etag": {`"v--gzip"`}, "Expires": {weekAfter}, "Vary": {"Accept-Encoding"},
		"Cache-Status": {"scales; hit"},
	}
	for _, method := range []string{"GET", "HEAD"} {
		answer := ask(source, method, fields("If-None-Match", "*", "Accept-Encoding", "gzip"))
		if !reflect.DeepEqual(answer.Header, want) {
			t.Errorf("%s got %v, want %v", method, answer.Header, want)
		}
	}

	source = representation.Source{Status: 200, Header: fields("Content-Type", "a/b", "Last-Modified", lastWeek), Body: []byte("a")}
	want = http.Header{"Cache-Control": {"no-cache"}, "Last-Modified": {lastWeek}, "Cache-Status": {"scales; hit"}}
	if answer := ask(source, "GET", fields("If-Modified-Since", lastWeek)); !reflect.DeepEqual(answer.Header, want) {
		t.Errorf("without a tag: got %v, want %v", answer.Header, want)
	}
}

func TestAFailedPreconditionIsAProblem(t *testing.T) { // RFC 9110 §15.5.13, RFC 9457
	for _, method := range []string{"GET", "HEAD"} {
		answer := ask(page(), method, fields("If-Match", `"w"`))
		if answer.StatusCode != 412 || answer.Header.Get("Content-Type") != "application/problem+json" || answer.Header.Get("Cache-Control") != "no-store" ||
			answer.Header["Etag"] != nil || answer.Header["Cache-Groups"] != nil {
			t.Errorf("%s got %d %v", method, answer.StatusCode, answer.Header)
		}
	}
}

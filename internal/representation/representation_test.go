package representation_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/representation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lastWeek = "Tue, 17 Nov 2020 10:00:00 GMT"

// page is an entry as applications have it.
func page() representation.Source {
	return representation.Source{
		Status: 200,
		Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}, "Etag": {`"v"`}, "Cache-Groups": {`"tracks", "track-7"`}},
		Body:   []byte("0123456789"),
	}
}

// codedPage is one with codings, whose bodies are just names.
func codedPage() representation.Source {
	source := page()
	source.Codings = []coding.Coding{{Name: "gzip", Body: []byte("gzipgzi")}, {Name: "zstd", Body: []byte("zstdz")}, {Name: "br", Body: []byte("brb")}}
	return source
}

// fields makes a header of names and values in turn.
func fields(pairs ...string) http.Header {
	header := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		header.Add(pairs[i], pairs[i+1])
	}
	return header
}

// ask serves one request.
func ask(source representation.Source, method string, request http.Header) *http.Response {
	return askAfter(source, method, request, nil)
}

// askAfter serves one request after middleware that has set a header.
func askAfter(source representation.Source, method string, request, middleware http.Header) *http.Response {
	recorder := httptest.NewRecorder()
	maps.Copy(recorder.Header(), middleware)
	req := httptest.NewRequest(method, "/", nil)
	req.Header = request
	representation.New(source).Serve(recorder, req, representation.Hit)
	return recorder.Result()
}

func bodyOf(t testing.TB, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestAHitHasTheStoredFieldsAndThoseOfTheServer(t *testing.T) {
	for _, test := range []struct {
		name   string
		source representation.Source
		want   http.Header
	}{
		{"a page", page(), http.Header{
			"Content-Type": {"text/html; charset=utf-8"}, "Etag": {`"v"`}, "Cache-Groups": {`"tracks", "track-7"`}, "Cache-Control": {"no-cache"},
			"Content-Length": {"10"}, "Accept-Ranges": {"bytes"}, "Cache-Status": {"scales; hit"}}},
		{"with everything", representation.Source{Status: 200, Body: []byte("a"), Header: http.Header{
			"Content-Type": {"text/plain"}, "Cache-Control": {"max-age=60", "public"}, "Last-Modified": {lastWeek}, "Expires": {lastWeek},
			"Content-Location": {"/a"}, "Vary": {"accept-encoding"}, "Link": {"</a>", "</b>"}, "Content-Language": {"de"}, "X-A": {""}}},
			http.Header{
				"Content-Type": {"text/plain"}, "Cache-Control": {"max-age=60", "public"}, "Last-Modified": {lastWeek}, "Expires": {lastWeek},
				"Content-Location": {"/a"}, "Vary": {"accept-encoding"}, "Link": {"</a>", "</b>"}, "Content-Language": {"de"}, "X-A": {""},
				"Content-Length": {"1"}, "Accept-Ranges": {"bytes"}, "Cache-Status": {"scales; hit"}}},
		{"without a type nobody guesses one", representation.Source{Status: 200, Body: []byte("<html>")},
			http.Header{"Content-Type": nil, "Cache-Control": {"no-cache"}, "Content-Length": {"6"}, "Accept-Ranges": {"bytes"}, "Cache-Status": {"scales; hit"}}},
		{"an empty 200 says so", representation.Source{Status: 200, Header: fields("Content-Type", "text/css")},
			http.Header{"Content-Type": {"text/css"}, "Cache-Control": {"no-cache"}, "Content-Length": {"0"}, "Accept-Ranges": {"bytes"}, "Cache-Status": {"scales; hit"}}},
		{"a 203", representation.Source{Status: 203, Header: fields("Content-Type", "text/css", "Etag", `W/"v"`), Body: []byte("a")},
			http.Header{"Content-Type": {"text/css"}, "Etag": {`W/"v"`}, "Cache-Control": {"no-cache"}, "Content-Length": {"1"}, "Cache-Status": {"scales; hit"}}},
		{"a 204 has no length", representation.Source{Status: 204, Header: fields("X-A", "b")},
			http.Header{"Content-Type": nil, "X-A": {"b"}, "Cache-Control": {"no-cache"}, "Cache-Status": {"scales; hit"}}},
		{"a redirect", representation.Source{Status: 301, Header: fields("Location", "/b", "Cache-Control", "max-age=1")},
			http.Header{"Content-Type": nil, "Location": {"/b"}, "Cache-Control": {"max-age=1"}, "Content-Length": {"0"}, "Cache-Status": {"scales; hit"}}},
		{"what is the server's to say is not stored", representation.Source{Status: 200, Body: []byte("a"), Header: fields("Content-Type", "a/b",
			"Content-Length", "7", "Date", lastWeek, "Age", "3", "Content-Encoding", "gzip", "Cache-Status", "x", "Accept-Ranges", "none", "Etag", "unquoted")},
			http.Header{"Content-Type": {"a/b"}, "Cache-Control": {"no-cache"}, "Content-Length": {"1"}, "Accept-Ranges": {"bytes"}, "Cache-Status": {"scales; hit"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			get, head := ask(test.source, "GET", nil), ask(test.source, "HEAD", nil)
			if get.StatusCode != test.source.Status || !reflect.DeepEqual(get.Header, test.want) {
				t.Errorf("got %d %v, want %d %v", get.StatusCode, get.Header, test.source.Status, test.want)
			}
			if body := bodyOf(t, get); body != string(test.source.Body) {
				t.Errorf("got %q", body)
			}
			if head.StatusCode != get.StatusCode || !reflect.DeepEqual(head.Header, get.Header) || bodyOf(t, head) != "" {
				t.Errorf("HEAD got %d %v", head.StatusCode, head.Header)
			}
		})
	}
}

func TestNotesTellOneHitFromAnother(t *testing.T) { // RFC 9211 §2
	r := representation.New(page())
	for note, want := range map[representation.Note]string{
		representation.Hit: "scales; hit", representation.StoreUnreachable: "scales; hit; detail=store-unreachable", 99: "scales; hit",
	} {
		for _, request := range []http.Header{{}, fields("If-None-Match", `"v"`), fields("Range", "bytes=0-1"), fields("Range", "bytes=0-1,3-4")} {
			recorder := httptest.NewRecorder()
			r.Serve(recorder, &http.Request{Method: "GET", Header: request}, note)
			if got := recorder.Header()["Cache-Status"]; !slices.Equal(got, []string{want}) {
				t.Errorf("%d for %v: got %q, want %q", note, request, got, want)
			}
		}
	}
}

func TestMiddlewareAndEntriesMayHaveTheSameFields(t *testing.T) {
	source := codedPage()
	source.Header["Link"] = []string{"</b>"}
	middleware := http.Header{
		"Vary": {"Origin, accept-encoding"}, "Link": {"</a>"}, "Cache-Status": {"front; fwd=miss"}, "Cache-Control": {"no-store"},
		"Content-Type": {"a/b"}, "X-A": {"kept"}, "Etag": {`"other"`},
	}
	answer := askAfter(source, "GET", fields("Accept-Encoding", "br"), middleware.Clone())
	want := http.Header{
		"Vary": {"Origin, accept-encoding"}, "Link": {"</a>", "</b>"}, "Cache-Status": {"scales; hit", "front; fwd=miss"}, "Cache-Control": {"no-cache"},
		"Content-Type": {"text/html; charset=utf-8"}, "X-A": {"kept"}, "Etag": {`"v--br"`}, "Content-Encoding": {"br"}, "Content-Length": {"3"},
		"Cache-Groups": {`"tracks", "track-7"`}, "Accept-Ranges": {"bytes"},
	}
	if !reflect.DeepEqual(answer.Header, want) {
		t.Errorf("got %v, want %v", answer.Header, want)
	}

	answer = askAfter(source, "GET", fields("If-None-Match", `"v"`), middleware.Clone())
	want = http.Header{
		"Vary": {"Origin, accept-encoding"}, "Link": {"</a>"}, "Cache-Status": {"scales; hit", "front; fwd=miss"}, "Cache-Control": {"no-cache"},
		"X-A": {"kept"}, "Etag": {`"v"`},
	}
	if answer.StatusCode != 304 || !reflect.DeepEqual(answer.Header, want) {
		t.Errorf("got %d %v, want 304 %v", answer.StatusCode, answer.Header, want)
	}

	if answer = askAfter(representation.Source{Status: 200}, "GET", nil, fields("Content-Type", "a/b")); answer.Header.Get("Content-Type") != "a/b" {
		t.Errorf("the type of middleware became %q", answer.Header["Content-Type"])
	}
}

// The values in a header of an answer are those of all answers, so appending must copy them.
func TestWhatIsAddedToAnAnswerReachesNoOther(t *testing.T) {
	source := codedPage()
	source.Header["Link"] = []string{"</a>", "</b>"}
	r := representation.New(source)
	serve := func(request http.Header) http.Header {
		recorder := httptest.NewRecorder()
		r.Serve(recorder, &http.Request{Method: "GET", Header: request}, representation.Hit)
		return recorder.Header()
	}
	for _, request := range []http.Header{nil, fields("Accept-Encoding", "gzip"), fields("If-None-Match", `"v"`)} {
		first := serve(request)
		want := first.Clone()
		for name := range first {
			first.Add(name, "added")
		}
		if got := serve(request); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestTheSourceMayChangeAfterwards(t *testing.T) {
	text := []byte(`text/html</b>"v"v`)
	part := func(from, to int) string { return string(text[from:to]) }
	header := http.Header{"Content-Type": {part(0, 9)}, "Link": {part(9, 13)}, "Etag": {part(13, 16)}}
	r := representation.New(representation.Source{Status: 200, Header: header})
	for name, values := range header {
		values[0] = "overwritten"
		delete(header, name)
	}
	recorder := httptest.NewRecorder()
	r.Serve(recorder, &http.Request{Method: "GET"}, representation.Hit)
	if h := recorder.Header(); h.Get("Content-Type") != "text/html" || h.Get("Link") != "</b>" || h.Get("Etag") != `"v"` {
		t.Errorf("got %v", h)
	}
}

func TestManyRequestsAreServedAtOnce(t *testing.T) {
	r := representation.New(codedPage())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 200 {
				name := []string{"br", "zstd", "gzip", ""}[i%4]
				recorder := httptest.NewRecorder()
				r.Serve(recorder, &http.Request{Method: "GET", Header: fields("Accept-Encoding", name)}, representation.Hit)
				if got := recorder.Header().Get("Content-Encoding"); got != name {
					t.Errorf("got %q, want %q", got, name)
				}
				recorder.Header().Add("Vary", "Cookie")
				representation.New(page())
			}
		})
	}
	group.Wait()
}

func TestSizeCountsWhatIsTheEntrysOwn(t *testing.T) {
	small, large, withCodings := page(), page(), codedPage()
	large.Body = make([]byte, 5000)
	large.Header["Link"] = []string{strings.Repeat("x", 1000)}
	base := representation.New(small).Size()
	if base < len(small.Body)+len(`"v""tracks", "track-7"`) || base > 150 {
		t.Errorf("a small page has %d bytes", base)
	}
	if more := representation.New(large).Size() - base; more < 5990 || more > 6100 {
		t.Errorf("a body of 5000 and a field of 1000 bytes count %d", more)
	}
	if more := representation.New(withCodings).Size() - base; more < 15 || more > 400 {
		t.Errorf("codings of 15 bytes count %d", more)
	}
}

// What recorders can't show: what net/http makes of the answer.
func TestThroughARealServer(t *testing.T) {
	sources := map[string]representation.Source{"/page": codedPage(), "/untyped": {Status: 200, Body: []byte("<html>")}, "/empty": {Status: 200}, "/none": {Status: 204}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		representation.New(sources[r.URL.Path]).Serve(w, r, representation.Hit)
	}))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	for _, test := range []struct {
		path          string
		request       http.Header
		status        int
		length        int64
		contentType   string
		contentLength string
	}{
		{"/page", nil, 200, 10, "text/html; charset=utf-8", "10"},
		{"/page", fields("Accept-Encoding", "gzip"), 200, 7, "text/html; charset=utf-8", "7"},
		{"/page", fields("If-None-Match", `"v"`), 304, 0, "", ""},
		{"/page", fields("If-Match", `"w"`), 412, -1, "application/problem+json", "any"},
		{"/untyped", nil, 200, 6, "", "6"},
		{"/empty", nil, 200, 0, "", "0"},
		{"/none", nil, 204, 0, "", ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			req, err := http.NewRequest(method, server.URL+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(req.Header, test.request)
			answer, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body := bodyOf(t, answer)
			answer.Body.Close()
			if answer.StatusCode != test.status || answer.Header.Get("Content-Type") != test.contentType || answer.Header.Get("Date") == "" {
				t.Errorf("%s %s: got %d %v", method, test.path, answer.StatusCode, answer.Header)
			}
			if got := answer.Header.Get("Content-Length"); test.contentLength != "any" && got != test.contentLength {
				t.Errorf("%s %s: Content-Length is %q, want %q", method, test.path, got, test.contentLength)
			}
			switch {
			case method == "HEAD" && body != "", method == "GET" && test.length >= 0 && int64(len(body)) != test.length,
				method == "GET" && answer.Header.Get("Content-Length") != "" && answer.Header.Get("Content-Length") != strconv.Itoa(len(body)):
				t.Errorf("%s %s has %d bytes: %v", method, test.path, len(body), answer.Header)
			}
		}
	}
}

func TestBodiesAreNotCopied(t *testing.T) {
	source := page()
	r := representation.New(source)
	w := &writer{header: http.Header{}}
	r.Serve(w, &http.Request{Method: "GET"}, representation.Hit)
	if !bytes.Equal(w.written, source.Body) || &w.written[0] != &source.Body[0] {
		t.Error("the body that was written is another one")
	}
}

func TestDigestsGoWithWhatTheyAreOfOnly(t *testing.T) { // RFC 9530 §2, §3
	source := codedPage()
	all := []string{"Content-Digest", "Content-Md5", "Repr-Digest", "Digest"}
	for _, name := range all {
		source.Header.Set(name, "x")
	}
	for _, test := range []struct {
		request http.Header
		want    []string
	}{
		{nil, all},
		{fields("Accept-Encoding", "br"), nil},
		{fields("Range", "bytes=0-1"), []string{"Repr-Digest", "Digest"}},
		{fields("Range", "bytes=0-1,3-4"), []string{"Repr-Digest", "Digest"}},
		{fields("Range", "bytes=0-1", "Accept-Encoding", "br"), nil},
	} {
		answer := ask(source, "GET", test.request)
		for _, name := range all {
			if got := answer.Header.Get(name) != ""; got != slices.Contains(test.want, name) {
				t.Errorf("%v: %s is there: %v", test.request, name, got)
			}
		}
	}
}

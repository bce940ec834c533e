package representation_test

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"testing"

	"github.com/itscales/scales/internal/representation"
)

// writer is a ResponseWriter that costs nothing.
type writer struct {
	header  http.Header
	status  int
	written []byte
}

func (w *writer) Header() http.Header    { return w.header }
func (w *writer) WriteHeader(status int) { w.status = status }
func (w *writer) Write(p []byte) (int, error) {
	w.written = p
	return len(p), nil
}

// situations are those that must cost as little as can be.
var situations = []struct {
	name   string
	source representation.Source
	method string
	header http.Header
	status int
}{
	{"hit", page(), "GET", browser(), 200},
	{"hit-br", codedPage(), "GET", browser("Accept-Encoding", "gzip, deflate, br, zstd"), 200},
	{"hit-identity", codedPage(), "GET", browser("Accept-Encoding", "identity"), 200},
	{"head", page(), "HEAD", browser(), 200},
	{"304", page(), "GET", browser("If-None-Match", `"v"`), 304},
	{"304-br", codedPage(), "GET", browser("If-None-Match", `"v--br"`, "Accept-Encoding", "gzip, deflate, br, zstd"), 304},
	{"304-date", datedPage(), "GET", browser("If-Modified-Since", lastWeek), 304},
	{"redirect", representation.Source{Status: 301, Header: fields("Location", "/")}, "GET", browser(), 301},
}

// browser returns a request header as large as that of a browser.
func browser(pairs ...string) http.Header {
	header := fields("Accept", "text/html,*/*;q=0.8", "Accept-Language", "en", "User-Agent", "Mozilla/5.0", "Cookie", "a=b",
		"Connection", "keep-alive", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-origin", "Referer", "http://localhost/")
	for name, values := range fields(pairs...) {
		header[name] = values
	}
	return header
}

func datedPage() representation.Source {
	source := page()
	source.Header["Last-Modified"] = []string{lastWeek}
	return source
}

func TestHitsDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	for _, situation := range situations {
		r := representation.New(situation.source)
		w := &writer{header: make(http.Header, 16)}
		request := &http.Request{Method: situation.method, Header: situation.header}
		n := testing.AllocsPerRun(100, func() {
			clear(w.header)
			r.Serve(w, request, representation.Hit)
		})
		if n != 0 || w.status != situation.status {
			t.Errorf("%s: %v allocations for a %d", situation.name, n, w.status)
		}
	}
}

// Nearly all of the time goes into the assignments to the map.
func BenchmarkServe(b *testing.B) {
	for _, situation := range situations {
		b.Run(situation.name, func(b *testing.B) {
			r := representation.New(situation.source)
			w := &writer{header: make(http.Header, 8)}
			request := &http.Request{Method: situation.method, Header: situation.header}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				r.Serve(w, request, representation.Hit)
			}
		})
	}
}

// As net/http has it: with a header that is made for the answer, compared with what such a header alone costs.
func BenchmarkFreshHeader(b *testing.B) {
	r := representation.New(page())
	w := &writer{header: http.Header{}}
	request := &http.Request{Method: "GET", Header: browser()}
	r.Serve(w, request, representation.Hit)
	names := slices.Collect(maps.Keys(w.header))
	b.Run("served", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.header = make(http.Header)
			r.Serve(w, request, representation.Hit)
		}
	})
	b.Run("alone", func(b *testing.B) {
		values := []string{""}
		b.ReportAllocs()
		for b.Loop() {
			w.header = make(http.Header)
			for _, name := range names {
				w.header[name] = values
			}
		}
	})
}

func BenchmarkNew(b *testing.B) {
	source := page()
	b.ReportAllocs()
	for b.Loop() {
		representation.New(source)
	}
}

// It only logs: how much memory an entry takes beyond its body and the text of its header.
func TestMemoryOfEntries(t *testing.T) {
	const count = 100_000
	body := make([]byte, 10)
	entries := make([]*representation.Representation, count)
	text := 0
	measure := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := measure()
	size := 0
	for i := range entries {
		header := http.Header{"Content-Type": {"text/html; charset=utf-8"}, "Etag": {fmt.Sprintf(`"%022d"`, i)}, "Cache-Groups": {fmt.Sprintf(`"tracks", "track-%d"`, i)}}
		entries[i] = representation.New(representation.Source{Status: 200, Header: header, Body: body})
		size += entries[i].Size() - len(body)
		for name, values := range header {
			text += len(name) + len(values[0])
		}
	}
	taken := int(measure()-before) / count
	t.Logf("an entry takes %d bytes without its body; the text of its header has %d; Size says %d", taken, text/count, size/count)
	runtime.KeepAlive(entries)
}

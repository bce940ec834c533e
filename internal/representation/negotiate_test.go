package representation_test

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/representation"
)

func TestTheCodingIsNegotiated(t *testing.T) { // RFC 9110 §12.5.3
	for _, test := range []struct {
		name   string
		accept []string
		want   string // "" is the identity
	}{
		{"no field", nil, ""},
		{"an empty field", []string{""}, ""},
		{"only one", []string{"gzip"}, "gzip"},
		{"the smallest of equals", []string{"gzip, deflate, br, zstd"}, "br"},
		{"the smallest of equals, in any order", []string{"zstd, gzip"}, "zstd"},
		{"weights before sizes", []string{"br;q=0.5, gzip;q=0.9, zstd;q=0.8"}, "gzip"},
		{"several fields", []string{"gzip;q=0.5", "br;q=0.4", "zstd;q=0.6"}, "zstd"},
		{"any", []string{"*"}, "br"},
		{"any other", []string{"br;q=0.1, *"}, "zstd"},
		{"any but one", []string{"*, br;q=0"}, "zstd"},
		{"none but the identity", []string{"identity"}, ""},
		{"nothing is acceptable", []string{"*;q=0"}, ""},
		{"the identity is not acceptable", []string{"identity;q=0, *"}, "br"},
		{"only unknown ones", []string{"deflate, compress"}, ""},
		{"neither identity nor what there is", []string{"identity;q=0, deflate"}, ""},
		{"excluded", []string{"gzip;q=0"}, ""},
		{"excluded in three decimals", []string{"gzip;q=0.000"}, ""},
		{"hardly acceptable", []string{"gzip;q=0.001"}, "gzip"},
		{"the identity is preferred", []string{"identity;q=1, br;q=0.9"}, ""},
		{"the identity is as good", []string{"identity, gzip"}, "gzip"},
		{"the identity is worse", []string{"identity;q=0.5, gzip;q=0.6"}, "gzip"},
		{"any does not prefer the identity", []string{"gzip;q=0.5, *;q=0"}, "gzip"},
		{"an alias", []string{"x-gzip"}, "gzip"},
		{"any case", []string{"GZip;Q=1"}, "gzip"},
		{"white space", []string{"  \tgzip \t ; \t q=0.5 ,,\t, br ;q=0.4"}, "gzip"},
		{"twice: the higher weight counts", []string{"gzip;q=0.1, br;q=0.5, gzip;q=0.9"}, "gzip"},
		{"malformed members are ignored", []string{"br;q=2, zstd;q=a, gzip"}, "gzip"},
		{"weights that are none", []string{"br;q=1.001, br;q=0.0001, br;q=.5, br;q=, br;q, br;, br;q =1, br;q= 1, br;level=1, br q=1, gzip"}, "gzip"},
		{"no dots behind", []string{"br;q=0., gzip;q=1."}, "gzip"},
		{"a part of a name", []string{"bro, gz, zst, gzipp, b"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := ask(codedPage(), "GET", http.Header{"Accept-Encoding": test.accept})
			if got := answer.Header.Get("Content-Encoding"); got != test.want {
				t.Fatalf("%q got %q, want %q", test.accept, got, test.want)
			}
			body, tag := "0123456789", `"v"`
			if test.want != "" {
				body, tag = map[string]string{"br": "brb", "zstd": "zstdz", "gzip": "gzipgzi"}[test.want], `"v--`+test.want+`"`
			}
			if got := bodyOf(t, answer); got != body || answer.Header.Get("Content-Length") != strconv.Itoa(len(body)) ||
				answer.Header.Get("Etag") != tag || answer.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("got %q with %v", got, answer.Header)
			}
		})
	}
}

func TestWithoutCodingsThereIsNoVary(t *testing.T) {
	answer := ask(page(), "GET", fields("Accept-Encoding", "br"))
	if _, ok := answer.Header["Vary"]; ok || answer.Header.Get("Content-Encoding") != "" {
		t.Errorf("got %v", answer.Header)
	}
}

func TestEveryAnswerOfAnEntryWithCodingsVaries(t *testing.T) { // RFC 9110 §12.5.5
	for _, vary := range []struct {
		stored []string
		want   string
	}{{nil, "Accept-Encoding"}, {[]string{"accept-encoding"}, "accept-encoding"}, {[]string{"Accept-Language"}, "Accept-Language, Accept-Encoding"}, {[]string{"*"}, "*"}} {
		source := codedPage()
		source.Header["Vary"] = vary.stored
		for _, test := range []struct {
			request http.Header
			status  int
		}{
			{nil, 200},
			{fields("Accept-Encoding", "br"), 200},
			{fields("Range", "bytes=0-1"), 206},
			{fields("Range", "bytes=0-1,3-4"), 206},
			{fields("If-None-Match", `"v"`), 304},
			{fields("If-Match", `"w"`), 412},
			{fields("Range", "bytes=10-"), 416},
		} {
			answer := ask(source, "GET", test.request)
			if got := strings.Join(answer.Header["Vary"], ", "); answer.StatusCode != test.status || got != vary.want {
				t.Errorf("%v: got %d with Vary: %s, want %d with %s", test.request, answer.StatusCode, got, test.status, vary.want)
			}
		}
	}
}

func TestEachCodingHasATagOfItsOwn(t *testing.T) { // RFC 9110 §8.8.3.3
	for stored, want := range map[string]string{`"v"`: `"v--gzip"`, `W/"v"`: `W/"v--gzip"`, `""`: `"--gzip"`, "": "", "v": ""} {
		source := codedPage()
		source.Header["Etag"] = []string{stored}
		if got := ask(source, "GET", fields("Accept-Encoding", "gzip")).Header.Get("Etag"); got != want {
			t.Errorf("%s became %s, want %s", stored, got, want)
		}
	}
}

func TestUnknownCodingsAreLeftOut(t *testing.T) {
	source := page()
	source.Codings = []coding.Coding{{Name: "dcb", Body: []byte("x")}}
	answer := ask(source, "GET", fields("Accept-Encoding", "dcb, *"))
	if answer.Header.Get("Content-Encoding") != "" || answer.Header.Get("Vary") != "" || bodyOf(t, answer) != "0123456789" {
		t.Errorf("got %v", answer.Header)
	}
}

var acceptMember = regexp.MustCompile(`^[ \t]*([!#$%&'*+.^_|~0-9A-Za-z-]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*$`)

// slowNegotiate is the obvious way: the stored codings come smallest first.
func slowNegotiate(accept string, stored []string) string {
	weights := map[string]float64{}
	for member := range strings.SplitSeq(accept, ",") {
		match := acceptMember.FindStringSubmatch(member)
		if match == nil {
			continue
		}
		name, q := strings.ToLower(match[1]), 1.0
		if name == "x-gzip" {
			name = "gzip"
		}
		if match[2] != "" {
			q, _ = strconv.ParseFloat(match[2], 64)
		}
		if present, ok := weights[name]; !ok || q > present {
			weights[name] = q
		}
	}
	best, highest := "", 0.0
	for _, name := range stored {
		q, ok := weights[name]
		if !ok {
			q = weights["*"]
		}
		if q > highest {
			best, highest = name, q
		}
	}
	if weights["identity"] > highest {
		return ""
	}
	return best
}

func FuzzNegotiate(f *testing.F) {
	for _, accept := range []string{"gzip, deflate, br, zstd", "*;q=0.5, identity;q=0.7, br;q=0.6", "gzip;q=1.000,br;q=0.999", "x-gzip;q=0, gzip", " , ;q=1, *"} {
		f.Add(accept, "gzip;q=0.3", uint8(7))
	}
	f.Fuzz(func(t *testing.T, first, second string, which uint8) {
		source := page()
		var stored []string
		for i, name := range []string{"br", "zstd", "gzip"} {
			if which&(1<<i) != 0 {
				stored = append(stored, name)
				source.Codings = append(source.Codings, coding.Coding{Name: name, Body: make([]byte, 3+i)})
			}
		}
		w := &writer{header: http.Header{}}
		request := &http.Request{Method: "GET", Header: http.Header{"Accept-Encoding": {first, second}}}
		representation.New(source).Serve(w, request, representation.Hit)
		if got, want := w.header.Get("Content-Encoding"), slowNegotiate(first+","+second, stored); got != want {
			t.Errorf("%q, %q of %q: got %q, want %q", first, second, stored, got, want)
		}
	})
}

package coding_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/itscales/scales/internal/coding"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page returns HTML of about a size, as lists of things are.
func page(size int, seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("a track of the night is what she plays when rain falls on glass and nobody listens to songs from far")
	page := []byte("<!doctype html><html><head><title>Tracks</title></head><body><ul class=\"tracks\">\n")
	for len(page) < size {
		page = fmt.Appendf(page, "<li class=\"track\" id=\"track-%d\"><a href=\"/tracks/%d\">%s %s %s</a> <span class=\"time\">%d:%02d</span></li>\n",
			random.IntN(1e6), random.IntN(1e6), words[random.IntN(len(words))], words[random.IntN(len(words))],
			words[random.IntN(len(words))], random.IntN(9), random.IntN(60))
	}
	return page
}

func noise(size int) []byte {
	random := rand.NewChaCha8([32]byte{7})
	body := make([]byte, size)
	_, _ = random.Read(body)
	return body
}

func all(t testing.TB) *coding.Encoder {
	t.Helper()
	e, err := coding.New(coding.Config{Names: coding.DefaultNames(), Types: []string{"*/*"}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestWhatIsEncodedIsDecodedAgain(t *testing.T) {
	encoder := all(t)
	for _, size := range []int{300, 2 << 10, 16 << 10, 200 << 10, 1<<20 + 1} {
		body := page(size, 1)
		codings := encoder.Encode("text/html", body)
		if len(codings) != 3 {
			t.Fatalf("%d bytes have %d codings", size, len(codings))
		}
		for i, c := range codings {
			if c.Name != coding.DefaultNames()[i] || len(c.Body) >= len(body) || cap(c.Body) > len(c.Body)+len(c.Body)/4+64 {
				t.Errorf("coding %d of %d bytes is %s with %d of %d bytes", i, size, c.Name, len(c.Body), cap(c.Body))
			}
			decoded, err := coding.Decode(c.Name, c.Body, len(body))
			if err != nil || !bytes.Equal(decoded, body) {
				t.Errorf("%s of %d bytes became %d bytes, %v", c.Name, size, len(decoded), err)
			}
		}
	}
}

func TestOnlyWhatPaysIsEncoded(t *testing.T) {
	encoder, err := coding.New(coding.Config{Names: []string{"gzip", "br"}, MinSize: 1000, Types: coding.DefaultTypes()})
	if err != nil {
		t.Fatal(err)
	}
	text := page(4000, 1)
	for _, test := range []struct {
		name, contentType string
		body              []byte
		want              []string
	}{
		{"in the order of the names", "text/html; charset=utf-8", text, []string{"gzip", "br"}},
		{"any case", "TEXT/HTML", text, []string{"gzip", "br"}},
		{"JSON", "application/json", text, []string{"gzip", "br"}},
		{"a suffix", "application/problem+json; q=1", text, []string{"gzip", "br"}},
		{"SVG", "image/svg+xml", text, []string{"gzip", "br"}},
		{"at the least size", "text/html", text[:1000], []string{"gzip", "br"}},
		{"too small", "text/html", text[:999], nil},
		{"incompressible", "text/html", noise(4000), nil},
		{"a photograph", "image/jpeg", text, nil},
		{"a film", "video/mp4", text, nil},
		{"a font", "font/woff2", text, nil},
		{"a font without compression", "font/ttf", text, []string{"gzip", "br"}},
		{"no type", "", text, nil},
		{"half a type", "text", text, nil},
		{"a strange type", "text/", text, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var names []string
			for _, c := range encoder.Encode(test.contentType, test.body) {
				names = append(names, c.Name)
			}
			if !slices.Equal(names, test.want) {
				t.Errorf("got %q, want %q", names, test.want)
			}
		})
	}
}

func TestACodingThatSavesLittleIsLeftOut(t *testing.T) {
	encoder := all(t)
	for _, test := range []struct {
		zeros int // of 10000 bytes, the others are noise
		want  int
	}{{300, 0}, {1200, 3}} {
		body := append(make([]byte, test.zeros), noise(10000-test.zeros)...)
		codings := encoder.Encode("text/plain", body)
		if len(codings) != test.want {
			t.Errorf("with %d zeros there are %d codings, want %d", test.zeros, len(codings), test.want)
		}
		for _, c := range codings {
			if len(c.Body) > 9500 {
				t.Errorf("%s has %d bytes", c.Name, len(c.Body))
			}
		}
	}
}

func TestPatternsOfTypes(t *testing.T) {
	for _, test := range []struct {
		pattern, contentType string
		want                 bool
	}{
		{"text/*", "text/css", true},
		{"text/*", "application/css", false},
		{"Application/JSON", "application/json", true},
		{"application/json", "application/json5", false},
		{"*/*+json", "application/ld+json", true},
		{"*/*+JSON", "model/gltf+json", true},
		{"*/*+json", "application/json", false},
		{"application/*+xml", "image/svg+xml", false},
		{"image/*", "image/svg+xml", true},
		{"image/*", "image/png", false},
		{"image/png", "image/png", true},
		{"*/*", "image/webp", false},
		{"*/*", "audio/mpeg", false},
		{"*/*", "audio/wav", true},
		{"*/*", "font/woff2", false},
		{"*/*", "font/otf", true},
		{"*/*", "application/zip", false},
		{"*/*", "application/epub+zip", false},
		{"*/*", "application/octet-stream", true},
		{"*/zip", "application/zip", false},
	} {
		encoder, err := coding.New(coding.Config{Names: []string{"gzip"}, Types: []string{test.pattern}})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(encoder.Encode(test.contentType, page(2000, 1))) > 0; got != test.want {
			t.Errorf("%s for %s: %v", test.pattern, test.contentType, got)
		}
	}
}

func TestEverythingThatIsWrongIsNamed(t *testing.T) {
	_, err := coding.New(coding.Config{
		Names: []string{"gzip", "deflate", "br", "gzip", "BR"}, MinSize: -1,
		Types: []string{"text/html", "text", "*", "", "te*/html", "text/*html", "*/*+", "text/html; charset=utf-8", "a/b/c"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{`"deflate"`, `"gzip" is there twice`, `"BR"`, "-1", `"text" `, `"*" `, `"" `, `"te*/html"`,
		`"text/*html"`, `"*/*+"`, `"text/html; charset=utf-8"`, `"a/b/c"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: without %s", err, part)
		}
	}
	if strings.Contains(err.Error(), `"text/html" `) {
		t.Errorf("%v: names a pattern that is right", err)
	}
	if _, err := coding.New(coding.Config{}); err != nil {
		t.Errorf("a configuration without anything: %v", err)
	}
}

func TestNothingIsEncodedWithoutNames(t *testing.T) {
	encoder, err := coding.New(coding.Config{Types: []string{"*/*"}})
	if err != nil {
		t.Fatal(err)
	}
	if codings := encoder.Encode("text/html", page(2000, 1)); codings != nil {
		t.Errorf("got %d codings", len(codings))
	}
}

func TestTheDefaultsAreValid(t *testing.T) {
	if _, err := coding.New(coding.Config{Names: coding.DefaultNames(), MinSize: coding.DefaultMinSize, Types: coding.DefaultTypes()}); err != nil {
		t.Error(err)
	}
}

// An encoder that is used again must not let an earlier body show in a later one: the tag of a coding is that of the
// identity with a suffix, so all processes have to make the same bytes. With one pool of brotli writers for bodies of all
// sizes it fails.
func TestCodingsDoNotDependOnWhatWasEncodedBefore(t *testing.T) {
	var bodies [][]byte
	for seed, size := range []int{100, 200, 300, 1 << 10, 2000, 5000, 60_000, 70_000, 130_000, 1<<20 - 100, 1<<20 + 100} {
		bodies = append(bodies, page(size, uint64(seed)))
	}
	bodies = append(bodies, append(noise(1500), page(1500, 9)...), bytes.Repeat([]byte{0}, 100_000))
	encoder := all(t)
	first := make([][]coding.Coding, len(bodies))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		i := random.IntN(len(bodies))
		codings := encoder.Encode("text/plain", bodies[i])
		if first[i] == nil {
			first[i] = codings
			continue
		}
		for k, c := range codings {
			if !bytes.Equal(c.Body, first[i][k].Body) {
				t.Errorf("%s of body %d (%d bytes) became %d bytes, and %d before", c.Name, i, len(bodies[i]), len(c.Body), len(first[i][k].Body))
			}
		}
	}
}

func TestEncodersAreSafeForConcurrentUse(t *testing.T) {
	encoder := all(t)
	want := encoder.Encode("text/html", page(20_000, 1))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				encoder.Encode("text/html", page(3000, 2))
				for k, c := range encoder.Encode("text/html", page(20_000, 1)) {
					if !bytes.Equal(c.Body, want[k].Body) {
						t.Errorf("%s differs", c.Name)
					}
				}
			}
		})
	}
	group.Wait()
}

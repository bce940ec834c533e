package coding_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/itscales/scales/internal/coding"
)

// codedBodies returns a body in all codings.
func codedBodies(t testing.TB, body []byte) []coding.Coding {
	t.Helper()
	codings := all(t).Encode("text/plain", body)
	if len(codings) != 3 {
		t.Fatalf("there are %d codings", len(codings))
	}
	return codings
}

func TestNamesOfCodingsHaveNoCase(t *testing.T) {
	body := page(2000, 1)
	for _, c := range codedBodies(t, body) {
		names := []string{c.Name, strings.ToUpper(c.Name)}
		if c.Name == coding.Gzip {
			names = append(names, "x-gzip", "X-GZip")
		}
		for _, name := range names {
			if decoded, err := coding.Decode(name, c.Body, 1<<20); err != nil || !bytes.Equal(decoded, body) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, name := range []string{"", "identity", "deflate", "compress", "gzip, br", " gzip"} {
		if _, err := coding.Decode(name, nil, 1<<20); !errors.Is(err, coding.ErrUnknown) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDecodedBodiesAreBounded(t *testing.T) {
	const large = 32 << 20
	body := make([]byte, large) // some ten kilobytes in each coding
	for _, c := range codedBodies(t, body) {
		t.Run(c.Name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			decoded, err := coding.Decode(c.Name, c.Body, 1<<20)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, coding.ErrTooLarge) || decoded != nil {
				t.Errorf("%d bytes of %d are %d, %v", len(c.Body), large, len(decoded), err)
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 40<<20 {
				t.Errorf("%d bytes were allocated on the way", allocated)
			}
		})
	}
}

func TestTheLimitIsExact(t *testing.T) {
	body := page(5000, 1)
	for _, c := range codedBodies(t, body) {
		if _, err := coding.Decode(c.Name, c.Body, len(body)); err != nil {
			t.Errorf("%s with the limit: %v", c.Name, err)
		}
		for _, limit := range []int{len(body) - 1, 1, 0, -1} {
			if _, err := coding.Decode(c.Name, c.Body, limit); !errors.Is(err, coding.ErrTooLarge) {
				t.Errorf("%s with the limit %d: %v", c.Name, limit, err)
			}
		}
		if decoded, err := coding.Decode(c.Name, c.Body, int(^uint(0)>>1)); err != nil || len(decoded) != len(body) {
			t.Errorf("%s without a limit: %v", c.Name, err)
		}
	}
}

func TestWindowsOverTheLimitAreRefused(t *testing.T) {
	var large bytes.Buffer
	w, err := zstd.NewWriter(&large, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	// A stream does not know its size, so it announces the whole window.
	for range 2 {
		if _, err := w.Write(page(600<<10, 1)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := coding.Decode("zstd", large.Bytes(), 100<<20); !errors.Is(err, coding.ErrTooLarge) {
		t.Errorf("zstd with a window of 64 MiB: %v", err)
	}
	// The first byte of a stream with RFC 9841's large windows is 0x11.
	if _, err := coding.Decode("br", []byte{0x11, 30, 0x03}, 100<<20); !errors.Is(err, coding.ErrMalformed) {
		t.Errorf("brotli with a large window: %v", err)
	}
}

func TestBodiesThatAreNotWholeAreMalformed(t *testing.T) {
	body := page(100_000, 1)
	for _, c := range codedBodies(t, body) {
		for _, cut := range []int{0, 1, 2, 3, 5, 9, 20, len(c.Body) / 2, len(c.Body) - 1} {
			if _, err := coding.Decode(c.Name, c.Body[:cut], 1<<20); !errors.Is(err, coding.ErrMalformed) {
				t.Errorf("%s cut off after %d of %d bytes: %v", c.Name, cut, len(c.Body), err)
			}
		}
	}
}

func TestWhatFollowsTheEndIsMalformed(t *testing.T) {
	for _, size := range []int{600, 100_000, 500_000} {
		for _, c := range codedBodies(t, page(size, 1)) {
			for _, rest := range []string{"\x00", "\n", "ab", "abc", "garbage", strings.Repeat("\x00", 20), strings.Repeat("x", 40_000)} {
				with := append(bytes.Clone(c.Body), rest...)
				if _, err := coding.Decode(c.Name, with, 1<<20); !errors.Is(err, coding.ErrMalformed) {
					t.Errorf("%s of %d bytes with %d bytes after it: %v", c.Name, size, len(rest), err)
				}
			}
		}
	}
}

func TestChangedBytesAreFound(t *testing.T) {
	body := page(3000, 1)
	for _, c := range codedBodies(t, body) {
		if c.Name == coding.Brotli {
			continue // has no checksum
		}
		changed := bytes.Clone(c.Body)
		changed[len(changed)-2] ^= 1
		if _, err := coding.Decode(c.Name, changed, 1<<20); !errors.Is(err, coding.ErrMalformed) {
			t.Errorf("%s with a wrong checksum: %v", c.Name, err)
		}
	}
}

func TestMembersAndFramesAreConcatenated(t *testing.T) {
	for _, c := range codedBodies(t, page(2000, 1)) {
		twice := append(bytes.Clone(c.Body), c.Body...)
		decoded, err := coding.Decode(c.Name, twice, 1<<20)
		if c.Name == coding.Brotli {
			if !errors.Is(err, coding.ErrMalformed) {
				t.Errorf("two brotli streams: %v", err)
			}
			continue
		}
		if want := append(page(2000, 1), page(2000, 1)...); err != nil || !bytes.Equal(decoded, want) {
			t.Errorf("%s twice became %d bytes, %v", c.Name, len(decoded), err)
		}
		if _, err := coding.Decode(c.Name, twice, len(decoded)-1); !errors.Is(err, coding.ErrTooLarge) {
			t.Errorf("the limit does not count both parts of %s: %v", c.Name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i, c := range codedBodies(f, page(1500, 1)) {
		f.Add(uint8(i), c.Body)
		f.Add(uint8(i), c.Body[:len(c.Body)-3])
	}
	f.Add(uint8(0), []byte{0x3b})
	f.Add(uint8(1), []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		const limit = 1 << 16
		name := coding.DefaultNames()[int(which)%3]
		decoded, err := coding.Decode(name, body, limit)
		if err != nil {
			if decoded != nil || !errors.Is(err, coding.ErrMalformed) && !errors.Is(err, coding.ErrTooLarge) {
				t.Errorf("%s: %d bytes and %v", name, len(decoded), err)
			}
			return
		}
		if len(decoded) > limit {
			t.Errorf("%s: %d bytes", name, len(decoded))
		}
		if again := encode(t, name, decoded); !bytes.Equal(again, decoded) {
			t.Errorf("%s: encoded and decoded again it differs", name)
		}
	})
}

// encode sends a body through a coding and back, without the conditions of Encode.
func encode(t *testing.T, name string, body []byte) []byte {
	var coded bytes.Buffer
	switch name {
	case coding.Brotli:
		w := brotli.NewWriterLevel(&coded, 1)
		_, _ = w.Write(body)
		_ = w.Close()
	case coding.Gzip:
		w := gzip.NewWriter(&coded)
		_, _ = w.Write(body)
		_ = w.Close()
	case coding.Zstandard:
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		coded.Write(w.EncodeAll(body, nil))
	}
	decoded, err := coding.Decode(name, coded.Bytes(), len(body))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return decoded
}

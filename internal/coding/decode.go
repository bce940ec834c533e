package coding

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// What Decode's errors wrap.
var (
	ErrUnknown   = errors.New("unknown content coding")
	ErrTooLarge  = errors.New("the decoded body is too large")
	ErrMalformed = errors.New("malformed coded body")
)

// Decode returns what a body stands for in a coding: "br", "zstd", "gzip" or its alias "x-gzip" (RFC 9110 §8.4.1.3), in any
// case. The error wraps ErrUnknown if it is another one, ErrTooLarge if the result would have more than limit bytes or
// needs a larger window than RFC 9659 allows, and ErrMalformed if the body is cut off, broken, or has something after its
// end. A body of several gzip members or zstd frames is their concatenation. An empty body is cut off.
//
// Beside the result it takes memory for one window of the coding, at most 16 MiB.
func Decode(name string, body []byte, limit int) ([]byte, error) {
	var reader io.Reader
	source := bytes.NewReader(body)
	switch strings.ToLower(name) {
	case Brotli:
		reader = brotli.NewReader(source)
	case Gzip, "x-gzip":
		members, err := gzip.NewReader(source)
		if err != nil {
			return nil, malformed(name, err)
		}
		reader = members
	case Zstandard:
		if len(body) == 0 {
			return nil, malformed(name, io.ErrUnexpectedEOF) // no frame at all is fine with the library
		}
		// A concurrency of 1 decodes in this goroutine.
		frames, err := zstd.NewReader(source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow),
			zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, malformed(name, err)
		}
		defer frames.Close()
		reader = frames
	default:
		return nil, fmt.Errorf("coding: %w %q", ErrUnknown, name)
	}
	limit = min(max(limit, 0), math.MaxInt-1)
	decoded, err := io.ReadAll(io.LimitReader(reader, int64(limit)+1))
	switch {
	case len(decoded) > limit, errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return nil, fmt.Errorf("coding: %s: %w: over %d bytes, or its window over the limit", name, ErrTooLarge, limit)
	case err != nil:
		return nil, malformed(name, err)
	}
	return decoded, nil
}

func malformed(name string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // which says more of an end that comes too early
	}
	return fmt.Errorf("coding: %s: %w: %w", name, ErrMalformed, err)
}

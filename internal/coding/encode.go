package coding

import (
	"bytes"
	"io"
	"slices"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	gzipLevel   = 6
	brotliLevel = 5
	zstdLevel   = zstd.SpeedDefault

	// zstdWindow is what every client has to have room for (RFC 9659 §3). It bounds what Decode allocates, too.
	zstdWindow = 8 << 20
)

// encoders has how a body is compressed in each coding.
var encoders = map[string]encoder{
	Brotli: &brotliEncoder{
		small: streamEncoder{pool: sync.Pool{New: newBrotli}}, large: streamEncoder{pool: sync.Pool{New: newBrotli}},
	},
	Gzip:      &streamEncoder{pool: sync.Pool{New: newGzip}},
	Zstandard: &zstdEncoder{pool: sync.Pool{New: newZstd}},
}

type encoder interface {
	// encode returns the coded body, in a slice of its size.
	encode(body []byte) ([]byte, error)
}

// streamEncoder keeps writers for the next body: their tables take hundreds of kilobytes.
type streamEncoder struct{ pool sync.Pool }

type resetWriter interface {
	io.WriteCloser
	Reset(io.Writer)
}

func newGzip() any {
	w, err := gzip.NewWriterLevel(nil, gzipLevel)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}

func (e *streamEncoder) encode(body []byte) ([]byte, error) {
	w := e.pool.Get().(resetWriter)
	var buffer bytes.Buffer
	buffer.Grow(len(body)/3 + 64)
	w.Reset(&buffer)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	w.Reset(nil) // it must not keep the buffer
	e.pool.Put(w)
	return slices.Clone(buffer.Bytes()), nil
}

// brotliEncoder has two pools, because a writer chooses the kind of its hash table by the size of the first body that it
// sees, and keeps it. With one pool the coded bytes would depend on what was encoded before.
type brotliEncoder struct{ small, large streamEncoder }

// brotliLarge is the size from which the library takes the other table (chooseHasher).
const brotliLarge = 1 << 20

func newBrotli() any { return brotli.NewWriterLevel(nil, brotliLevel) }

func (e *brotliEncoder) encode(body []byte) ([]byte, error) {
	if len(body) >= brotliLarge {
		return e.large.encode(body)
	}
	return e.small.encode(body)
}

// zstdEncoder keeps encoders. Each one serves one caller at a time and has no goroutines.
type zstdEncoder struct{ pool sync.Pool }

func newZstd() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstdLevel),
		zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

func (e *zstdEncoder) encode(body []byte) ([]byte, error) {
	z := e.pool.Get().(*zstd.Encoder)
	coded := z.EncodeAll(body, make([]byte, 0, len(body)/3+64))
	e.pool.Put(z)
	return slices.Clone(coded), nil
}

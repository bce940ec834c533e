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

// The levels are moderate, since each render pays for them. On one core of a busy 2-core machine, µs for a body and the
// size that it gets in percent; html and json are the lists of BenchmarkEncode, prose is the specification of Go as HTML:
//
//	             2 KB               16 KB              200 KB
//	             html  json  prose  html  json  prose  html  json  prose
//	gzip 6    µs   22    16     29    75    58     94  1129   944   1929
//	           %   26    22     52    17    14     35    15    12     28
//	gzip 9    µs   28    35     48   224   213    325 12621  7075   9939
//	           %   25    21     52    17    13     34    14    11     27
//	zstd 3    µs   12    14     20    46    39    120   537   396   1511    SpeedDefault
//	           %   26    21     54    17    14     36    15    12     29
//	zstd 7    µs   22    16     25    67    68    157  1839   662   1691    SpeedBetterCompression
//	           %   25    21     54    16    14     36    14    11     28
//	br 4      µs   49    83     88   231   183    410  4729  1914   3963
//	           %   23    20     49    17    14     35    15    12     28
//	br 5      µs   49    88    154   228   198    706  6604  3687   6351
//	           %   22    19     46    16    13     32    15    12     26
//	br 9      µs   74   118    129   455   380   1610 16014  8995  17114
//	           %   22    19     46    16    13     32    14    11     25
//
// The newer implementation in the brotli library (NewWriterV2) is faster, but makes small bodies 10 to 20 % larger, since
// it has no static dictionary; most pages are small.
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

package coding_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/itscales/scales/internal/coding"
)

// list returns JSON of about a size, as interfaces for lists of things are.
func list(size int) []byte {
	list := []byte("[")
	for _, line := range bytes.Split(page(size, 3), []byte("\n"))[1:] {
		list = fmt.Appendf(list, `{"id":%d,"name":%q,"href":"/tracks/%d","seconds":%d,"public":true},`, len(list)*7919%1_000_003,
			bytes.Map(letters, line), len(list)*104_729%1_000_003, len(list)%600)
		if len(list) >= size {
			break
		}
	}
	return append(list[:len(list)-1], ']')
}

func letters(r rune) rune {
	if 'a' <= r && r <= 'z' || r == ' ' {
		return r
	}
	return -1
}

// The figures beside the levels come from here. The last one is the coded size in percent.
func BenchmarkEncode(b *testing.B) {
	for _, name := range coding.DefaultNames() {
		encoder, err := coding.New(coding.Config{Names: []string{name}, Types: []string{"*/*"}})
		if err != nil {
			b.Fatal(err)
		}
		for _, size := range []int{2 << 10, 16 << 10, 200 << 10} {
			for kind, body := range map[string][]byte{"html": page(size, 1), "json": list(size)} {
				b.Run(fmt.Sprintf("%s/%s/%dK", name, kind, size>>10), func(b *testing.B) {
					b.SetBytes(int64(len(body)))
					var coded []coding.Coding
					for b.Loop() {
						coded = encoder.Encode("text/plain", body)
					}
					b.ReportMetric(100*float64(len(coded[0].Body))/float64(len(body)), "%")
				})
			}
		}
	}
}

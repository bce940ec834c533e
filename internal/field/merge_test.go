package field_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/itscales/scales/internal/field"
)

func TestMergedHeaders(t *testing.T) {
	for _, test := range []struct {
		name           string
		dst, src, want http.Header
	}{
		{"into nothing", http.Header{}, http.Header{"A": {"1", "2"}, "Vary": {"B"}, "None": {}}, http.Header{"A": {"1", "2"}, "Vary": {"B"}}},
		{"nothing", http.Header{"A": {"1"}}, nil, http.Header{"A": {"1"}}},
		{"others are replaced", http.Header{"Cache-Control": {"no-store"}, "Allow": {"GET"}, "Content-Language": {"de"}, "X-A": {"kept"}, "Content-Type": {"a/b"}},
			http.Header{"Cache-Control": {"max-age=1"}, "Allow": {"PUT"}, "Content-Language": {"en"}, "Content-Type": {"c/d"}},
			http.Header{"Cache-Control": {"max-age=1"}, "Allow": {"PUT"}, "Content-Language": {"en"}, "X-A": {"kept"}, "Content-Type": {"c/d"}}},
		{"lists are appended to", http.Header{"Link": {"<a>"}, "Set-Cookie": {"a=1", "b=2"}, "Server-Timing": {"x"}, "Access-Control-Expose-Headers": {"A"}, "Www-Authenticate": {"Basic"}, "Content-Security-Policy": {"p"}},
			http.Header{"Link": {"<b>", "<a>"}, "Set-Cookie": {"a=3"}, "Server-Timing": {"y"}, "Access-Control-Expose-Headers": {"B"}, "Www-Authenticate": {"Digest"}, "Content-Security-Policy": {"q"}},
			http.Header{"Link": {"<a>", "<b>", "<a>"}, "Set-Cookie": {"a=1", "b=2", "a=3"}, "Server-Timing": {"x", "y"}, "Access-Control-Expose-Headers": {"A", "B"}, "Www-Authenticate": {"Basic", "Digest"}, "Content-Security-Policy": {"p", "q"}}},
		{"lists that begin at the origin", http.Header{"Cache-Status": {"front"}, "Via": {"1.1 front"}},
			http.Header{"Cache-Status": {"back; hit"}, "Via": {"1.1 back"}},
			http.Header{"Cache-Status": {"back; hit", "front"}, "Via": {"1.1 back", "1.1 front"}}},
		{"Vary has each name once", http.Header{"Vary": {"Origin, accept", "Cookie"}}, http.Header{"Vary": {"Accept-Encoding,ACCEPT", "origin"}},
			http.Header{"Vary": {"Origin, accept, Cookie, Accept-Encoding"}}},
		{"Vary on everything", http.Header{"Vary": {"Origin"}}, http.Header{"Vary": {"Accept, *"}}, http.Header{"Vary": {"*"}}},
		{"an empty value replaces", http.Header{"A": {"1"}}, http.Header{"A": {""}}, http.Header{"A": {""}}},
		{"no values replace nothing", http.Header{"A": {"1"}}, http.Header{"A": nil}, http.Header{"A": {"1"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			src := test.src.Clone()
			field.Merge(test.dst, test.src)
			if !reflect.DeepEqual(test.dst, test.want) {
				t.Errorf("got %v, want %v", test.dst, test.want)
			}
			for name, values := range test.dst {
				test.dst.Add(name, "added")
				for i := range values {
					values[i] = "overwritten"
				}
			}
			if !reflect.DeepEqual(test.src, src) {
				t.Errorf("writing to the result changed the source to %v", test.src)
			}
			for name, values := range test.dst {
				if len(values) != len(test.want[name])+1 && test.want[name] != nil {
					t.Errorf("%s shares its values with another field: %v", name, values)
				}
			}
		})
	}
}

func TestAppendingToOneMergedFieldLeavesTheOthersAlone(t *testing.T) {
	dst := http.Header{}
	field.Merge(dst, http.Header{"A": {"1"}, "B": {"2"}, "C": {"3"}})
	for _, name := range []string{"A", "B", "C"} {
		dst.Add(name, "added")
	}
	if want := (http.Header{"A": {"1", "added"}, "B": {"2", "added"}, "C": {"3", "added"}}); !reflect.DeepEqual(dst, want) {
		t.Errorf("got %v, want %v", dst, want)
	}
}

func TestMergingIntoAnEmptyHeaderAllocatesOnce(t *testing.T) {
	src := http.Header{"A": {"1"}, "B": {"2"}, "C": {"3", "4"}, "Vary": {"Accept-Encoding"}}
	dst := make(http.Header, 8)
	if n := testing.AllocsPerRun(100, func() { clear(dst); field.Merge(dst, src) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMerge(b *testing.B) {
	src := http.Header{"Content-Type": {"text/html"}, "Etag": {`"v"`}, "Vary": {"Accept-Encoding"}, "Cache-Control": {"no-cache"}}
	dst := make(http.Header, 8)
	b.ReportAllocs()
	for b.Loop() {
		clear(dst)
		field.Merge(dst, src)
	}
}

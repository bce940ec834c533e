package representation_test

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/representation"
)

func withControl(value string) *representation.Representation {
	return representation.New(representation.Source{Status: 200, Header: http.Header{"Cache-Control": {value}}})
}

func TestEntriesOfAKindShareWhatTheyHaveInCommon(t *testing.T) {
	a, b := page(), page()
	b.Header["Etag"], b.Header["Cache-Groups"], b.Body = []string{`"w"`}, []string{`"others"`}, []byte("another")
	first := representation.New(a)
	if !representation.SharesShape(first, representation.New(b)) {
		t.Error("two pages share nothing")
	}
	for name, values := range map[string][]string{"Content-Type": {"a/b"}, "Cache-Control": {"max-age=1"}, "Etag": nil, "Link": {"</a>"}, "Cache-Groups": {`"a"`, `"b"`}} {
		other := page()
		other.Header[name] = values
		if representation.SharesShape(first, representation.New(other)) {
			t.Errorf("pages with another %s share their shape", name)
		}
	}
	other := page()
	other.Status = 203
	if representation.SharesShape(first, representation.New(other)) {
		t.Error("pages with another status share their shape")
	}
}

// An application that says something else with every page must not fill the memory with what nobody shares.
func TestTheMemoryForSharingIsBounded(t *testing.T) {
	var entries []*representation.Representation
	for i := range 3 * representation.MaxShapes {
		entries = append(entries, withControl("max-age="+strconv.Itoa(i)))
	}
	if n := representation.ShapeCount(); n > representation.MaxShapes {
		t.Errorf("there are %d shapes", n)
	}
	// Which of them share depends on what earlier tests have left in the table.
	sizes := make([]int, len(entries))
	for i, e := range entries {
		sizes[i] = e.Size()
	}
	slices.Sort(sizes)
	if own := sizes[representation.MaxShapes]; own < sizes[0]+200 {
		t.Errorf("more than %d entries have %d bytes, as one that shares its shape, and not %d", representation.MaxShapes, own, sizes[0])
	}
	runtime.KeepAlive(entries)
	// When the entries are gone, so are their shapes.
	entries = nil
	runtime.GC()
	for i := range 2*representation.MaxShapes + 2 {
		withControl("s-maxage=" + strconv.Itoa(i%2))
	}
	if a, b := withControl("public"), withControl("public"); !representation.SharesShape(a, b) {
		t.Error("nothing is shared any more")
	}

	large := strings.Repeat("x", representation.MaxShapeKey)
	if a, b := withControl(large), withControl(large); representation.SharesShape(a, b) || a.Size() < len(large) {
		t.Errorf("a large shape is shared, or has %d bytes", a.Size())
	}
}

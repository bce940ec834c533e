package field_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/field"
)

func TestGroupsThatAFieldNames(t *testing.T) {
	many := func(n, length int) string {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"%0*d"`, length, i))
		}
		return strings.Join(members, ", ")
	}
	for _, test := range []struct {
		values []string
		want   []string
		count  int // instead of want
	}{
		{nil, nil, 0},
		{[]string{""}, nil, 0},
		{[]string{`"tracks"`}, []string{"tracks"}, 0},
		{[]string{`"b", "a"`, `"c"`}, []string{"a", "b", "c"}, 0},
		{[]string{`"a", "a"`}, []string{"a"}, 0},
		{[]string{`"a";q=1;x, "b";y="z"`}, []string{"a", "b"}, 0},
		{[]string{`"with, comma", "with \"quotes\" and \\"`}, []string{`with "quotes" and \`, "with, comma"}, 0},
		{[]string{`""`}, []string{""}, 0},
		{[]string{many(32, 32)}, nil, 32},
		{[]string{many(128, 128)}, nil, 128},
	} {
		got, err := field.Groups(http.Header{"cache-groups": test.values}, field.CacheGroups)
		if err != nil || test.count == 0 && !slices.Equal(got, test.want) || test.count > 0 && len(got) != test.count {
			t.Errorf("%q: %q, %v", test.values, got, err)
		}
	}
}

func TestAFieldThatNamesNoGroupsIsIgnoredAsAWhole(t *testing.T) {
	for _, values := range [][]string{
		{`tracks`}, {`"a", b`}, {`"a", 1`}, {`"a", ("b" "c")`}, {`"a",`}, {`"a" "b"`}, {`"a`}, {"\"a\x80\""}, {`"a", ?1`}, {`:YQ==:`},
		{`%"a"`}, {`"` + strings.Repeat("x", 129) + `"`}, {strings.Repeat(`"a", `, 128) + `"a"`},
	} {
		got, err := field.Groups(http.Header{"Cache-Group-Invalidation": values}, field.CacheGroupInvalidation)
		if !errors.Is(err, field.ErrInvalid) || got != nil {
			t.Errorf("%q: %q, %v", values, got, err)
		}
	}
}

func TestGroupsAreWrittenAsTheyAreRead(t *testing.T) {
	groups := []string{"", " ", `"\`, "a, b", "tracks"}
	value, err := field.FormatGroups(groups...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := field.Groups(http.Header{"Cache-Groups": {value}}, field.CacheGroups)
	if err != nil || !slices.Equal(got, groups) {
		t.Errorf("%s: %q, %v", value, got, err)
	}
	for _, bad := range []string{"söng", "a\tb", "a\x7f", strings.Repeat("x", 129)} {
		if _, err := field.FormatGroups("a", bad); !errors.Is(err, field.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzGroups(f *testing.F) {
	for _, seed := range []string{`"a", "b";q=1`, `"a`, `("a")`, `"\\"`, `a`, ``} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		groups, err := field.Groups(http.Header{"Cache-Groups": {value}}, field.CacheGroups)
		if err != nil {
			if groups != nil || !errors.Is(err, field.ErrInvalid) {
				t.Fatalf("%q: %q, %v", value, groups, err)
			}
			return
		}
		written, err := field.FormatGroups(groups...)
		if err != nil {
			t.Fatalf("%q: %q cannot be written: %v", value, groups, err)
		}
		again, err := field.Groups(http.Header{"Cache-Groups": {written}}, field.CacheGroups)
		if err != nil || !slices.Equal(again, groups) {
			t.Fatalf("%q: %q became %q, %v", value, groups, again, err)
		}
	})
}

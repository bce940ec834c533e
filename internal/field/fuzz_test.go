package field_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"github.com/itscales/scales/internal/field"
)

func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{`"8e03978e"`, `8e03978e`, `""`, `"a\"b"`, `"a";q=1`, `a,b`, ` x `, "\"\t\"", `"ü"`, ``} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := field.IdempotencyKey(http.Header{"Idempotency-Key": {value}})
		if err != nil {
			if key != "" {
				t.Fatalf("%q: %q, %v", value, key, err)
			}
			return
		}
		if key == "" || len(key) > 256 {
			t.Fatalf("%q is taken for %q", value, key)
		}
		for i := range len(key) {
			if key[i] < ' ' || key[i] > '~' {
				t.Fatalf("%q is taken for %q", value, key)
			}
		}
		quoted, err := httpsfv.Marshal(httpsfv.NewItem(key))
		if err != nil {
			t.Fatalf("%q: %q cannot be written: %v", value, key, err)
		}
		if again, err := field.IdempotencyKey(http.Header{"Idempotency-Key": {quoted}}); err != nil || again != key {
			t.Fatalf("%q: %q became %q, %v", value, key, again, err)
		}
	})
}

func FuzzPreferences(f *testing.F) {
	for _, seed := range []string{`respond-async`, `wait=5`, `respond-async, wait="7"; x=1, return=minimal`, `wait=-1`, `wait=99999999999999999999`, `a="b,c"`, `,,`, `"`} {
		f.Add(seed, "wait=3")
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		h := http.Header{"Prefer": {one, other}}
		p := field.TakePreferences(h)
		if p.Wait < 0 || p.Wait > 0 && !p.Waits {
			t.Fatalf("%q, %q: %+v", one, other, p)
		}
		if p.Applied() == "" {
			return
		}
		left := strings.Join(h["Prefer"], ", ")
		if again := field.TakePreferences(h); again != (field.Preferences{}) {
			t.Fatalf("%q, %q: what is left, %q, has %+v", one, other, left, again)
		}
		applied := field.TakePreferences(http.Header{"Prefer": {p.Applied()}})
		if applied != p && p.Waits == applied.Waits {
			// Wait is in full seconds.
			t.Fatalf("%q, %q: %+v became %+v", one, other, p, applied)
		}
	})
}

package field_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/itscales/scales/internal/field"
)

func TestTakePreferences(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   field.Preferences
		left   string
	}{
		{nil, field.Preferences{}, ""},
		{[]string{"respond-async"}, field.Preferences{RespondAsync: true}, ""},
		{[]string{`Respond-Async, WAIT = "10"`}, field.Preferences{RespondAsync: true, Wait: 10 * time.Second, Waits: true}, ""},
		{[]string{"wait=0"}, field.Preferences{Waits: true}, ""},
		{[]string{"wait=3; foo=bar", "wait=9"}, field.Preferences{Wait: 3 * time.Second, Waits: true}, ""},
		{[]string{"return=minimal, respond-async", "handling=lenient"}, field.Preferences{RespondAsync: true}, "return=minimal, handling=lenient"},
		{[]string{"wait=soon, wait=-1"}, field.Preferences{}, "wait=soon, wait=-1"},
		{[]string{`x="respond-async, wait=3"`}, field.Preferences{}, `x="respond-async, wait=3"`},
		{[]string{`respond-async, x="open`}, field.Preferences{}, `respond-async, x="open`},
		{[]string{"wait=9223372036854775807"}, field.Preferences{Wait: 9223372036 * time.Second, Waits: true}, ""},
	} {
		h := http.Header{}
		if test.values != nil {
			h["Prefer"] = test.values
		}
		if got := field.TakePreferences(h); got != test.want || h.Get("Prefer") != test.left {
			t.Errorf("%q: %+v, left %q", test.values, got, h.Get("Prefer"))
		}
	}
}

func TestPreferenceApplied(t *testing.T) {
	for want, p := range map[string]field.Preferences{
		"":                        {},
		"respond-async":           {RespondAsync: true},
		"wait=0":                  {Waits: true},
		"respond-async, wait=120": {RespondAsync: true, Waits: true, Wait: 2 * time.Minute},
	} {
		if got := p.Applied(); got != want {
			t.Errorf("%+v: %q, not %q", p, got, want)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	long := make([]byte, 257)
	for i := range long {
		long[i] = 'k'
	}
	for _, test := range []struct {
		values []string
		key    string
		fails  bool
	}{
		{nil, "", false},
		{[]string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}, "8e03978e-40d5-43dd-bc93-6894a57f9324", false},
		{[]string{`8e03978e-40d5-43dd-bc93-6894a57f9324`}, "8e03978e-40d5-43dd-bc93-6894a57f9324", false},
		{[]string{`  "a \"b\" \\"; p=1 `}, `a "b" \`, false},
		{[]string{string(long[:256])}, string(long[:256]), false},
		{[]string{string(long)}, "", true},
		{[]string{""}, "", true},
		{[]string{`""`}, "", true},
		{[]string{"a", "b"}, "", true},
		{[]string{`"a", "b"`}, "", true},
		{[]string{"a,b"}, "", true},
		{[]string{"a b"}, "", true},
		{[]string{`a"b`}, "", true},
		{[]string{`"open`}, "", true},
		{[]string{"ä"}, "", true},
	} {
		h := http.Header{}
		if test.values != nil {
			h["Idempotency-Key"] = test.values
		}
		key, err := field.IdempotencyKey(h)
		if key != test.key || (err != nil) != test.fails {
			t.Errorf("%q: %q, %v", test.values, key, err)
		}
	}
}

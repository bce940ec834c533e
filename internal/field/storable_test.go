package field_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/field"
)

func TestEveryStatusHasAVerdict(t *testing.T) {
	want := map[int]field.Verdict{
		200: field.Store, 203: field.Store, 204: field.Store, 300: field.Store, 301: field.Store, 302: field.Store,
		303: field.Store, 307: field.Store, 308: field.Store,
		408: field.Retry, 425: field.Retry, 429: field.Retry,
	}
	for status := range 1000 {
		verdict, listed := want[status]
		switch {
		case listed:
		case 400 <= status && status <= 499:
			verdict = field.Destroy
		case 500 <= status && status <= 599:
			verdict = field.Retry
		default:
			verdict = field.Refuse
		}
		got, reason := field.Storable(status, http.Header{"Content-Type": {"text/html"}})
		if got != verdict || (reason == "") != (verdict == field.Store) {
			t.Errorf("status %d: %v (%s), want %v", status, got, reason, verdict)
		}
	}
}

func TestHeadersThatForbidStoring(t *testing.T) {
	for _, test := range []struct {
		header http.Header
		reason string // "" where it is stored
	}{
		{http.Header{"Cache-Control": {"no-store"}}, "Cache-Control: no-store"},
		{http.Header{"Cache-Control": {"max-age=1,\tNo-Store ,x"}}, "Cache-Control: no-store"},
		{http.Header{"Cache-Control": {"public", "private"}}, "Cache-Control: private"},
		{http.Header{"Cache-Control": {`private="set-cookie, x"`}}, `Cache-Control: private="set-cookie, x"`},
		{http.Header{"Cache-Control": {`private="\x-\a\\"`}}, `Cache-Control: private="x-a\\"`},
		{http.Header{"Cache-Control": {`private = x`}}, `Cache-Control: private="x"`},
		{http.Header{"Cache-Control": {`x="a, b", no-store`}}, "Cache-Control: no-store"},
		{http.Header{"Cache-Control": {`x="\", no-store`}}, "Cache-Control: a quoted string does not end"},
		{http.Header{"Cache-Control": {`max-age=1, x="`}}, "Cache-Control: a quoted string does not end"},
		{http.Header{"cache-control": {"no-store"}}, "Cache-Control: no-store"},
		{http.Header{"Cache-Control": {"public"}, "cache-control": {"no-store"}}, "Cache-Control: no-store"},
		{http.Header{"Cache-Control": {`x="no-store, private", no-cache, max-age=0, must-revalidate, public`}}, ""},
		{http.Header{"Cache-Control": {"no-storex, xprivate", ""}}, ""},
		{http.Header{"Set-Cookie": {"a=b"}}, "Set-Cookie"},
		{http.Header{"set-cookie": {"a=b"}}, "Set-Cookie"},
		{http.Header{"Set-Cookie": nil}, ""},
		{http.Header{"Vary": {"Accept-Encoding"}}, ""},
		{http.Header{"Vary": {"accept-encoding, , Accept-Encoding", ""}}, ""},
		{http.Header{"Vary": {"Accept-Encoding, Cookie"}}, "Vary: Cookie"},
		{http.Header{"Vary": {"Accept-Encoding", "Origin"}}, "Vary: Origin"},
		{http.Header{"Vary": {"*"}}, "Vary: *"},
		{http.Header{"VARY": {"*"}}, "Vary: *"},
		{http.Header{"Vary": {`"Accept-Encoding`}}, "Vary: malformed"},
		{http.Header{"Cache-Control": {"private, no-store"}, "Scales-Cache-Control": {"public"}}, ""},
		{http.Header{"Cache-Control": {"private"}, "scales-cache-control": {"max-age=60"}}, ""},
		{http.Header{"Cache-Control": {"private"}, "Scales-Cache-Control": {"max-age=60, private=?0"}}, ""},
		{http.Header{"Cache-Control": {"public"}, "Scales-Cache-Control": {"max-age=60", "no-store"}}, "Scales-Cache-Control: no-store"},
		{http.Header{"Cache-Control": {"public"}, "Scales-Cache-Control": {"private"}}, "Scales-Cache-Control: private"},
		{http.Header{"Scales-Cache-Control": {`private="x-a"`}}, `Scales-Cache-Control: private="x-a"`},
		{http.Header{"Scales-Cache-Control": {`private=1`}}, `Scales-Cache-Control: private=""`},
		{http.Header{"Cache-Control": {"private"}, "Scales-Cache-Control": {"Public"}}, "Cache-Control: private"}, // no Dictionary
		{http.Header{"Cache-Control": {"private"}, "Scales-Cache-Control": {""}}, "Cache-Control: private"},
		{http.Header{"Set-Cookie": {"a=b"}, "Scales-Cache-Control": {"public"}}, "Set-Cookie"},
		{http.Header{"Vary": {"Cookie"}, "Scales-Cache-Control": {"public"}}, "Vary: Cookie"},
		{nil, ""},
	} {
		for _, status := range []int{200, 301} {
			verdict, reason := field.Storable(status, test.header)
			if reason != test.reason || (verdict == field.Store) != (test.reason == "") || verdict != field.Store && verdict != field.Refuse {
				t.Errorf("Storable(%d, %v) = %v, %q; want %q", status, test.header, verdict, reason, test.reason)
			}
		}
		if verdict, _ := field.Storable(404, test.header); verdict != field.Destroy {
			t.Errorf("Storable(404, %v) = %v", test.header, verdict)
		}
		if verdict, _ := field.Storable(503, test.header); verdict != field.Retry {
			t.Errorf("Storable(503, %v) = %v", test.header, verdict)
		}
	}
}

func TestReasonsNameTheStatus(t *testing.T) {
	for status, want := range map[int]string{
		404: "status 404 Not Found", 429: "status 429 Too Many Requests", 599: "status 599", 206: "status 206 Partial Content is not stored",
	} {
		if _, reason := field.Storable(status, nil); reason != want {
			t.Errorf("status %d: %q, want %q", status, reason, want)
		}
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	for verdict, want := range map[field.Verdict]string{
		field.Store: "store", field.Destroy: "destroy", field.Refuse: "refuse", field.Retry: "retry", 9: "Verdict(9)",
	} {
		if got := verdict.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzStorable checks that a directive is found wherever other elements stand
// around it, and that no header changes the verdict about an error.
func FuzzStorable(f *testing.F) {
	f.Add(`max-age=1, x="a, b"`, "Accept-Encoding")
	f.Add(`x="\"`, "*")
	f.Fuzz(func(t *testing.T, control, vary string) {
		header := http.Header{"Cache-Control": {control}, "Vary": {vary}}
		verdict, reason := field.Storable(200, header)
		if verdict != field.Store && verdict != field.Refuse || (verdict == field.Store) != (reason == "") {
			t.Fatalf("%v: %v, %q", header, verdict, reason)
		}
		if verdict == field.Store && strings.EqualFold(strings.TrimSpace(vary), "cookie") {
			t.Fatalf("%v is stored", header)
		}
		for _, value := range []string{"no-store, " + control, control + ", no-store"} {
			header["Cache-Control"] = []string{value}
			if verdict, _ := field.Storable(200, header); verdict != field.Refuse {
				t.Fatalf("%v: %v", header, verdict)
			}
		}
		if verdict, _ := field.Storable(404, header); verdict != field.Destroy {
			t.Fatalf("%v: %v of a 404", header, verdict)
		}
	})
}

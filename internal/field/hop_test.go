package field_test

import (
	"errors"
	"net/http"
	"reflect"
	"testing"

	"github.com/itscales/scales/internal/field"
)

func TestFieldsOfOneHopAreRemoved(t *testing.T) {
	for _, test := range []struct {
		name         string
		header, want http.Header
	}{
		{"all there are", http.Header{
			"Connection": {"close"}, "Keep-Alive": {"x"}, "Proxy-Connection": {"x"}, "Te": {"trailers"}, "Trailer": {"x"},
			"Transfer-Encoding": {"chunked"}, "Upgrade": {"websocket"}, "Http2-Settings": {"x"}, "Proxy-Authenticate": {"x"},
			"Proxy-Authorization": {"x"}, "Proxy-Authentication-Info": {"x"}, "X-A": {"kept"},
		}, http.Header{"X-A": {"kept"}}},
		{"what Connection nominates", http.Header{
			"Connection": {"close, x-a ,, X-B", "x-c"}, "X-A": {"x"}, "X-B": {"x"}, "X-C": {"x"}, "X-D": {"kept"},
		}, http.Header{"X-D": {"kept"}}},
		{"not what is for all recipients", http.Header{
			"Connection": {"Host, content-length, Content-Type, cache-control, set-cookie, authorization, x-forwarded-for, if-match, vary"},
			"Host":       {"x"}, "Content-Length": {"1"}, "Content-Type": {"x"}, "Cache-Control": {"no-store"}, "Set-Cookie": {"x"},
			"Authorization": {"x"}, "X-Forwarded-For": {"x"}, "If-Match": {"x"}, "Vary": {"x"},
		}, http.Header{
			"Host": {"x"}, "Content-Length": {"1"}, "Content-Type": {"x"}, "Cache-Control": {"no-store"}, "Set-Cookie": {"x"},
			"Authorization": {"x"}, "X-Forwarded-For": {"x"}, "If-Match": {"x"}, "Vary": {"x"},
		}},
		{"in any spelling", http.Header{
			"connection": {"x-a"}, "TE": {"x"}, "x-A": {"x"}, "HTTP2-Settings": {"x"},
		}, http.Header{}},
		{"none", http.Header{"A": {"b"}}, http.Header{"A": {"b"}}},
		{"nil", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if field.RemoveHopByHop(test.header); !reflect.DeepEqual(test.header, test.want) {
				t.Errorf("left %v, want %v", test.header, test.want)
			}
		})
	}
}

func TestWhatNeverGoesIntoAnEntryIsStripped(t *testing.T) {
	for _, test := range []struct {
		name         string
		header, want http.Header
	}{
		{"fields of this message", http.Header{
			"Date": {"x"}, "Age": {"1"}, "Content-Length": {"1"}, "Cache-Status": {"x"}, "Scales-Cache-Control": {"public"}, "Set-Cookie": {"a", "b"}, "Set-Cookie2": {"x"},
			"Connection": {"x-a"}, "X-A": {"x"}, "Transfer-Encoding": {"chunked"},
			"Content-Type": {"text/html"}, "Content-Encoding": {"gzip"}, "Etag": {`"v"`}, "Last-Modified": {"x"}, "Vary": {"Accept-Encoding"},
		}, http.Header{"Content-Type": {"text/html"}, "Content-Encoding": {"gzip"}, "Etag": {`"v"`}, "Last-Modified": {"x"}, "Vary": {"Accept-Encoding"}}},
		{"in any spelling", http.Header{"set-cookie": {"a"}, "DATE": {"x"}}, http.Header{}},
		{"fields that no-cache and private name", http.Header{
			"Cache-Control": {`max-age=1, no-cache="x-a, X-B"`, `Private=x-c, foo="x-d"`}, "X-A": {"x"}, "X-B": {"x"}, "X-C": {"x"}, "X-D": {"kept"},
		}, http.Header{"Cache-Control": {`max-age=1, no-cache="x-a, X-B"`, `Private=x-c, foo="x-d"`}, "X-D": {"kept"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if field.Strip(test.header); !reflect.DeepEqual(test.header, test.want) {
				t.Errorf("left %v, want %v", test.header, test.want)
			}
		})
	}
}

func TestValidHeaders(t *testing.T) {
	for _, h := range []http.Header{
		nil,
		{"A": nil},
		{"!#$%&'*+-.^_`|~09azAZ": {""}},
		{"A": {"b\tc d", "\x80\xff"}},
	} {
		if err := field.Valid(h); err != nil {
			t.Errorf("Valid(%v): %v", h, err)
		}
	}
	for _, h := range []http.Header{
		{"": {"a"}}, {"A b": {"c"}}, {"A:": {"b"}}, {"A\n": {"b"}}, {"ü": {"b"}}, {"A": {"b", "c\r"}}, {"A": {"\nb"}},
		{"A": {"\x00"}}, {"A": {"\x7f"}}, {"A": {"\x1b"}}, {"A(b)": nil},
	} {
		if err := field.Valid(h); !errors.Is(err, field.ErrInvalid) {
			t.Errorf("Valid(%q): %v, want ErrInvalid", h, err)
		}
	}
}

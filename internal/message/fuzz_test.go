package message_test

import (
	"bytes"
	"net/http"
	"reflect"
	"testing"

	"github.com/itscales/scales/internal/message"
)

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("POST /tracks?x=1 HTTP/1.1\r\nHost: example.com\r\nA: b\r\na:\tc \r\n\r\nbody"))
	f.Add([]byte("OPTIONS * HTTP/1.1\r\nhost:\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := message.ParseRequest(b)
		if err != nil {
			return
		}
		text, err := message.AppendRequest(nil, first)
		if err != nil {
			t.Fatalf("%q was read but is not written: %v", b, err)
		}
		second, err := message.ParseRequest(text)
		if err != nil || !sameRequest(first, second) {
			t.Fatalf("%q is %+v, written %q, which is %+v, %v", b, first, text, second, err)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nA: b\r\na:\tc \r\n\r\nbody"))
	f.Add([]byte("HTTP/1.1 999 \r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := message.ParseResponse(b)
		if err != nil {
			return
		}
		text, err := message.AppendResponse(nil, first)
		if err != nil {
			t.Fatalf("%q was read but is not written: %v", b, err)
		}
		second, err := message.ParseResponse(text)
		if err != nil || first.Status != second.Status || !reflect.DeepEqual(first.Header, second.Header) || !bytes.Equal(first.Body, second.Body) {
			t.Fatalf("%q is %+v, written %q, which is %+v, %v", b, first, text, second, err)
		}
	})
}

// FuzzParseEntry also compares the two decoders of metadata.
func FuzzParseEntry(f *testing.F) {
	f.Add(`{"ticket":"00001764000000000001","status":200,"header":{"Content-Type":["text/html"],"Etag":["\"v\""]},"size":4}` + "\nbody")
	f.Add(`{"ticket":"00001764000000000001","pushOnly":true,"status":200,"header":{"A":["` + "\u0080\u00ff" + `\t","b"]},"size":0}` + "\n")
	f.Add(`{"ticket":"00001764000000000001","gone":true}` + "\n")
	f.Add(`{"ticket":"00001764000000000001","status":200,"header":{},"size":4,"codings":[["br",2],["gzip",3]],"why":"fill"}` + "\nbodybrzip")
	f.Add(`{"ticket":"00001764000000000001","status":200,"header":{},"size":4,"codings":[["br",-2],["gzip",2]]}` + "\nbody")
	f.Add(`{"ticket":"00001764000000000001","vary":[["X-Device","","phone"],["Accept","*/*"]],"variants":[72,0],"why":"fill"}` + "\n" +
		`{"ticket":"00000000000000000000","status":200,"header":{},"size":4}` + "\nbody")
	f.Add(`{"ticket":"00001764000000000001", "size":0, "header":{"a":["\u00fc"]}, "status":404}` + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		if message.EntryTicket(s) != "" {
			scanned, scannedSize, ok := message.ScanMetadata(s)
			if ok {
				decoded, decodedSize, err := message.DecodeMetadata(s)
				if err != nil || !reflect.DeepEqual(scannedSize, decodedSize) || !sameEntry(scanned, decoded) {
					t.Fatalf("%q is %+v, but to encoding/json %+v, %v", s, scanned, decoded, err)
				}
			}
		}
		first, err := message.ParseEntry(s)
		if err != nil {
			return
		}
		if first.Ticket != message.EntryTicket(s) {
			t.Fatalf("%q has the ticket %q and %q", s, first.Ticket, message.EntryTicket(s))
		}
		text, err := message.AppendEntry(nil, first)
		if err != nil {
			t.Fatalf("%q was read but is not written: %v", s, err)
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		if _, _, ok := message.ScanMetadata(string(line)); !ok && len(first.Vary) == 0 {
			t.Fatalf("%q takes the slow way", line)
		}
		second, err := message.ParseEntry(string(text))
		if err != nil || !sameEntry(first, second) {
			t.Fatalf("%q is %+v, written %q, which is %+v, %v", s, first, text, second, err)
		}
	})
}

// FuzzFields writes any two fields and expects them back wherever they may be
// written at all.
func FuzzFields(f *testing.F) {
	f.Add("POST", "/", "h", "A", "b", "c", []byte("body"))
	f.Add("A B", "/\n", "h\r", "a:", "b\x00", "\x80", []byte(nil))
	f.Fuzz(func(t *testing.T, method, target, host, name, a, b string, body []byte) {
		request := &message.Request{Method: method, Target: target, Host: host, Header: http.Header{name: {a, b}}, Body: body}
		if text, err := message.AppendRequest(nil, request); err == nil {
			got, err := message.ParseRequest(text)
			if err != nil || got.Method != method || got.Target != target || got.Host != host || !bytes.Equal(got.Body, body) ||
				len(got.Header) > 1 || len(got.Header[http.CanonicalHeaderKey(name)]) == 1 {
				t.Fatalf("%q is read as %+v, %v", text, got, err)
			}
		}
		entry := &message.Entry{Ticket: ticket, Status: 200, Header: http.Header{name: {a, b}}, Body: body}
		if text, err := message.AppendEntry(nil, entry); err == nil {
			got, err := message.ParseEntry(string(text))
			if err != nil || len(got.Header) != 1 || len(got.Header[http.CanonicalHeaderKey(name)]) != 2 || !bytes.Equal(got.Body, body) {
				t.Fatalf("%q is read as %+v, %v", text, got, err)
			}
		}
	})
}

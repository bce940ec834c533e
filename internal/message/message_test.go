package message_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/message"
)

func TestARequestIsHTTPText(t *testing.T) {
	text, err := message.AppendRequest([]byte("before "), &message.Request{
		Method: "POST", Target: "/tracks?x=1", Host: "example.com",
		Header: http.Header{"Content-Type": {"text/plain"}, "Accept": {"a/b", " c/d\t"}, "X-Empty": {""}, "X-None": {}, "Host": {"other"}},
		Body:   []byte("hello\r\n\r\nworld\x00"),
	})
	want := "before POST /tracks?x=1 HTTP/1.1\r\nHost: example.com\r\nAccept: a/b\r\nAccept: c/d\r\n" +
		"Content-Type: text/plain\r\nX-Empty: \r\n\r\nhello\r\n\r\nworld\x00"
	if string(text) != want || err != nil {
		t.Errorf("got %q, %v; want %q", text, err, want)
	}
}

func TestNetHTTPReadsWhatIsWritten(t *testing.T) {
	header := http.Header{"Content-Length": {"5"}, "X-Bytes": {"\x80\xff ü"}, "Link": {"<a>", "<b>"}}
	text, err := message.AppendRequest(nil, &message.Request{Method: "PATCH", Target: "/a?b", Host: "h", Header: header, Body: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil || string(body) != "hello" || request.Method != "PATCH" || request.RequestURI != "/a?b" || request.Host != "h" || !reflect.DeepEqual(request.Header, header) {
		t.Errorf("net/http reads %q, %v and %+v", body, err, request)
	}
	text, err = message.AppendResponse(nil, &message.Response{Status: 201, Header: header, Body: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil || string(body) != "hello" || response.Status != "201 Created" || !reflect.DeepEqual(response.Header, header) {
		t.Errorf("net/http reads %q, %v and %+v", body, err, response)
	}
}

func TestAResponseIsHTTPText(t *testing.T) {
	for status, line := range map[int]string{201: "HTTP/1.1 201 Created\r\n", 299: "HTTP/1.1 299 \r\n", 999: "HTTP/1.1 999 \r\n"} {
		text, err := message.AppendResponse(nil, &message.Response{Status: status})
		if string(text) != line+"\r\n" || err != nil {
			t.Errorf("got %q, %v; want %q", text, err, line)
		}
		response, err := message.ParseResponse(text)
		if err != nil || response.Status != status || len(response.Header) != 0 || len(response.Body) != 0 {
			t.Errorf("%q is read as %+v, %v", text, response, err)
		}
	}
}

func TestWhatCouldSplitAMessageIsNotWritten(t *testing.T) {
	good := message.Request{Method: "POST", Target: "/", Host: "h"}
	var dst = []byte("before")
	for name, spoil := range map[string]func(r *message.Request){
		"no method":                  func(r *message.Request) { r.Method = "" },
		"method with a space":        func(r *message.Request) { r.Method = "A B" },
		"method with CRLF":           func(r *message.Request) { r.Method = "A\r\n" },
		"no target":                  func(r *message.Request) { r.Target = "" },
		"relative target":            func(r *message.Request) { r.Target = "a" },
		"absolute target":            func(r *message.Request) { r.Target = "http://a/" },
		"target with a space":        func(r *message.Request) { r.Target = "/a b" },
		"target with LF":             func(r *message.Request) { r.Target = "/a\nb" },
		"target with NUL":            func(r *message.Request) { r.Target = "/a\x00" },
		"target with DEL":            func(r *message.Request) { r.Target = "/a\x7f" },
		"host with CR":               func(r *message.Request) { r.Host = "h\rX: y" },
		"host with a space":          func(r *message.Request) { r.Host = "h h" },
		"field name with a colon":    func(r *message.Request) { r.Header = http.Header{"A:b": {"c"}} },
		"field name with a space":    func(r *message.Request) { r.Header = http.Header{"A ": {"c"}} },
		"empty field name":           func(r *message.Request) { r.Header = http.Header{"": {"c"}} },
		"field value with CRLF":      func(r *message.Request) { r.Header = http.Header{"A": {"c\r\nX: y"}} },
		"field value with LF":        func(r *message.Request) { r.Header = http.Header{"A": {"c", "d\ne"}} },
		"field value with NUL":       func(r *message.Request) { r.Header = http.Header{"A": {"c\x00"}} },
		"field value with backspace": func(r *message.Request) { r.Header = http.Header{"A": {"c\x08"}} },
		"field value with DEL":       func(r *message.Request) { r.Header = http.Header{"A": {"c\x7f"}} },
		"head over the limit":        func(r *message.Request) { r.Header = http.Header{"A": {strings.Repeat("c", message.MaxHead)}} },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			spoil(&r)
			if got, err := message.AppendRequest(dst, &r); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
				t.Errorf("request: %q, %v; want ErrInvalid", got, err)
			}
			if r.Header == nil {
				return
			}
			if got, err := message.AppendResponse(dst, &message.Response{Status: 200, Header: r.Header}); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
				t.Errorf("response: %q, %v; want ErrInvalid", got, err)
			}
			if got, err := message.AppendEntry(dst, &message.Entry{Status: 200, Header: r.Header}); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
				t.Errorf("entry: %q, %v; want ErrInvalid", got, err)
			}
		})
	}
	for _, status := range []int{-1, 0, 99, 100, 101, 199, 1000} {
		if got, err := message.AppendResponse(dst, &message.Response{Status: status}); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
			t.Errorf("status %d: %q, %v; want ErrInvalid", status, got, err)
		}
	}
}

func TestRequestsComeBackAsTheyWere(t *testing.T) {
	for name, want := range map[string]*message.Request{
		"minimal":       {Method: "DELETE", Target: "/", Header: http.Header{}},
		"asterisk":      {Method: "OPTIONS", Target: "*", Host: "h", Header: http.Header{}},
		"raw UTF-8":     {Method: "PUT", Target: "/ü", Host: "ü", Header: http.Header{}},
		"binary body":   {Method: "PUT", Target: "/", Header: http.Header{}, Body: []byte("\r\n\r\n\x00\xff")},
		"many fields":   {Method: "PUT", Target: "/", Header: manyFields(60)},
		"field order":   {Method: "PUT", Target: "/", Header: http.Header{"B": {"2", "1", "2"}, "A": {"x"}, "C": {""}}},
		"obs-text":      {Method: "PUT", Target: "/", Header: http.Header{"A": {"\x80\xff"}, "B": {"a\tb c"}}},
		"false lengths": {Method: "PUT", Target: "/", Header: http.Header{"Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}}, Body: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := message.AppendRequest(nil, want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := message.ParseRequest(text)
			if err != nil {
				t.Fatal(err)
			}
			if !sameRequest(got, want) {
				t.Errorf("%q is read as %+v, want %+v", text, got, want)
			}
			text, err = message.AppendResponse(nil, &message.Response{Status: 200, Header: want.Header, Body: want.Body})
			if err != nil {
				t.Fatal(err)
			}
			response, err := message.ParseResponse(text)
			if err != nil || response.Status != 200 || !reflect.DeepEqual(response.Header, want.Header) || !bytes.Equal(response.Body, want.Body) {
				t.Errorf("%q is read as %+v, %v", text, response, err)
			}
		})
	}
}

func TestSpellingsOfANameAreJoined(t *testing.T) {
	header := http.Header{"x-a": {"2"}, "X-A": {"1"}, "X-B": {"3"}}
	want := http.Header{"X-A": {"1", "2"}, "X-B": {"3"}}
	text, err := message.AppendResponse(nil, &message.Response{Status: 200, Header: header})
	if err != nil {
		t.Fatal(err)
	}
	if response, err := message.ParseResponse(text); err != nil || !reflect.DeepEqual(response.Header, want) {
		t.Errorf("response: %v, %v; want %v", response, err, want)
	}
	text, err = message.AppendEntry(nil, &message.Entry{Status: 200, Header: header})
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := message.ParseEntry(string(text)); err != nil || !reflect.DeepEqual(entry.Header, want) {
		t.Errorf("entry: %v, %v; want %v", entry, err, want)
	}
	if len(header) != 3 {
		t.Errorf("the header was changed to %v", header)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                     "",
		"no empty line":             "GET / HTTP/1.1\r\nHost: h\r\n",
		"bare line feeds":           "GET / HTTP/1.1\nHost: h\n\n",
		"a bare line feed":          "GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n",
		"a bare carriage return":    "GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n",
		"no host":                   "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"no fields":                 "GET / HTTP/1.1\r\n\r\n",
		"two hosts":                 "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
		"host with white space":     "GET / HTTP/1.1\r\nHost: h h\r\n\r\n",
		"no version":                "GET /\r\nHost: h\r\n\r\n",
		"another version":           "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
		"more after the version":    "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
		"two spaces":                "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
		"a space before the method": " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"no method":                 "/ HTTP/1.1\r\nHost: h\r\n\r\n",
		"relative target":           "GET a HTTP/1.1\r\nHost: h\r\n\r\n",
		"a folded line":             "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
		"a space before the colon":  "GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
		"no colon":                  "GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n",
		"no field name":             "GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n",
		"a control character":       "GET / HTTP/1.1\r\nHost: h\r\nA: \x01\r\n\r\n",
		"a long line, no colon":     "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A", 1000) + "\r\n\r\n",
		"a head over the limit":     "GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("b", message.MaxHead) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := message.ParseRequest([]byte(text))
			if !errors.Is(err, message.ErrMalformed) || r != nil {
				t.Errorf("got %+v, %v; want ErrMalformed", r, err)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestMalformedResponsesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                 "",
		"no empty line":         "HTTP/1.1 200 OK\r\n",
		"another version":       "HTTP/1.0 200 OK\r\n\r\n",
		"no reason or space":    "HTTP/1.1 200\r\n\r\n",
		"two digits":            "HTTP/1.1 20 OK\r\n\r\n",
		"four digits":           "HTTP/1.1 2000 OK\r\n\r\n",
		"no digits":             "HTTP/1.1 2x0 OK\r\n\r\n",
		"a leading zero":        "HTTP/1.1 099 OK\r\n\r\n",
		"not final":             "HTTP/1.1 103 Early Hints\r\n\r\n",
		"a control character":   "HTTP/1.1 200 O\x00K\r\n\r\n",
		"a folded line":         "HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n",
		"a head over the limit": "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", message.MaxHead) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := message.ParseResponse([]byte(text)); !errors.Is(err, message.ErrMalformed) || r != nil {
				t.Errorf("got %+v, %v; want ErrMalformed", r, err)
			}
		})
	}
}

func TestAppendingToAParsedMessageDoesNotReachItsNeighbours(t *testing.T) {
	text := []byte("HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\nbodyNEXT")
	response, err := message.ParseResponse(text[:len(text)-len("NEXT")])
	if err != nil {
		t.Fatal(err)
	}
	response.Body = append(response.Body, "xxxx"...)
	response.Header.Add("A", "3")
	if !bytes.HasSuffix(text, []byte("bodyNEXT")) || response.Header.Get("B") != "2" {
		t.Errorf("text is %q, header is %v", text, response.Header)
	}
}

func manyFields(n int) http.Header {
	header := http.Header{}
	for i := range n {
		header.Set("X-"+strings.Repeat("A", i+1), strings.Repeat("b", i))
	}
	return header
}

func sameRequest(a, b *message.Request) bool {
	return a.Method == b.Method && a.Target == b.Target && a.Host == b.Host && reflect.DeepEqual(a.Header, b.Header) && bytes.Equal(a.Body, b.Body)
}

package invoke_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/invoke"
)

// TestRequestsAreThoseOfAServer sends the same request to a server and compares
// all that a handler can see of it.
func TestRequestsAreThoseOfAServer(t *testing.T) {
	type seen struct {
		request *http.Request // without what is compared on its own
		body    string
		after   error
	}
	look := func(r *http.Request) seen {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, after := r.Body.Read(make([]byte, 1))
		if _, ok := r.Context().Value(http.ServerContextKey).(*http.Server); !ok {
			t.Error("there is no server in the context")
		}
		if _, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok {
			t.Error("there is no local address in the context")
		}
		if _, err := netip.ParseAddrPort(r.RemoteAddr); err != nil {
			t.Error(err)
		}
		if (r.Body == http.NoBody) != (len(body) == 0) {
			t.Errorf("Body is %T for %q", r.Body, body)
		}
		plain := r.WithContext(context.Background())
		plain.Body, plain.RemoteAddr = nil, ""
		return seen{plain, string(body), after}
	}
	requests := make(chan seen, 1)
	server := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { requests <- look(r) }))
	for name, test := range map[string]struct{ method, target, header, body string }{
		"plain":          {"GET", "/", "", ""},
		"with a body":    {"POST", "/tracks?a=1&b=%20+", "Content-Type: text/plain\r\nContent-Length: 4\r\n", "body"},
		"encoded path":   {"PUT", "/a%2Fb/%7e//[x];y/%C3%BC", "", ""},
		"empty query":    {"DELETE", "/a?", "", ""},
		"odd query":      {"GET", "/a?b#c?\"ü", "", ""},
		"two slashes":    {"GET", "//host/path", "", ""},
		"dots":           {"GET", "/../a/./b", "", ""},
		"own method":     {"PURGE", "/a", "", ""},
		"many values":    {"GET", "/", "A: 2\r\na: 1\r\nX-Y: \xff\r\nCookie: a=1; b=2\r\nX-Empty:\r\n", ""},
		"zero length":    {"POST", "/", "Content-Length: 0\r\n", ""},
		"with user info": {"GET", "/@a:b", "Authorization: Basic YTpi\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			connection, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			head := "Host: example.com:8080\r\n" + test.header + "\r\n"
			if _, err := io.WriteString(connection, test.method+" "+test.target+" HTTP/1.1\r\n"+head+test.body); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(bufio.NewReader(connection), nil); err != nil {
				t.Fatal(err)
			}
			want := <-requests

			call := &invoke.Call{Method: test.method, Target: test.target, Host: "example.com:8080", Scheme: "http", Body: []byte(test.body), Header: http.Header{}}
			for line := range strings.Lines(test.header) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
				call.Header.Add(name, strings.TrimSpace(value))
			}
			request, err := call.Request(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got := look(request); !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v\n%+v\nwant\n%+v\n%+v", got, got.request, want, want.request)
			}
		})
	}
}

func TestWhatACallSaysIsInItsRequest(t *testing.T) {
	type key struct{}
	server, address := &http.Server{}, &net.TCPAddr{Port: 8080}
	call := &invoke.Call{
		Method: "POST", Target: "/a", Host: "example.com:444", Scheme: "https", RemoteAddr: "192.0.2.7:1", Body: []byte("body"),
		Header: http.Header{"Host": {"other"}, "Transfer-Encoding": {"chunked"}, "Content-Length": {"99"}, "A": {"b"}},
		Server: server, LocalAddr: address,
	}
	request, err := call.Request(context.WithValue(context.Background(), key{}, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (http.Header{"Content-Length": {"4"}, "A": {"b"}}); !reflect.DeepEqual(request.Header, want) {
		t.Errorf("header is %v, want %v", request.Header, want)
	}
	ctx := request.Context()
	if ctx.Value(http.ServerContextKey) != server || ctx.Value(http.LocalAddrContextKey) != address || ctx.Value(key{}) != "mine" {
		t.Error("the context lacks a value")
	}
	if want := (&tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: "example.com"}); !reflect.DeepEqual(request.TLS, want) {
		t.Errorf("TLS is %+v", request.TLS)
	}
	if request.RemoteAddr != "192.0.2.7:1" || request.Host != "example.com:444" || request.ContentLength != 4 {
		t.Errorf("got %+v", request)
	}
}

func TestTheServerNameHasNoPort(t *testing.T) {
	for host, want := range map[string]string{"example.com": "example.com", "example.com:8443": "example.com", "[::1]": "::1", "[::1]:8443": "::1"} {
		request, err := (&invoke.Call{Method: "GET", Target: "/", Host: host, Scheme: "https"}).Request(context.Background())
		if err != nil || request.TLS.ServerName != want {
			t.Errorf("%q: %q, %v; want %q", host, request.TLS.ServerName, err, want)
		}
	}
}

func TestACancelledContextIsSeenByTheHandler(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	request, err := (&invoke.Call{Method: "GET", Target: "/"}).Request(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	result := invoke.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		w.WriteHeader(299)
	}), request, 0)
	if result.Status != 299 {
		t.Errorf("got %+v", result)
	}
}

func TestRequestsThatAreNoneAreRefused(t *testing.T) {
	for _, call := range []invoke.Call{
		{Method: "", Target: "/"},
		{Method: "GET", Target: ""},
		{Method: "GET", Target: "a"},
		{Method: "GET", Target: "http://example.com/"},
		{Method: "GET", Target: "/%zz"},
		{Method: "GET", Target: "/a\nb"},
	} {
		if request, err := call.Request(context.Background()); !errors.Is(err, invoke.ErrInvalid) || request != nil {
			t.Errorf("%q %q: %v, %v; want ErrInvalid", call.Method, call.Target, request, err)
		}
	}
}

// FuzzRequest compares the URL with the one that net/http reads.
func FuzzRequest(f *testing.F) {
	for _, target := range []string{"/", "*", "/a%2fb?c", "//a/b", "/a?", "/%", "/[]#?\"ü"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, err := (&invoke.Call{Method: "GET", Target: target, Host: "h"}).Request(context.Background())
		if err != nil {
			return
		}
		if strings.ContainsAny(target, " \r\n") {
			return // no target of a request line
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil {
			t.Fatalf("%q is a request, but not for net/http: %v", target, err)
		}
		if !reflect.DeepEqual(got.URL, want.URL) || got.RequestURI != want.RequestURI || got.Host != want.Host {
			t.Fatalf("%q is %+v, but for net/http %+v", target, got.URL, want.URL)
		}
	})
}

package invoke_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/invoke"
)

// outcome is what a client gets, in what has to be the same whether a handler is
// behind a connection or called by Serve.
type outcome struct {
	broken bool // no response, or not all of it
	status int
	header http.Header
	body   string
}

func (o outcome) String() string {
	if o.broken {
		return "no complete response"
	}
	return fmt.Sprintf("%d %v %q", o.status, o.header, o.body)
}

// hopless removes what is about the connection and what a server sets itself.
func hopless(header http.Header) http.Header {
	for _, name := range []string{"Date", "Content-Length", "Connection", "Transfer-Encoding", "Trailer"} {
		header.Del(name)
	}
	return header
}

// overConnection asks a real server.
func overConnection(t *testing.T, server *httptest.Server, method string, header http.Header) outcome {
	t.Helper()
	request, err := http.NewRequest(method, server.URL+"/dir/file?q=1", strings.NewReader("request body"))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := server.Client().Transport.RoundTrip(request)
	if err != nil {
		return outcome{broken: true}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return outcome{broken: true}
	}
	return outcome{status: response.StatusCode, header: hopless(response.Header), body: string(body)}
}

// byServe calls the handler.
func byServe(t *testing.T, h http.Handler, method string) outcome {
	t.Helper()
	call := &invoke.Call{Method: method, Target: "/dir/file?q=1", Host: "example.com", Scheme: "http", Body: []byte("request body")}
	request, err := call.Request(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	result := invoke.Serve(h, request, -1)
	if result.Panic != nil || result.Aborted || result.Short {
		return outcome{broken: true}
	}
	return outcome{status: result.Status, header: hopless(result.Header), body: string(result.Body)}
}

func newServer(t testing.TB, h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	transport := server.Client().Transport.(*http.Transport)
	transport.DisableCompression = true
	// A connection for each request: the server may be about to close an old one,
	// and then a client repeats the request, or fails.
	transport.DisableKeepAlives = true
	return server
}

// brokenUpstream is a proxy to an upstream that declares more than it sends.
func brokenUpstream(t *testing.T) http.Handler {
	upstream := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "not all")
	}))
	return proxyTo(t, upstream.URL)
}

// absentUpstream is a proxy to where nobody listens.
func absentUpstream(t *testing.T) http.Handler {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	return proxyTo(t, "http://"+listener.Addr().String())
}

func proxyTo(t *testing.T, address string) http.Handler {
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// betterForHEAD names what a server sends to HEAD that Serve does not: a
// Content-Length that is no number, and a success that turned out to be none.
var betterForHEAD = map[string]bool{"bad length": true, "late panic": true}

func TestHandlersCannotTellServeFromAServer(t *testing.T) {
	big := strings.Repeat("<html>", 1000)
	modified := time.Date(2012, 7, 1, 0, 0, 0, 0, time.UTC)
	handlers := map[string]http.Handler{
		"broken upstream": brokenUpstream(t),
		"absent upstream": absentUpstream(t),
		"mux, not found":  http.NewServeMux(),
	}
	for name, h := range map[string]func(w http.ResponseWriter, r *http.Request){
		"nothing":         func(w http.ResponseWriter, r *http.Request) {},
		"implicit status": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "text") },
		"explicit status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); io.WriteString(w, "<h1>html") },
		"unusual status":  func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(999) },
		"empty write":     func(w http.ResponseWriter, r *http.Request) { w.Write(nil); w.WriteHeader(500) },
		"204 with a body": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204); writeAndTell(w, "body") },
		"304 with a body": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304); writeAndTell(w, "body") },
		"304 with a type": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			w.WriteHeader(304)
		},
		"204 with a type": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			w.WriteHeader(204)
		},
		"big body":          func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, big) },
		"sniffed in pieces": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<ht"); io.WriteString(w, "ml>") },
		"sniffed at a flush": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<ht")
			flush(w)
			io.WriteString(w, "ml>")
		},
		"flushed unwritten": func(w http.ResponseWriter, r *http.Request) { flush(w); io.WriteString(w, "<html>") },
		"binary":            func(w http.ResponseWriter, r *http.Request) { w.Write([]byte{0xff, 0, 1}) },
		"coded": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "x")
			io.WriteString(w, "<html>")
		},
		"no type": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		},
		"empty type": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "")
			io.WriteString(w, "<html>")
		},
		"hints": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Set("Link", "</b>; rel=preload")
			io.WriteString(w, "text")
		},
		"header after the body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("A", "before")
			io.WriteString(w, "text")
			w.Header().Set("A", "after")
			w.Header().Set("B", "after")
		},
		"header after the status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202); w.Header().Set("A", "after") },
		"two statuses":            func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202); w.WriteHeader(404) },
		"bad status":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(99) },
		"declared length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			writeAndTell(w, "text")
		},
		"short body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			writeAndTell(w, "text")
		},
		"superfluous body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			writeAndTell(w, "text")
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		},
		"bad length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "-4")
			io.WriteString(w, "text")
		},
		"chunked by itself": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			io.WriteString(w, "<html>")
		},
		"panic":      func(w http.ResponseWriter, r *http.Request) { panic("broken") },
		"late panic": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "text"); flush(w); panic("broken") },
		"abort":      func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "text"); panic(http.ErrAbortHandler) },
		"exit":       func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "text"); runtime.Goexit() },
		"trailers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "A")
			io.WriteString(w, "text")
			w.Header().Set("A", "trailer")
			w.Header().Set(http.TrailerPrefix+"B", "trailer")
		},
		"early trailer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(http.TrailerPrefix+"B", "x")
			io.WriteString(w, "text")
		},
		"repeated fields": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["A"] = []string{"2", " 1 ", "", "2"}
			io.WriteString(w, "text")
		},
		"lower case names": func(w http.ResponseWriter, r *http.Request) { w.Header()["x-a"] = []string{"1"} },
		"bad names": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["a b"] = []string{"1"}
			w.Header()[""] = []string{"1"}
		},
		"split values":    func(w http.ResponseWriter, r *http.Request) { w.Header().Set("A", "1\r\nB: 2\n") },
		"bytes in values": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("A", "\x80\xffü\t.") },
		"cookies": func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "other?x#y", http.StatusSeeOther) },
		"error":    func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no <b>", http.StatusTeapot) },
		"content": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "a.css", modified, strings.NewReader(big))
		},
		"content without a name": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", modified, strings.NewReader(big))
		},
		"part of content": func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=10-19")
			http.ServeContent(w, r, "a.css", modified, strings.NewReader(big))
		},
		"copied":    func(w http.ResponseWriter, r *http.Request) { io.Copy(w, strings.NewReader(big)) },
		"read from": func(w http.ResponseWriter, r *http.Request) { w.(io.ReaderFrom).ReadFrom(bytes.NewReader([]byte(big))) },
		"echo": func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			_, again := r.Body.Read(make([]byte, 1))
			fmt.Fprintf(w, "%s %s %s %q %v %v", r.Method, r.URL.Path, r.URL.RawQuery, body, err, again)
		},
		"closed request body": func(w http.ResponseWriter, r *http.Request) {
			r.Body.Close()
			_, err := r.Body.Read(make([]byte, 1))
			fmt.Fprint(w, err)
		},
		"controlled": func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			fmt.Fprint(w, control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{}), control.EnableFullDuplex(), control.Flush())
		},
		"timeout handler": func(w http.ResponseWriter, r *http.Request) {
			http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Millisecond, "late").ServeHTTP(w, r)
		},
		"path values": func(w http.ResponseWriter, r *http.Request) {
			mux := http.NewServeMux()
			mux.HandleFunc("/dir/{name}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("name"), r.Pattern) })
			mux.ServeHTTP(w, r)
		},
		"form": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.FormValue("q"), r.ParseForm()) },
	} {
		handlers[name] = http.HandlerFunc(h)
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			server := newServer(t, h)
			for _, method := range []string{"GET", "POST", "HEAD"} {
				if method == "HEAD" && betterForHEAD[name] {
					continue
				}
				want, got := overConnection(t, server, method, nil), byServe(t, h, method)
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s\nby Serve:          %v\nover a connection: %v", method, got, want)
				}
			}
		})
	}
}

// writeAndTell writes, and says in a field that can't be seen, but in the error
// that the panic makes, when writing had another result than expected.
func writeAndTell(w http.ResponseWriter, s string) {
	if n, err := io.WriteString(w, s); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) || err == nil && n != len(s) {
		panic(fmt.Sprint(n, err))
	}
}

func flush(w http.ResponseWriter) { w.(http.Flusher).Flush() }

// program is a handler that does what its bytes say: an operation and its
// argument in turn. At its end it tells what the operations returned.
func program(code []byte, returned chan<- []string) http.Handler {
	statuses := []int{103, 200, 201, 204, 206, 301, 304, 404, 500, 999}
	names := []string{"Content-Type", "Content-Encoding", "Content-Length", "A", "x-a", "a b", "Trailer", http.TrailerPrefix + "A"}
	values := []string{"", "a/b", "3", "10", "x\r\ny", " z ", "A"}
	pieces := []string{"", "<ht", "ml>", "text", "\x00\xff", strings.Repeat("<p>", 700)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var results []string
		hints := 0
		for i := 0; i+1 < len(code) && i < 20; i += 2 {
			argument := int(code[i+1])
			switch code[i] % 7 {
			case 0, 1:
				status := statuses[argument%len(statuses)]
				if status < 200 {
					hints++
				}
				if status >= 200 || hints < 5 { // clients put up with five
					w.WriteHeader(status)
				}
			case 2:
				n, err := io.WriteString(w, pieces[argument%len(pieces)])
				results = append(results, fmt.Sprint(n, err))
			case 3:
				n, err := w.Write([]byte(pieces[argument%len(pieces)]))
				results = append(results, fmt.Sprint(n, err))
			case 4:
				name, value := names[argument%len(names)], values[argument/len(names)%len(values)]
				if name == "Content-Length" && r.Method == "HEAD" { // see betterForHEAD
					value = "10"
				}
				w.Header()[name] = []string{value}
			case 5:
				flush(w)
			case 6:
				if argument%2 == 0 {
					delete(w.Header(), names[argument/2%len(names)])
				} else {
					w.Header()[names[argument/2%len(names)]] = nil
				}
			}
		}
		returned <- results
	})
}

func FuzzHandlers(f *testing.F) {
	for _, seed := range []string{"0200020305000401", "0412020302030203", "000302030203", "04000201", "0500020104000201", "0409000102010201", "040e0203", "0403060302010501"} {
		code, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(code, false)
		f.Add(code, true)
	}
	returned := make(chan []string, 1)
	server := newServer(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := hex.DecodeString(r.Header.Get("Program"))
		if err != nil {
			panic(err)
		}
		program(code, returned).ServeHTTP(w, r)
	}))
	f.Fuzz(func(t *testing.T, code []byte, head bool) {
		method := "POST"
		if head {
			method = "HEAD"
		}
		code = code[:min(len(code), 20)]
		want := overConnection(t, server, method, http.Header{"Program": {hex.EncodeToString(code)}})
		wantResults := <-returned
		got := byServe(t, program(code, returned), method)
		gotResults := <-returned
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(gotResults, wantResults) {
			t.Errorf("%s %x\nby Serve:          %v %v\nover a connection: %v %v", method, code, got, gotResults, want, wantResults)
		}
	})
}

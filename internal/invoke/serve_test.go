package invoke_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/field"
	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/message"
)

// serve calls a handler with a request of a method.
func serve(t testing.TB, method string, maxBody int64, h http.HandlerFunc) invoke.Result {
	t.Helper()
	request, err := (&invoke.Call{Method: method, Target: "/", Host: "example.com"}).Request(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return invoke.Serve(h, request, maxBody)
}

func TestAPanicIsReportedWithItsPlace(t *testing.T) {
	for _, cause := range []any{"text", errors.New("error"), []int{1}, 7} {
		result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "body")
			panickingFunction(cause)
		})
		if !reflect.DeepEqual(result.Panic, cause) || !bytes.Contains(result.Stack, []byte("panickingFunction")) {
			t.Errorf("got %v at %s", result.Panic, result.Stack)
		}
		if result.Status != 0 || result.Header != nil || result.Body != nil || result.Aborted {
			t.Errorf("there is a response beside the panic: %+v", result)
		}
	}
}

func panickingFunction(cause any) { panic(cause) }

func TestAPanicWithNilIsAPanic(t *testing.T) {
	result := serve(t, "GET", -1, func(http.ResponseWriter, *http.Request) {
		var nothing any
		panic(nothing)
	})
	var want *runtime.PanicNilError
	if err, ok := result.Panic.(error); !ok || !errors.As(err, &want) || result.Aborted {
		t.Errorf("got %+v", result)
	}
}

func TestAnAbortIsNoPanic(t *testing.T) {
	for name, end := range map[string]func(){
		"ErrAbortHandler": func() { panic(http.ErrAbortHandler) },
		"Goexit":          func() { runtime.Goexit() },
	} {
		result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "body")
			end()
		})
		if want := (invoke.Result{Aborted: true}); !reflect.DeepEqual(result, want) {
			t.Errorf("%s: got %+v", name, result)
		}
	}
}

func TestTheBodyIsLimited(t *testing.T) {
	for _, test := range []struct {
		name     string
		max      int64
		method   string
		pieces   []string
		tooLarge bool
	}{
		{"under", 10, "GET", []string{"12345"}, false},
		{"exactly", 10, "GET", []string{"12345", "67890"}, false},
		{"over", 10, "GET", []string{"12345", "678901"}, true},
		{"over, then less", 10, "GET", []string{"12345678901", "1"}, true},
		{"none allowed", 0, "GET", []string{"1"}, true},
		{"none allowed, none there", 0, "GET", []string{""}, false},
		{"no limit", -1, "GET", []string{strings.Repeat("1", 1<<20)}, false},
		{"no body for HEAD, so no limit", 10, "HEAD", []string{"12345678901"}, false},
	} {
		for way, write := range map[string]func(w http.ResponseWriter, s string) (int64, error){
			"Write": func(w http.ResponseWriter, s string) (int64, error) {
				n, err := w.Write([]byte(s))
				return int64(n), err
			},
			"WriteString": func(w http.ResponseWriter, s string) (int64, error) {
				n, err := io.WriteString(w, s)
				return int64(n), err
			},
			"ReadFrom": func(w http.ResponseWriter, s string) (int64, error) {
				return w.(io.ReaderFrom).ReadFrom(io.MultiReader(strings.NewReader(s)))
			},
		} {
			t.Run(test.name+", "+way, func(t *testing.T) {
				var last error
				result := serve(t, test.method, test.max, func(w http.ResponseWriter, r *http.Request) {
					for _, piece := range test.pieces {
						n, err := write(w, piece)
						if err == nil && n != int64(len(piece)) {
							t.Errorf("%d of %d bytes written without an error", n, len(piece))
						}
						last = err
					}
				})
				if result.TooLarge != test.tooLarge || errors.Is(last, invoke.ErrTooLarge) != test.tooLarge || last != nil && !test.tooLarge {
					t.Errorf("too large: %t, %v; want %t", result.TooLarge, last, test.tooLarge)
				}
				want := strings.Join(test.pieces, "")
				if test.tooLarge || test.method == "HEAD" {
					want = ""
				}
				if string(result.Body) != want || result.Status != 200 || result.Short {
					t.Errorf("got %d with %d bytes, want %d", result.Status, len(result.Body), len(want))
				}
			})
		}
	}
}

func TestAProxiedBodyOverTheLimitIsTooLargeAndNotAborted(t *testing.T) {
	upstream := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "a/b")
		w.WriteHeader(201)
		io.WriteString(w, strings.Repeat("x", 100))
	}))
	result := serve(t, "GET", 10, proxyTo(t, upstream.URL).ServeHTTP)
	if !result.TooLarge || result.Aborted || result.Panic != nil || result.Status != 201 || result.Header.Get("Content-Type") != "a/b" || result.Body != nil {
		t.Errorf("got %+v", result)
	}
}

func TestAPanicAfterABodyOverTheLimitIsAPanic(t *testing.T) {
	result := serve(t, "GET", 10, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 100))
		panic("broken")
	})
	if result.Panic != "broken" || result.TooLarge || result.Status != 0 {
		t.Errorf("got %+v", result)
	}
}

func TestADeclaredLengthReservesNoMoreThanTheLimit(t *testing.T) {
	result := serve(t, "GET", 10, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "9000000000000000000")
		io.WriteString(w, "12345")
	})
	if !result.Short || result.TooLarge || cap(result.Body) > 1024 {
		t.Errorf("got %+v", result)
	}
}

func TestShortBodies(t *testing.T) {
	for _, test := range []struct {
		method string
		status int
		body   string
		short  bool
	}{
		{"GET", 200, "1234", true}, {"GET", 200, "12345", false}, {"GET", 200, "", true}, {"HEAD", 200, "", false},
		{"HEAD", 200, "12", false}, {"GET", 304, "", false}, {"GET", 204, "", false}, {"POST", 404, "1", true},
	} {
		result := serve(t, test.method, -1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(test.status)
			io.WriteString(w, test.body)
		})
		if result.Short != test.short || result.Status != test.status {
			t.Errorf("%+v: got %+v", test, result)
		}
	}
}

func TestContentLengthIsOnlyInTheResponseToHEAD(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		h      http.HandlerFunc
		want   string
	}{
		"declared": {"GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1")
			io.WriteString(w, "x")
		}, ""},
		"declared to HEAD": {"HEAD", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "7") }, "7"},
		"declared, not by 204": {"HEAD", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "7")
			w.WriteHeader(204)
		}, ""},
		"declared badly":        {"HEAD", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "x") }, ""},
		"written to HEAD":       {"HEAD", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 5000)) }, "5000"},
		"flushed to HEAD":       {"HEAD", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x"); flush(w); io.WriteString(w, "x") }, ""},
		"nothing said to HEAD":  {"HEAD", func(w http.ResponseWriter, r *http.Request) {}, ""},
		"trailers, not to HEAD": {"HEAD", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Trailer", "A"); io.WriteString(w, "x") }, ""},
	} {
		result := serve(t, test.method, -1, test.h)
		if got := result.Header.Get("Content-Length"); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestAWriterOutlivesItsHandlerWithoutHarm(t *testing.T) {
	for name, end := range map[string]func(){"returned": func() {}, "panicked": func() { panic("broken") }} {
		var kept http.ResponseWriter
		result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
			kept = w
			io.WriteString(w, "body")
			end()
		})
		want := string(result.Body)
		kept.WriteHeader(500)
		kept.Header().Set("A", "late")
		if _, err := io.WriteString(kept, "late"); !errors.Is(err, invoke.ErrReturned) {
			t.Errorf("%s: writing late gives %v", name, err)
		}
		if err := http.NewResponseController(kept).Flush(); !errors.Is(err, invoke.ErrReturned) {
			t.Errorf("%s: flushing late gives %v", name, err)
		}
		if string(result.Body) != want || result.Header.Get("A") != "" {
			t.Errorf("%s: the result became %+v", name, result)
		}
	}
}

func TestThereIsNoConnectionToHijack(t *testing.T) {
	serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
		_, _, direct := w.(http.Hijacker).Hijack()
		_, _, controlled := http.NewResponseController(w).Hijack()
		for _, err := range []error{direct, controlled} {
			if !errors.Is(err, http.ErrNotSupported) || !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "no connection") {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSwitchingProtocolsIsAFailure(t *testing.T) {
	result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(101) })
	if result.Status != 500 {
		t.Errorf("got %+v", result)
	}
}

func TestMisusesAreToldToTheLogOfTheServer(t *testing.T) {
	for name, test := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"two statuses":   {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); w.WriteHeader(404) }, "superfluous response.WriteHeader call from github.com/itscales/scales/internal/invoke_test.TestMisuses"},
		"through a func": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); http.Error(w, "", 404) }, "serve_test.go"},
		"bad length":     {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "x") }, `invalid Content-Length of "x"`},
		"protocols":      {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(101) }, "status 101"},
		"none":           {func(w http.ResponseWriter, r *http.Request) {}, ""},
	} {
		var out bytes.Buffer
		call := &invoke.Call{Method: "GET", Target: "/", Server: &http.Server{ErrorLog: log.New(&out, "", 0)}}
		request, err := call.Request(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		invoke.Serve(test.h, request, -1)
		if !strings.Contains(out.String(), test.want) || (out.Len() == 0) != (test.want == "") {
			t.Errorf("%s: the log says %q", name, out.String())
		}
	}
}

func TestWhatARequestHeldIsGivenBack(t *testing.T) {
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	part, err := writer.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(bytes.Repeat([]byte("x"), 1000))
	writer.Close()
	call := &invoke.Call{Method: "POST", Target: "/", Header: http.Header{"Content-Type": {writer.FormDataContentType()}}, Body: form.Bytes()}
	request, err := call.Request(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var path string
	var seen *http.Request
	invoke.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		if err := r.ParseMultipartForm(0); err != nil { // no file is kept in memory
			t.Error(err)
			return
		}
		file, err := r.MultipartForm.File["file"][0].Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		if onDisk, ok := file.(*os.File); ok {
			path = onDisk.Name()
		}
	}), request, -1)
	if _, err := os.Stat(path); path == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the form's file %q is still there: %v", path, err)
	}
	if err := seen.Context().Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("the context is not cancelled: %v", err)
	}
	if _, err := seen.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("reading the body late gives %v", err)
	}
}

func TestSpellingsOfAFieldAreJoined(t *testing.T) {
	result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["x-a"] = []string{"2", "3"}
		w.Header()["X-A"] = []string{"1"}
		w.Header()["X-B"] = []string{"4"}
	})
	result.Header.Add("X-A", "5")
	if want := (http.Header{"X-A": {"1", "2", "3", "5"}, "X-B": {"4"}}); !reflect.DeepEqual(result.Header, want) {
		t.Errorf("got %v, want %v", result.Header, want)
	}
}

// FuzzHeader checks that whatever a handler sets, the result can be written as a
// message and be read again.
func FuzzHeader(f *testing.F) {
	f.Add("A", "b", "x-a", "c\r\nd\x00")
	f.Add("Content-Length", "-1", "content-type", "\x7f")
	f.Add("a b", "", "", " \t")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		result := serve(t, "GET", -1, func(w http.ResponseWriter, r *http.Request) {
			w.Header()[name1] = []string{value1, value2}
			w.Header()[name2] = []string{value2}
			fmt.Fprint(w, "body")
		})
		if err := field.Valid(result.Header); err != nil {
			t.Fatal(err)
		}
		text, err := message.AppendResponse(nil, &message.Response{Status: result.Status, Header: result.Header, Body: result.Body})
		if err != nil {
			t.Fatal(err)
		}
		response, err := message.ParseResponse(text)
		if err != nil || !reflect.DeepEqual(response.Header, result.Header) || !slices.Equal(response.Body, result.Body) {
			t.Fatalf("%q is read as %+v, %v", text, response, err)
		}
	})
}

func BenchmarkServe(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 512)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write(body)
	})
	call := &invoke.Call{Method: "POST", Target: "/tracks?album=3", Host: "example.com", Header: http.Header{}, Body: body, Server: &http.Server{}}
	b.ReportAllocs()
	for b.Loop() {
		request, err := call.Request(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if result := invoke.Serve(h, request, 1<<20); result.Status != 200 {
			b.Fatal(result)
		}
	}
}

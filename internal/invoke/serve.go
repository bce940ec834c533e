package invoke

import (
	"context"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/itscales/scales/internal/field"
)

// Result is what came of a call. If Panic is not nil or Aborted is true, there
// is no response, and nothing else but Stack is set.
type Result struct {
	// Status is the status of the response, 200 to 999.
	Status int

	// Header is the response's header, with canonical names, tokens all of them,
	// and values without control characters. The fields of one hop are still in
	// it, except those that say how the body is framed: Transfer-Encoding, Trailer
	// and Content-Length. Content-Length is there only in the response to HEAD,
	// where it tells what the body doesn't: the length that the handler declared,
	// or how much it wrote.
	Header http.Header

	// Body is the response's body. Nil if there is none or it is too large.
	Body []byte

	// Panic is what the handler panicked with, and Stack is where.
	Panic any
	Stack []byte

	// Aborted: the handler gave the response up, by a panic with
	// http.ErrAbortHandler or by runtime.Goexit.
	Aborted bool

	// TooLarge: the body was over the limit. Status and Header are set; that the
	// handler aborted because of it, as ReverseProxy does, doesn't count.
	TooLarge bool

	// Short: the body has fewer bytes than the handler declared, so it was cut off
	// on its way.
	Short bool
}

// Serve calls a handler and waits until it has returned. The request is one of
// [Call.Request] or of a server; the handler sees it with a context that is
// cancelled when the handler returns. Then its body is closed and the files of
// its form are removed, as net/http does.
//
// A body of more than maxBody bytes is refused to the handler as it writes;
// without a limit if maxBody is negative. The handler runs in a goroutine of its
// own, so that one that ends it (runtime.Goexit) doesn't end the caller's.
func Serve(h http.Handler, request *http.Request, maxBody int64) Result {
	ctx, cancel := context.WithCancel(request.Context())
	request = request.WithContext(ctx)
	recorder := newRecorder(request, maxBody)
	var result Result
	done := make(chan struct{})
	go func() {
		defer close(done)
		call(h, recorder, &result)
	}()
	<-done
	cancel()
	recorder.end(&result)
	if request.Body != nil {
		_ = request.Body.Close() // what the body has to say is for who read it
	}
	if request.MultipartForm != nil {
		// What cannot be removed stays in the directory for temporary files, where
		// net/http would leave it, too.
		_ = request.MultipartForm.RemoveAll()
	}
	return result
}

// call calls the handler and notes how it ended, unless it returned.
func call(h http.Handler, recorder *recorder, result *Result) {
	returned := false
	defer func() {
		if returned {
			return
		}
		// Goexit is what neither returns nor recovers anything.
		switch cause := recover(); cause {
		case nil, http.ErrAbortHandler:
			result.Aborted = true
		default:
			result.Panic, result.Stack = cause, debug.Stack()
		}
	}()
	h.ServeHTTP(recorder, recorder.request)
	returned = true
}

// cleaned returns a copy of a header as it may be sent: with canonical names, in
// which the spellings of a name are joined, without names that are no tokens,
// and with spaces for control characters (RFC 9110 §5.5). Where net/http lets
// other control characters than line ends through, no client would read on.
func cleaned(header http.Header) http.Header {
	names := make([]string, 0, len(header))
	count := 0
	for name, values := range header {
		if len(values) > 0 && field.IsName(name) {
			names = append(names, name)
			count += len(values)
		}
	}
	slices.Sort(names)
	clean := make(http.Header, len(names))
	array := make([]string, 0, count)
	for _, name := range names {
		start := len(array)
		for _, value := range header[name] {
			array = append(array, cleanedValue(value))
		}
		key := http.CanonicalHeaderKey(name)
		if present := clean[key]; present != nil {
			clean[key] = append(present, array[start:]...)
			continue
		}
		clean[key] = array[start:len(array):len(array)]
	}
	return clean
}

func cleanedValue(value string) string {
	isControl := func(b rune) bool { return b < ' ' && b != '\t' || b == 0x7F }
	if strings.ContainsFunc(value, isControl) {
		bytes := []byte(value)
		for i, b := range bytes {
			if isControl(rune(b)) {
				bytes[i] = ' '
			}
		}
		value = string(bytes)
	}
	return strings.Trim(value, " \t")
}

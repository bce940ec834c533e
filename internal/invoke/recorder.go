package invoke

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Errors that a handler may get from writing, besides those of net/http.
var (
	// ErrTooLarge: the body of the response would be over the limit.
	ErrTooLarge = errors.New("scales: response body over the limit")

	// ErrReturned: the handler, or the call of it, is over.
	ErrReturned = errors.New("scales: response written to after the handler returned")
)

// sniffLength is how many bytes http.DetectContentType looks at.
const sniffLength = 512

// recorder is the http.ResponseWriter of a call. It does what that of net/http's
// server does for HTTP/1.1, up to the point where bytes would be sent:
//
//   - The header is what it was at the first WriteHeader, Write or Flush. 1xx are
//     skipped. A second WriteHeader is ignored; a status outside of 100 to 999
//     panics.
//   - Without a Content-Type it is detected from the beginning of the body, unless
//     there is a Content-Encoding, or Content-Type is set to nil.
//   - There is no body to HEAD, 204 and 304, and no more of it than Content-Length
//     declares.
//   - Flush sends nothing, as the response is one piece, but it fixes the header.
//   - Trailers are dropped, which HTTP allows (RFC 9110 §6.5.1).
//   - There is no connection: Hijack is an error, deadlines are accepted and never
//     pass, and the request's body can be read while the response is written.
//
// Writing is safe after the handler has returned; it does nothing then.
type recorder struct {
	request *http.Request
	maxBody int64 // negative: no limit

	mu        sync.Mutex // guards what follows, not the content of header
	header    http.Header
	status    int         // 0 until the header is fixed
	fixed     http.Header // the header as it was then
	keepsType bool        // Content-Type is not to be detected
	trailers  bool        // there would be trailers
	declared  int64       // Content-Length, -1 if there is none
	flushed   bool        // the header would have been sent
	written   int64       // bytes that were offered
	body      []byte      // what was accepted; for HEAD only what is needed to detect its type
	tooLarge  bool
	returned  bool
}

var (
	_ http.Flusher    = (*recorder)(nil)
	_ http.Hijacker   = (*recorder)(nil)
	_ io.ReaderFrom   = (*recorder)(nil)
	_ io.StringWriter = (*recorder)(nil)
)

func newRecorder(request *http.Request, maxBody int64) *recorder {
	return &recorder{request: request, maxBody: maxBody, header: make(http.Header), declared: -1}
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.returned:
		return
	case r.status != 0:
		r.logf("http: superfluous response.WriteHeader call from %s", caller())
		return
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status == http.StatusSwitchingProtocols:
		// Nobody asked for it: no request has an Upgrade field, and there is no
		// connection to go on with.
		r.logf("http: response.WriteHeader with status 101, recorded as 500, from %s", caller())
		r.fix(http.StatusInternalServerError)
	case status > 199:
		r.fix(status)
	}
}

// fix takes the header as it is now.
func (r *recorder) fix(status int) {
	r.status = status
	r.fixed = cleaned(r.header)
	_, hasType := r.header["Content-Type"]
	r.keepsType = hasType || r.fixed.Get("Content-Type") != "" || r.fixed.Get("Content-Encoding") != "" || r.fixed.Get("Transfer-Encoding") != ""
	r.trailers = len(r.fixed["Trailer"]) > 0
	for name := range r.header {
		r.trailers = r.trailers || strings.HasPrefix(name, http.TrailerPrefix)
	}
	if length := r.fixed.Get("Content-Length"); length != "" {
		declared, err := strconv.ParseInt(length, 10, 64)
		if err != nil || declared < 0 {
			r.logf("http: invalid Content-Length of %q", length)
		} else {
			r.declared = declared
		}
	}
	const ample = 1 << 20 // more than that is not reserved for a promise
	if size := min(r.declared, ample); size > 0 && (r.maxBody < 0 || size <= r.maxBody) && r.hasContent() {
		r.body = make([]byte, 0, size)
	}
}

// bodyAllowed says whether the status allows a body (RFC 9110 §6.4.1).
func (r *recorder) bodyAllowed() bool {
	return r.status != http.StatusNoContent && r.status != http.StatusNotModified
}

// hasContent says whether what is written becomes a part of the response.
func (r *recorder) hasContent() bool {
	return r.bodyAllowed() && r.request.Method != http.MethodHead
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep, err := r.admit(len(p))
	if err != nil {
		return 0, err
	}
	r.body = append(r.body, p[:keep]...)
	return len(p), nil
}

func (r *recorder) WriteString(s string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep, err := r.admit(len(s))
	if err != nil {
		return 0, err
	}
	r.body = append(r.body, s[:keep]...)
	return len(s), nil
}

// admit decides about n bytes: whether they may be written and how many of them
// are kept.
func (r *recorder) admit(n int) (keep int, err error) {
	if r.returned {
		return 0, ErrReturned
	}
	if r.status == 0 {
		r.fix(http.StatusOK)
	}
	if n == 0 {
		return 0, nil
	}
	if !r.bodyAllowed() {
		return 0, http.ErrBodyNotAllowed
	}
	r.written += int64(n)
	if r.declared >= 0 && r.written > r.declared {
		return 0, http.ErrContentLength
	}
	if !r.hasContent() {
		return min(n, sniffLength-len(r.body)), nil
	}
	if r.maxBody >= 0 && r.written > r.maxBody {
		r.tooLarge = true
		r.body = nil
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, r.maxBody)
	}
	return n, nil
}

func (r *recorder) ReadFrom(source io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{r}, source)
}

func (r *recorder) Flush() {
	_ = r.FlushError() // http.Flusher has no place for it
}

// FlushError is what http.ResponseController calls.
func (r *recorder) FlushError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.returned {
		return ErrReturned
	}
	if r.status == 0 {
		r.fix(http.StatusOK)
	}
	r.send()
	return nil
}

// send is the moment at which the header would be sent.
func (r *recorder) send() {
	if r.flushed {
		return
	}
	r.flushed = true
	if r.bodyAllowed() && !r.keepsType && len(r.body) > 0 {
		r.fixed.Set("Content-Type", http.DetectContentType(r.body))
	}
}

// Hijack always fails. The method is there so that a handler which wants the
// connection can say what is wrong.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, fmt.Errorf("scales: a request from the queue has no connection to hijack; route it around the server: %w", http.ErrNotSupported)
}

// SetReadDeadline accepts any deadline: the request's body is there already.
func (r *recorder) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline accepts any deadline: writing never waits.
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// EnableFullDuplex has nothing to enable.
func (r *recorder) EnableFullDuplex() error { return nil }

// finish does what is left to do after the handler, and puts the response into
// the result.
func (r *recorder) finish(result *Result) {
	if r.status == 0 {
		r.fix(http.StatusOK)
	}
	unsent := !r.flushed
	r.send()

	coded := r.fixed.Get("Transfer-Encoding") != ""
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer"} {
		r.fixed.Del(name)
	}
	if r.status == http.StatusNotModified {
		r.fixed.Del("Content-Type")
	}
	if r.request.Method == http.MethodHead && r.bodyAllowed() {
		switch {
		case r.declared >= 0:
			r.fixed.Set("Content-Length", strconv.FormatInt(r.declared, 10))
		case unsent && r.written > 0 && !coded && !r.trailers:
			r.fixed.Set("Content-Length", strconv.FormatInt(r.written, 10))
		}
	}
	result.Status, result.Header = r.status, r.fixed
	result.TooLarge = r.tooLarge
	if r.hasContent() && !r.tooLarge {
		result.Body = r.body
		result.Short = int64(len(r.body)) < r.declared
	}
}

// end ends the response after the handler has ended, and puts what there is of
// it into the result.
func (r *recorder) end(result *Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// ReverseProxy aborts when it cannot pass on what it reads. The body over the
	// limit was first, and says more.
	result.Aborted = result.Aborted && !r.tooLarge
	if result.Panic == nil && !result.Aborted {
		r.finish(result)
	}
	r.returned = true
}

// logf tells the server's log, if there is one, as net/http does.
func (r *recorder) logf(format string, args ...any) {
	server, ok := r.request.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && server.ErrorLog != nil {
		server.ErrorLog.Printf(format, args...)
	}
}

// caller says where a method of the recorder was called, but for the functions
// of net/http, such as http.Error, between.
func caller() string {
	var counters [16]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(1, counters[:])])
	own := ""
	for {
		frame, more := frames.Next()
		if own == "" {
			own = strings.TrimSuffix(frame.Function, "caller")
		}
		if !more || !strings.HasPrefix(frame.Function, "net/http.") && !strings.HasPrefix(frame.Function, own) {
			return fmt.Sprintf("%s (%s:%d)", frame.Function, path.Base(frame.File), frame.Line)
		}
	}
}

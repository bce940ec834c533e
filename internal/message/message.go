// Package message has the formats in which Scales stores HTTP messages and
// sends them between processes. Programs in other languages may read and write
// them.
//
// A job ([Request]) and a reply ([Response]) are HTTP/1.1 message texts (RFC
// 9112) with one difference: everything after the empty line is the body,
// whatever Content-Length or Transfer-Encoding say, since the text itself has
// known bounds.
//
//	POST /tracks?album=3 HTTP/1.1\r\n       HTTP/1.1 201 Created\r\n
//	Host: example.com\r\n                   Location: /tracks/7\r\n
//	Content-Type: application/json\r\n      \r\n
//	\r\n
//	{"title": "Sinnerman"}
//
// A stored representation ([Entry]) is a line of JSON and then the body:
//
//	{"ticket":"00001764000000000001","status":200,"header":{"Content-Type":["text/html"]},"size":13}\n
//	<h1>Sinnerman
//
// All of them treat a header in one way. Names are written sorted and in their
// canonical form ([textproto.CanonicalMIMEHeaderKey]), the values of a name in
// their order, without the white space around them (RFC 9110 §5.5). A name
// without values isn't written. A name that is no token, and a value with a
// control character other than a tab, are refused in both directions; bytes
// from 0x80 to 0xFF are data.
//
// The functions are safe for concurrent use on different messages and change
// none of their arguments, but for the Append functions, which append to dst.
package message

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// Errors that the functions of this package wrap.
var (
	ErrInvalid   = errors.New("message cannot be written") // the caller's message
	ErrMalformed = errors.New("malformed message")         // what was read
)

// MaxHead is the limit of what precedes a body, in bytes: 1 MiB. A message with
// more is neither written nor read.
const MaxHead = 1 << 20

// Request is a job: a request as a server received it and as a worker passes it
// to the application.
type Request struct {
	Method string      // a token, such as "POST"
	Target string      // the request target in origin form, "/tracks?album=3", or "*"
	Host   string      // may be empty
	Header http.Header // without Host
	Body   []byte
}

// Response is the reply to a job. A final one: its status is 200 to 999.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// AppendRequest appends the text of a request to dst. A Host field in the
// header is left out, as [http.Request.Write] does; Content-Length is neither
// added nor corrected. The error wraps [ErrInvalid] and leaves dst as it was.
func AppendRequest(dst []byte, r *Request) ([]byte, error) {
	start := len(dst)
	switch {
	case !isToken(r.Method):
		return dst, fmt.Errorf("%w: method %q is not a token", ErrInvalid, r.Method)
	case !isTarget(r.Target):
		return dst, fmt.Errorf("%w: target %q is not in origin form", ErrInvalid, r.Target)
	case !isVisible(r.Host):
		return dst, fmt.Errorf("%w: host %q", ErrInvalid, r.Host)
	}
	dst = slices.Grow(dst, len(r.Target)+len(r.Host)+len(r.Body)+headSize(r.Header))
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Host...)
	dst = append(dst, "\r\n"...)
	return appendRest(dst, start, r.Header, "Host", r.Body)
}

// AppendResponse appends the text of a response to dst. Content-Length is
// neither added nor corrected. The error wraps [ErrInvalid] and leaves dst as it
// was.
func AppendResponse(dst []byte, r *Response) ([]byte, error) {
	start := len(dst)
	if !isFinal(r.Status) {
		return dst, fmt.Errorf("%w: status %d is not that of a final response", ErrInvalid, r.Status)
	}
	dst = slices.Grow(dst, len(r.Body)+headSize(r.Header))
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(r.Status)...)
	dst = append(dst, "\r\n"...)
	return appendRest(dst, start, r.Header, "", r.Body)
}

// appendRest appends what follows the first lines of a message that begins at
// start: the fields but one, the empty line and the body.
func appendRest(dst []byte, start int, header http.Header, except string, body []byte) ([]byte, error) {
	var buffer [nameBuffer]string
	names, header := sortedNames(buffer[:0], header)
	for _, name := range names {
		if !isToken(name) {
			return dst[:start], fmt.Errorf("%w: field name %q is not a token", ErrInvalid, name)
		}
		if name == except {
			continue
		}
		for _, value := range header[name] {
			value = textproto.TrimString(value)
			if !isFieldValue(value) {
				return dst[:start], fmt.Errorf("%w: field %s has a control character", ErrInvalid, name)
			}
			dst = append(dst, name...)
			dst = append(dst, ": "...)
			dst = append(dst, value...)
			dst = append(dst, "\r\n"...)
		}
	}
	dst = append(dst, "\r\n"...)
	if len(dst)-start > MaxHead {
		return dst[:start], fmt.Errorf("%w: head of %d bytes, the limit is %d", ErrInvalid, len(dst)-start, MaxHead)
	}
	return append(dst, body...), nil
}

// ParseRequest reads the text of a request. It is strict: lines end in CRLF,
// there is one Host field, none is folded, the version is HTTP/1.1. The fields
// of the result are its own but for Body, which aliases b. The error wraps
// [ErrMalformed].
func ParseRequest(b []byte) (*Request, error) {
	line, fields, body, err := splitHead(b)
	if err != nil {
		return nil, err
	}
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if !isToken(method) || !isTarget(target) || version != "HTTP/1.1" {
		return nil, fmt.Errorf("%w: request line %q", ErrMalformed, excerpt(line))
	}
	header, err := parseFields(fields)
	if err != nil {
		return nil, err
	}
	hosts := header["Host"]
	if len(hosts) != 1 || !isVisible(hosts[0]) {
		return nil, fmt.Errorf("%w: not one Host field with a host", ErrMalformed)
	}
	delete(header, "Host")
	return &Request{Method: method, Target: target, Host: hosts[0], Header: header, Body: body}, nil
}

// ParseResponse reads the text of a response, as strictly as [ParseRequest]. The
// reason phrase is skipped. Body aliases b. The error wraps [ErrMalformed].
func ParseResponse(b []byte) (*Response, error) {
	line, fields, body, err := splitHead(b)
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(rest) < 4 || rest[3] != ' ' || !isFieldValue(rest) {
		return nil, fmt.Errorf("%w: status line %q", ErrMalformed, excerpt(line))
	}
	status, ok := parseNumber(rest[:3])
	if !ok || !isFinal(int(status)) {
		return nil, fmt.Errorf("%w: status %q is not that of a final response", ErrMalformed, rest[:3])
	}
	header, err := parseFields(fields)
	if err != nil {
		return nil, err
	}
	return &Response{Status: int(status), Header: header, Body: body}, nil
}

// splitHead splits a message into its first line, its field lines, each with
// its CRLF, and its body. The head is copied once; what is parsed of it are
// parts of this copy.
func splitHead(b []byte) (line, fields string, body []byte, err error) {
	end := bytes.Index(b[:min(len(b), MaxHead)], []byte("\r\n\r\n"))
	switch {
	case end < 0 && len(b) > MaxHead:
		return "", "", nil, fmt.Errorf("%w: the head is over %d bytes", ErrMalformed, MaxHead)
	case end < 0:
		return "", "", nil, fmt.Errorf("%w: no empty line after the head", ErrMalformed)
	}
	line, fields, _ = strings.Cut(string(b[:end+2]), "\r\n")
	return line, fields, b[end+4 : len(b) : len(b)], nil
}

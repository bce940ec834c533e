// Package invoke calls the application as net/http's server would: with a
// request that a handler can't tell from one that came over a connection, and
// with a response writer that records what it is told.
package invoke

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// ErrInvalid is what the error of [Call.Request] wraps.
var ErrInvalid = errors.New("request cannot be made")

// Addresses from TEST-NET-1 (RFC 5737), for requests that no client made.
const (
	remoteAddress = "192.0.2.1:0"
	localAddress  = "192.0.2.2"
)

// Call is a request to the application.
type Call struct {
	// Method is a token such as "POST".
	Method string

	// Target is the request target in origin form, "/tracks?album=3", or "*".
	Target string

	// Host is the Host field.
	Host string

	// Scheme is "http" or "https". With https the request's TLS is not nil, since
	// handlers make absolute links and set Secure cookies by it. It says that a
	// handshake for the host was made, and nothing about the connection.
	Scheme string

	// RemoteAddr is the client's address with its port; by default one from
	// TEST-NET.
	RemoteAddr string

	// Header and Body belong to the request from then on; the header may be
	// changed by the handler. Nil: none.
	Header http.Header
	Body   []byte

	// Server is what a handler finds under http.ServerContextKey; ReverseProxy
	// looks there whether it may panic about a broken upstream. Its ErrorLog, if
	// it has one, is told of misuses of the response writer. Nil: an empty one.
	Server *http.Server

	// LocalAddr is what a handler finds under http.LocalAddrContextKey. Nil: an
	// address from TEST-NET with the port of the scheme.
	LocalAddr net.Addr
}

// Request makes the request. Its context is ctx with the two values of net/http
// in it. As from a connection, Host is not in the header, Transfer-Encoding is
// decoded and gone, Body is never nil, and a Content-Length in the header tells
// the length of the body, whatever it told before.
//
// The error wraps [ErrInvalid]; then there is no method, or the target is not one.
func (c *Call) Request(ctx context.Context) (*http.Request, error) {
	if c.Method == "" || c.Target != "*" && !strings.HasPrefix(c.Target, "/") {
		return nil, fmt.Errorf("%w: method %q, target %q", ErrInvalid, c.Method, c.Target)
	}
	target, err := url.ParseRequestURI(c.Target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	header := c.Header
	if header == nil {
		header = make(http.Header)
	}
	delete(header, "Host")
	delete(header, "Transfer-Encoding")
	if header["Content-Length"] != nil {
		header["Content-Length"] = []string{strconv.Itoa(len(c.Body))}
	}
	request := &http.Request{
		Method: c.Method, URL: target, RequestURI: c.Target,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Host: c.Host, RemoteAddr: c.RemoteAddr,
		Body: http.NoBody, ContentLength: int64(len(c.Body)),
	}
	if len(c.Body) > 0 {
		request.Body = &body{reader: *bytes.NewReader(c.Body)}
	}
	if request.RemoteAddr == "" {
		request.RemoteAddr = remoteAddress
	}
	if c.Scheme == "https" {
		host := url.URL{Host: c.Host}
		request.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: host.Hostname()}
	}
	return request.WithContext(c.context(ctx)), nil
}

func (c *Call) context(ctx context.Context) context.Context {
	values := &serverContext{Context: ctx, server: c.Server, address: c.LocalAddr}
	if values.server == nil {
		values.server = new(http.Server)
	}
	if values.address == nil {
		port := 80
		if c.Scheme == "https" {
			port = 443
		}
		values.address = &net.TCPAddr{IP: net.ParseIP(localAddress), Port: port}
	}
	return values
}

// serverContext has the values that net/http's server puts into the context of a
// request.
type serverContext struct {
	context.Context
	server  *http.Server
	address net.Addr
}

func (c *serverContext) Value(key any) any {
	switch key {
	case http.ServerContextKey:
		return c.server
	case http.LocalAddrContextKey:
		return c.address
	}
	return c.Context.Value(key)
}

// body is a request body. Like that of net/http it may be closed while another
// goroutine reads, and isn't read any more then.
type body struct {
	mu     sync.Mutex // guards all
	reader bytes.Reader
	closed bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.reader.Read(p)
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// quietKey is the target of a POST that owes nothing: it has a query, and no entry. The target of a POST without a query is
// rendered, whether or not it has an entry.
const quietKey = "/quiet?n=1"

func quietTarget(int) string { return quietKey }

// echoKey is the page that a caller has to itself, which is rendered when it has sent a POST there.
func echoKey(caller int) string { return fmt.Sprintf("/echo/%03d", caller) }

// posts is a side that is reached over HTTP: connections, over each of which one POST at a time is sent to an echo.
type posts struct {
	idle     chan *poster
	answered atomic.Int64 // with 201 and what was sent
	site     *site        // nil if it is not a site that answers
	process  *readerProcess
}

// A poster is a connection that POSTs to a target of its own.
type poster struct {
	*sample
	connection net.Conn
	forget     func() bool // the context
}

// newPosts opens n connections, the i-th of which sends to target(i). When ctx ends, what they do fails.
func newPosts(ctx context.Context, addr string, n int, target func(i int) string) (*posts, error) {
	p := &posts{idle: make(chan *poster, n)}
	for i := range n {
		c, err := newPoster(ctx, addr, target(i))
		if err != nil {
			p.hangUp()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		p.answered.Add(1) // the sample
		p.idle <- c
	}
	return p, nil
}

func newPoster(ctx context.Context, addr, target string) (*poster, error) {
	s, err := samplePost(ctx, addr, target)
	if err != nil {
		return nil, err
	}
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	forget := context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })
	return &poster{s, connection, forget}, nil
}

// samplePost sends one POST. Those after it have the same length.
func samplePost(ctx context.Context, addr, target string) (*sample, error) {
	header := http.Header{"Content-Length": {strconv.Itoa(payload)}, "Content-Type": {"text/plain; charset=utf-8"}}
	s, err := sampleOfRequest(ctx, addr, http.MethodPost, target, header, strings.Repeat(".", payload))
	if err == nil && (s.status != http.StatusCreated || len(s.body) != payload) {
		err = fmt.Errorf("POST %s: status %d with a body of %d bytes", target, s.status, len(s.body))
	}
	return s, err
}

// do sends a request as the body of a POST and returns the body of the response.
func (p *posts) do(ctx context.Context, request string) (string, error) {
	var c *poster
	select {
	case c = <-p.idle:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { p.idle <- c }()
	copy(c.request[len(c.request)-payload:], request)
	if err := c.connection.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		return "", err
	}
	if ctx.Err() != nil { // the deadline of its end may be what we have overwritten
		return "", context.Cause(ctx)
	}
	if err := c.exchange(c.connection); err != nil {
		return "", err
	}
	p.answered.Add(1)
	return string(c.response[len(c.response)-payload:]), nil
}

// usage returns what the processes have taken that answer.
func (p *posts) usage() (server, workers time.Duration, err error) {
	if p.process != nil {
		server, err = p.process.cpu()
	}
	if p.site != nil {
		t, tallyErr := p.site.tally()
		workers, err = t.CPU, errors.Join(err, tallyErr)
	}
	return server, workers, err
}

// close closes the connections.
func (p *posts) close(context.Context) error {
	p.hangUp()
	return nil
}

func (p *posts) hangUp() {
	for {
		select {
		case c := <-p.idle:
			c.forget()
			_ = c.connection.Close()
		default:
			return
		}
	}
}

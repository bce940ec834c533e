package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A client has a connection of its own, which it keeps. It is leaner than that of net/http, which would be a large part of
// what is measured.
type client struct {
	connection net.Conn
	forget     func() bool // the context
	reader     *bufio.Reader
	read       request
	write      request
}

// A request is one that can be sent many times.
type request struct {
	*http.Request
	text []byte
}

func newRequest(method, url, body string) (request, error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return request{}, err
	}
	var text bytes.Buffer
	err = r.Write(&text)
	return request{r, text.Bytes()}, err
}

// send returns the body of the response, which is to have that status.
func (c *client) send(r request, status int) (string, error) {
	if _, err := c.connection.Write(r.text); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(c.reader, r.Request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("a %s was answered %d, not %d: %s", r.Method, response.StatusCode, status, body)
	}
	return string(body), err
}

// clients are those of one storm.
type clients []*client

// connect returns n clients that have read the page, so that their connections are open. When ctx ends, what they do fails.
func connect(ctx context.Context, url string, n int) (clients, error) {
	var all clients
	for i := range n {
		c, err := dial(ctx, url, i)
		if err != nil {
			all.close()
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func (all clients) close() {
	for _, c := range all {
		c.forget()
		_ = c.connection.Close()
	}
}

func dial(ctx context.Context, url string, i int) (*client, error) {
	read, err := newRequest(http.MethodGet, url, "")
	write, err2 := newRequest(http.MethodPost, url, fmt.Sprintf("item %d", i))
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", read.Host)
	if err != nil {
		return nil, err
	}
	c := &client{connection: connection, reader: bufio.NewReader(connection), read: read, write: write}
	c.forget = context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })
	if _, err := c.page(); err != nil {
		clients{c}.close()
		return nil, err
	}
	return c, nil
}

// page reads the page.
func (c *client) page() (string, error) { return c.send(c.read, http.StatusOK) }

// storm has all clients send a POST each at the same moment, and returns how long after that moment each had its reply,
// in ascending order. A reply that is not 204 is an error.
func (all clients) storm() ([]time.Duration, error) {
	var ready, group sync.WaitGroup
	begin := make(chan struct{})
	var begun time.Time // written before begin is closed
	latencies, errs := make([]time.Duration, len(all)), make([]error, len(all))
	ready.Add(len(all))
	for i, c := range all {
		group.Go(func() {
			ready.Done()
			<-begin
			_, errs[i] = c.send(c.write, http.StatusNoContent)
			latencies[i] = time.Since(begun)
		})
	}
	ready.Wait()
	begun = time.Now()
	close(begin)
	group.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
	}
	slices.Sort(latencies)
	return latencies, nil
}

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
	"sync/atomic"
	"time"
)

// A readRun is what came of the reads of one window.
type readRun struct {
	requests int64
	rate     float64       // per second
	cpu      time.Duration // of the answering process, for each request
	idle     float64       // share of the window in which this process did not use its processor
}

func (r readRun) String() string {
	return fmt.Sprintf("%8.0f requests/s   CPU per request %6.2f µs   clients idle %3.0f %%", r.rate, microseconds(r.cpu), 100*r.idle)
}

func cpuRatio(ours, theirs readRun) float64  { return float64(ours.cpu) / float64(theirs.cpu) }
func rateRatio(ours, theirs readRun) float64 { return ours.rate / theirs.rate }

// A sample is one exchange: what is sent again and again, and how long the response is.
type sample struct {
	sent    http.Header
	request []byte
	status  int
	header  http.Header // without Date, which net/http adds
	body    []byte
	length  int // of the response on the wire

	begins   []byte // what every response begins with
	response []byte // the last one
}

// copy returns a sample for another connection.
func (s *sample) copy() *sample {
	c := *s
	c.response = make([]byte, s.length)
	return &c
}

func (s *sample) same(other *sample) bool {
	return s.status == other.status && s.length == other.length && bytes.Equal(s.body, other.body) &&
		slices.EqualFunc(sortedFields(s.header), sortedFields(other.header), func(a, b string) bool { return a == b })
}

func sortedFields(h http.Header) (lines []string) {
	for name, values := range h {
		lines = append(lines, name+": "+strings.Join(values, ", "))
	}
	slices.Sort(lines)
	return lines
}

// sampleOf makes one GET and looks at the response.
func sampleOf(ctx context.Context, addr, path string, header http.Header) (*sample, error) {
	return sampleOfRequest(ctx, addr, http.MethodGet, path, header, "")
}

// sampleOfRequest makes one request and looks at the response. The length of a body is for the header to say.
func sampleOfRequest(ctx context.Context, addr, method, path string, header http.Header, body string) (*sample, error) {
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, path)
	_ = header.Write(&request) // a buffer takes everything
	request.WriteString("\r\n" + body)
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := connection.Write(request.Bytes()); err != nil {
		return nil, err
	}
	var wire bytes.Buffer
	response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(connection, &wire)), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answered, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		return nil, fmt.Errorf("%s %s: status %d: %s", method, path, response.StatusCode, answered)
	}
	response.Header.Del("Date")
	return &sample{
		sent: header, request: request.Bytes(), status: response.StatusCode, header: response.Header, body: answered, length: wire.Len(),
		begins: fmt.Appendf(nil, "HTTP/1.1 %d ", response.StatusCode), response: make([]byte, wire.Len()),
	}, nil
}

// read has all clients read for a window. The response has the same length each time, and its status line is looked at.
func (b *reads) read(ctx context.Context, process *readerProcess, s *sample, window time.Duration) (readRun, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		group    sync.WaitGroup
		requests atomic.Int64
		ending   atomic.Bool
	)
	for range readConnections {
		group.Go(func() {
			if err := readOver(ctx, process.addr, s.copy(), &requests, &ending); err != nil {
				cancel(err)
			}
		})
	}
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	pause(max(window/4, 200*time.Millisecond)) // connections are opened
	began, first := time.Now(), requests.Load()
	ownBefore, err := ownUsage()
	before, err2 := process.cpu()
	pause(window)
	after, err3 := process.cpu()
	ownAfter, err4 := ownUsage()
	count, took := requests.Load()-first, time.Since(began)
	ending.Store(true)
	group.Wait()
	if err := errors.Join(err, err2, err3, err4, context.Cause(ctx)); err != nil {
		return readRun{}, err
	}
	if count == 0 {
		return readRun{}, errNoJob
	}
	return readRun{
		requests: count, rate: float64(count) / took.Seconds(), cpu: (after - before) / time.Duration(count),
		idle: 1 - float64(ownAfter-ownBefore)/float64(took),
	}, nil
}

// readOver makes one request after the other over one connection.
func readOver(ctx context.Context, addr string, s *sample, requests *atomic.Int64, ending *atomic.Bool) error {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer connection.Close()
	for !ending.Load() && ctx.Err() == nil {
		if err := s.exchange(connection); err != nil {
			return err
		}
		requests.Add(1)
	}
	return nil
}

// exchange makes the request again. The response is to be as long as the first was, with the same status; it is in
// s.response until the next exchange of the sample.
func (s *sample) exchange(connection net.Conn) error {
	if _, err := connection.Write(s.request); err != nil {
		return err
	}
	if n, err := io.ReadFull(connection, s.response); err != nil {
		return fmt.Errorf("a response of %d bytes, not %d, that begins with %q: %w", n, s.length, s.response[:min(400, n)], err)
	}
	if !bytes.HasPrefix(s.response, s.begins) {
		return fmt.Errorf("a response begins with %q", s.response[:min(40, len(s.response))])
	}
	return nil
}

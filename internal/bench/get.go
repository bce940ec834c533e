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
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// readConnections is how many clients read at once, each with a connection of its own.
const readConnections = 64

// A page is what is read.
type page struct {
	name string // in the figures
	key  string
	size int // of the body
}

var readPages = []page{{"1k", "/1k", 1 << 10}, {"16k", "/16k", 16 << 10}}

// benchGet compares reads from the local copy with a bare handler that writes the same, and reads from Redis with a handler
// that does a GET for each.
func benchGet(ctx context.Context, s settings) error {
	b, stop, err := startReads(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	for _, p := range readPages {
		if err := b.compare(ctx, p, oursCopied, bare, nil, "get_local_vs_nethttp_"+p.name, "at most 1.05", cpuRatio); err != nil {
			return err
		}
	}
	for _, p := range readPages {
		if err := b.compare(ctx, p, oursRedis, plainGet, nil, "getredis_vs_plain_"+p.name, "at least 1.2", rateRatio); err != nil {
			return err
		}
	}
	return nil
}

// reads is a cache with pages, and what it takes to read them.
type reads struct {
	settings
	redis     string
	namespace string
}

// startReads makes a cache that holds the pages.
func startReads(ctx context.Context, s settings) (b *reads, stop func(), err error) {
	url, stopRedis, err := s.server()
	if err != nil {
		return nil, nil, err
	}
	b = &reads{settings: s, redis: url, namespace: "bench-" + jobqueue.NewID()}
	rdb, err := clientOf(url)
	if err != nil {
		stopRedis()
		return nil, nil, err
	}
	stop = func() {
		_ = removeAll(context.WithoutCancel(ctx), rdb, partition.Prefix(b.namespace, 0))
		_ = rdb.Close()
		stopRedis()
	}
	version, err := versionOf(ctx, url)
	if err == nil {
		err = b.fill(ctx, rdb)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	fmt.Fprintf(s.out, "%d connections, each with one request at a time, from this process; what answers is a process of its own with GOMAXPROCS 1\n"+
		"windows of %v, %d pairs; %d processors, %s, %s\n\n", readConnections, s.window, s.rounds, runtime.NumCPU(), version, runtime.Version())
	return b, stop, nil
}

func (b *reads) fill(ctx context.Context, rdb *redis.Client) error {
	cache, err := scales.NewCache(rdb, scales.Namespace(b.namespace), scales.Codings())
	if err != nil {
		return err
	}
	defer cache.Close(ctx)
	for _, p := range readPages {
		entry := scales.HTML(strings.Repeat("<p>Nina</p>\n", p.size/12+1)[:p.size])
		entry.PushOnly = true
		if err := cache.Push(ctx, p.key, entry); err != nil {
			return err
		}
	}
	return cache.MarkFilled(ctx)
}

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

// compare reads a page from two processes in turn, and prints the median of what ratio says of each pair.
func (b *reads) compare(ctx context.Context, p page, ours, theirs string, header http.Header, figure, goal string, ratio func(ours, theirs readRun) float64) error {
	order := readOrder{Kind: ours, Redis: b.redis, Namespace: b.namespace}
	one, err := startReader(ctx, order)
	if err != nil {
		return err
	}
	defer one.close()
	sample, err := sampleOf(ctx, one.addr, p.key, header)
	if err != nil {
		return err
	}
	order.Kind, order.Header, order.Body = theirs, sample.header, sample.body
	other, err := startReader(ctx, order)
	if err != nil {
		return err
	}
	defer other.close()
	again, err := sampleOf(ctx, other.addr, p.key, header)
	if err != nil {
		return err
	}
	if !again.same(sample) {
		return fmt.Errorf("%s and %s do not answer the same: %d %v and %d %v", ours, theirs, sample.status, sample.header, again.status, again.header)
	}
	fmt.Fprintf(b.out, "%s, body of %d bytes, response of %d\n", p.key, len(sample.body), sample.length)
	var ratios []float64
	for round := range b.rounds {
		var runs [2]readRun
		sides := []int{0, 1}
		if round%2 == 1 { // a machine that grows slower or faster favours neither
			slices.Reverse(sides)
		}
		for _, side := range sides {
			process := []*readerProcess{one, other}[side]
			if runs[side], err = b.read(ctx, process, sample); err != nil {
				return err
			}
		}
		ratios = append(ratios, ratio(runs[0], runs[1]))
		fmt.Fprintf(b.out, "  %-16s %v\n  %-16s %v\n  ratio %.3f\n", ours, runs[0], theirs, runs[1], ratios[round])
	}
	fmt.Fprintf(b.out, "figure %s %.3f (goal %s)\n\n", figure, median(ratios), goal)
	return nil
}

// A sample is one exchange: what is sent again and again, and how long the response is.
type sample struct {
	request []byte
	status  int
	header  http.Header // without Date, which net/http adds
	body    []byte
	length  int // of the response on the wire
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

// sampleOf makes one request and looks at the response.
func sampleOf(ctx context.Context, addr, path string, header http.Header) (*sample, error) {
	var request bytes.Buffer
	fmt.Fprintf(&request, "GET %s HTTP/1.1\r\nHost: localhost\r\n", path)
	_ = header.Write(&request) // a buffer takes everything
	request.WriteString("\r\n")
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
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		return nil, fmt.Errorf("GET %s: status %d", path, response.StatusCode)
	}
	response.Header.Del("Date")
	return &sample{request.Bytes(), response.StatusCode, response.Header, body, wire.Len()}, nil
}

// read has all clients read for a window. The response has the same length each time, and its status line is looked at.
func (b *reads) read(ctx context.Context, process *readerProcess, s *sample) (readRun, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		group    sync.WaitGroup
		requests atomic.Int64
		ending   atomic.Bool
	)
	for range readConnections {
		group.Go(func() {
			if err := readOver(ctx, process.addr, s, &requests, &ending); err != nil {
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
	pause(max(b.window/4, 200*time.Millisecond)) // connections are opened
	began, first := time.Now(), requests.Load()
	ownBefore, err := ownUsage()
	before, err2 := process.cpu()
	pause(b.window)
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
	status := fmt.Appendf(nil, "HTTP/1.1 %d ", s.status)
	response := make([]byte, s.length)
	for !ending.Load() && ctx.Err() == nil {
		if _, err := connection.Write(s.request); err != nil {
			return err
		}
		if _, err := io.ReadFull(connection, response); err != nil {
			return err
		}
		if !bytes.HasPrefix(response, status) {
			return fmt.Errorf("a response begins with %q", response[:min(40, len(response))])
		}
		requests.Add(1)
	}
	return nil
}

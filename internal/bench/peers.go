package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/redistest"
)

// peerKey is the page that all sides answer.
const peerKey = "/page"

// benchPeers compares a hit in the local copy with hits in caches that stand before an application: what the processes of each
// side need of a processor for a request.
func benchPeers(ctx context.Context, s settings) error {
	wrk, err := lookProgram("wrk")
	if err != nil {
		fmt.Fprintf(s.out, "peers: %v; nothing was measured\n", err)
		return nil
	}
	b, stop, err := startPeers(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	b.wrk = wrk
	fmt.Fprintf(s.out, "peers: a page of %d bytes, kept alive, %d connections of wrk at saturation, %d at %d reads/s; windows of %v, %d pairs\n%d processors, %s; %s\n\n",
		entryBody, readConnections, loadConnections, s.reads, s.window, s.rounds, runtime.NumCPU(), runtime.Version(), wrk.version)
	for _, p := range []struct {
		name  string
		start func(ctx context.Context, origin string) (*peer, error)
	}{{"nginx", startNginx}, {"varnish", startVarnish}} {
		if err := b.compare(ctx, p.name, p.start); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

type peersBench struct {
	settings
	wrk    program
	ours   *peer
	sample *sample        // of ours
	app    *readerProcess // what the others ask
}

// A peer is one side: what answers at an address, and all processes that it takes.
type peer struct {
	name  string
	addr  string
	about string // versions and configuration
	roots []int  // processes that it consists of, with their children
	close func() error
}

// startPeers starts our side, and the application behind the others.
func startPeers(ctx context.Context, s settings) (b *peersBench, stop func(), err error) {
	redisServer, err := redistest.Launch() // what it takes of a processor counts, so nobody else uses it
	if err != nil {
		return nil, nil, fmt.Errorf("start a redis-server: %w", err)
	}
	b = &peersBench{settings: s}
	closers := []func(){redisServer.Stop}
	stop = func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
	}
	url, namespace := "redis://"+redisServer.Addr(), "bench-"+jobqueue.NewID()
	pid, err := pushPage(ctx, url, namespace)
	if err != nil {
		stop()
		return nil, nil, err
	}
	server, err := startReader(ctx, readOrder{Kind: oursCopied, Redis: url, Namespace: namespace, Heap: s.heap})
	if err != nil {
		stop()
		return nil, nil, err
	}
	closers = append(closers, func() { _ = server.close() })
	b.ours = &peer{name: "ours", addr: server.addr, roots: []int{server.command.Process.Pid, pid}}
	if b.sample, err = sampleOf(ctx, server.addr, peerKey, nil); err == nil {
		fields := b.sample.header.Clone()
		fields.Del("Cache-Status")
		b.app, err = startReader(ctx, readOrder{Kind: bare, Header: fields, Body: b.sample.body})
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	closers = append(closers, func() { _ = b.app.close() })
	return b, stop, nil
}

// pushPage makes a cache with the page, and returns which process its Redis is.
func pushPage(ctx context.Context, url, namespace string) (redisProcess int, err error) {
	rdb, err := clientOf(url)
	if err != nil {
		return 0, err
	}
	defer rdb.Close()
	cache, err := scales.NewCache(rdb, scales.Namespace(namespace), scales.Codings())
	if err != nil {
		return 0, err
	}
	defer cache.Close(ctx)
	entry := scales.HTML(string(trivialBody())).With("Cache-Control", "public, max-age=3600")
	entry.PushOnly = true
	if err := errors.Join(cache.Push(ctx, peerKey, entry), cache.MarkFilled(ctx)); err != nil {
		return 0, err
	}
	info, err := rdb.InfoMap(ctx, "server").Result()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info["Server"]["process_id"])
}

// compare measures one peer and us in turn. If it is not installed, that is said and is no error.
func (b *peersBench) compare(ctx context.Context, name string, start func(context.Context, string) (*peer, error)) error {
	theirs, err := start(ctx, b.app.addr)
	if errors.Is(err, errMissing) {
		fmt.Fprintf(b.out, "%v; it was not measured\n\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer theirs.close()
	theirs.roots = append(theirs.roots, b.app.command.Process.Pid)
	sample, err := theirs.await(ctx)
	if err != nil {
		return errors.Join(err, theirs.close())
	}
	if sample.status != b.sample.status || string(sample.body) != string(b.sample.body) {
		return fmt.Errorf("the answer is not ours: %d %q", sample.status, sample.body)
	}
	fmt.Fprintf(b.out, "%s\n  response of %d bytes, ours of %d; %s\n", theirs.about, sample.length, b.sample.length, differences(sample.header, b.sample.header))
	for _, load := range []struct {
		what, figure string
		run          func(context.Context, *peer) (peerRun, error)
	}{
		{"at saturation", "peers_" + name + "_vs_ours", b.saturate},
		{fmt.Sprintf("at %d reads/s", b.reads), "peers_" + name + "_vs_ours_at_rate", b.steady},
	} {
		fmt.Fprintf(b.out, "  %s\n", load.what)
		var ratios []float64
		for round := range b.rounds {
			sides, runs := []*peer{b.ours, theirs}, map[*peer]peerRun{}
			if round%2 == 1 { // a machine that grows slower or faster favours neither
				slices.Reverse(sides)
			}
			for _, side := range sides {
				if runs[side], err = load.run(ctx, side); err != nil {
					return fmt.Errorf("%s: %w", side.name, err)
				}
			}
			ratios = append(ratios, float64(runs[theirs].cpu)/float64(runs[b.ours].cpu))
			fmt.Fprintf(b.out, "    %-8s %v\n    %-8s %v\n    ratio %.3f\n", "ours", runs[b.ours], name, runs[theirs], ratios[round])
		}
		fmt.Fprintf(b.out, "figure %s %.3f (goal above 1)\n", load.figure, median(ratios))
	}
	fmt.Fprintln(b.out)
	return nil
}

// differences says which fields only one of two responses has, or has with another value.
func differences(theirs, ours http.Header) string {
	only := func(a, b http.Header) (lines []string) {
		for _, line := range sortedFields(a) {
			if !slices.Contains(sortedFields(b), line) {
				lines = append(lines, line)
			}
		}
		return lines
	}
	return fmt.Sprintf("it has %q where ours has %q", only(theirs, ours), only(ours, theirs))
}

// A peerRun is what came of one window.
type peerRun struct {
	rate float64       // requests per second
	cpu  time.Duration // of all processes of the side, for each request
}

func (r peerRun) String() string {
	return fmt.Sprintf("%8.0f requests/s   CPU per request %6.2f µs", r.rate, microseconds(r.cpu))
}

// saturate has wrk make as many requests as it can.
func (b *peersBench) saturate(ctx context.Context, p *peer) (peerRun, error) {
	seconds := max(1, int(b.window.Round(time.Second)/time.Second)) // wrk knows no less
	before, err := treeCPU(p.roots)
	if err != nil {
		return peerRun{}, err
	}
	text, err := b.wrk.output(ctx, "-t1", "-c"+strconv.Itoa(readConnections), "-d"+strconv.Itoa(seconds)+"s", "http://"+p.addr+peerKey)
	if err != nil {
		return peerRun{}, err
	}
	after, err := treeCPU(p.roots)
	if err != nil {
		return peerRun{}, err
	}
	var requests int64
	for line := range strings.Lines(text) {
		if strings.Contains(line, "Socket errors") || strings.Contains(line, "Non-2xx") {
			return peerRun{}, fmt.Errorf("wrk: %s", strings.TrimSpace(line))
		}
		if strings.Contains(line, " requests in ") {
			_, err = fmt.Sscan(line, &requests)
		}
	}
	if err != nil || requests == 0 {
		return peerRun{}, fmt.Errorf("wrk says %q: %w", text, err)
	}
	return peerRun{float64(requests) / float64(seconds), (after - before) / time.Duration(requests)}, nil
}

// steady has another process make requests at a fixed rate.
func (b *peersBench) steady(ctx context.Context, p *peer) (run peerRun, err error) {
	loader, err := startLoader(ctx, loadOrder{Addr: p.addr, Paths: []string{peerKey}, Rate: b.reads, Connections: loadConnections})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, loader.close()) }()
	before, err := treeCPU(p.roots)
	first, err2 := loader.reads()
	began := time.Now()
	select {
	case <-time.After(b.window):
	case <-ctx.Done():
		return run, context.Cause(ctx)
	}
	after, err3 := treeCPU(p.roots)
	last, err4 := loader.reads()
	took := time.Since(began)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return run, err
	}
	if last == first {
		return run, errNoJob
	}
	return peerRun{float64(last-first) / took.Seconds(), (after - before) / time.Duration(last-first)}, nil
}

// await returns what the peer answers when it has the page: the second answer.
func (p *peer) await(ctx context.Context) (_ *sample, err error) {
	for range 200 {
		if _, err = sampleOf(ctx, p.addr, peerKey, nil); err == nil {
			return sampleOf(ctx, p.addr, peerKey, nil)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, fmt.Errorf("it does not answer: %w", err)
}

package redistest

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// maxLinks bounds the connections through a proxy; more are closed at once.
const maxLinks = 1024

// Proxy is a TCP proxy on 127.0.0.1 in front of an address, with which a test
// disturbs the connections of some clients and not of others. Its methods are
// safe for concurrent use. What passes while one of them is called may pass
// before or after the change; what is sent after the call is subject to it.
type Proxy struct {
	t      testing.TB
	addr   string
	target string
	active sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener       // nil while connections are refused
	links    map[*link]struct{} // the connections there are
	flowing  chan struct{}      // closed while data flows, open while it is held
	delay    time.Duration
	lose     *loss // armed by DropReplyOnce
}

// loss is an answer to be lost.
type loss struct {
	containing []byte
	happened   chan struct{}
}

// StartProxy starts a proxy in front of the target, a host:port. It need not
// be up. The proxy ends with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("redistest: a port for the proxy: %v", err)
	}
	p := &Proxy{
		t:       t,
		addr:    net.JoinHostPort(host, strconv.Itoa(port)),
		target:  target,
		links:   make(map[*link]struct{}),
		flowing: make(chan struct{}),
	}
	close(p.flowing)
	if err := p.listen(); err != nil {
		t.Fatalf("redistest: start the proxy: %v", err)
	}
	t.Cleanup(func() {
		p.Cut()
		p.active.Wait()
	})
	return p
}

// Addr returns host:port of the proxy. It stays the same for the proxy's life.
func (p *Proxy) Addr() string { return p.addr }

// Cut closes all connections and refuses new ones until [Proxy.Restore].
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for l := range p.links {
		l.close()
	}
}

// Hang keeps connections and accepts new ones, but forwards nothing in either
// direction, not even their end, until [Proxy.Restore], which lets everything
// held so far pass.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holds() {
		p.flowing = make(chan struct{})
	}
}

// Restore ends what [Proxy.Cut] and [Proxy.Hang] began.
func (p *Proxy) Restore() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds() {
		close(p.flowing)
	}
	if p.listener == nil {
		if err := p.listen(); err != nil {
			p.t.Fatalf("redistest: restore the proxy: %v", err)
		}
	}
}

// SetDelay has everything wait for d before it is passed on, in each direction,
// piece after piece as on a slow line: a round trip takes at least 2·d. Zero
// ends it.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// DropReplyOnce forwards what the next client sends, lets the server execute
// it, and closes the connection instead of passing the answer on, so that the
// client cannot know and sends it again. With an argument it waits for a
// request that contains the text, such as a command's name; without one, the
// handshake of a new connection counts too. The returned channel is closed
// when the server is done and just before the client is cut off.
//
// A request of more than 16 KiB may be executed in part only, and an answer
// to an earlier request of the same connection, if one is due, counts as the
// answer. Of several calls under way the last counts.
func (p *Proxy) DropReplyOnce(containing ...string) <-chan struct{} {
	p.t.Helper()
	if len(containing) > 1 {
		p.t.Fatalf("redistest: DropReplyOnce takes at most one text, got %q", containing)
	}
	lose := &loss{happened: make(chan struct{})}
	if len(containing) == 1 {
		lose.containing = []byte(containing[0])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = lose
	return lose.happened
}

// claimLoss hands out the armed loss to the first request that fits.
func (p *Proxy) claimLoss(request []byte) *loss {
	p.mu.Lock()
	defer p.mu.Unlock()
	lose := p.lose
	if lose == nil || !bytes.Contains(request, lose.containing) {
		return nil
	}
	p.lose = nil
	return lose
}

// holds reports whether data is held. The caller holds mu.
func (p *Proxy) holds() bool {
	select {
	case <-p.flowing:
		return false
	default:
		return true
	}
}

// listen starts to accept connections. The caller holds mu, or is the only one
// who knows the proxy.
func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = listener
	p.active.Go(func() { p.accept(listener) })
	return nil
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		l := newLink(p, client)
		if !p.add(l, listener) {
			l.close()
			continue
		}
		p.active.Go(func() {
			l.run()
			p.remove(l)
		})
	}
}

// add registers a new connection, unless there are too many or Cut came
// between its arrival and this call.
func (p *Proxy) add(l *link, from net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != from || len(p.links) >= maxLinks {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) currentDelay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

func (p *Proxy) currentFlowing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flowing
}

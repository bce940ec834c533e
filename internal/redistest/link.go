package redistest

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is one connection through a proxy: the client's and ours to the server.
type link struct {
	proxy  *Proxy
	client net.Conn

	closed context.Context // done when the link is closed
	cancel context.CancelFunc

	mu     sync.Mutex
	server *net.TCPConn // guarded by mu; nil until dialled

	lose     atomic.Pointer[loss] // set when the next answer is to be lost
	draining atomic.Bool          // the answer is being lost
}

func newLink(p *Proxy, client net.Conn) *link {
	l := &link{proxy: p, client: client}
	l.closed, l.cancel = context.WithCancel(context.Background())
	return l
}

// close closes both connections; run then returns.
func (l *link) close() {
	l.cancel()
	l.client.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server != nil {
		l.server.Close()
	}
}

// run forwards in both directions until one side ends or the link is closed.
func (l *link) run() {
	defer l.close()
	if !l.flow() || !l.dial() {
		return
	}
	var requests sync.WaitGroup
	requests.Go(func() {
		forward(l.server, l.client, l.passRequest)
		if !l.draining.Load() {
			l.close()
		}
	})
	forward(l.client, l.server, l.passAnswer)
	l.close()
	requests.Wait()
}

// dial connects to the target, unless the link is closed meanwhile.
func (l *link) dial() bool {
	server, err := (&net.Dialer{}).DialContext(l.closed, "tcp", l.proxy.target)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Err() != nil {
		server.Close()
		return false
	}
	l.server = server.(*net.TCPConn) // what a dial for "tcp" returns
	return true
}

// forward passes on what it reads, until the reading ends or pass says no.
func forward(to io.Writer, from io.Reader, pass func([]byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !pass(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passRequest decides about what the client sent. An answer that is to be lost
// is noted before the server sees the request, so no answer is faster.
func (l *link) passRequest(request []byte) bool {
	if !l.flow() {
		return false
	}
	if lose := l.proxy.claimLoss(request); lose != nil {
		l.lose.Store(lose)
	}
	return true
}

// passAnswer decides about what the server sent.
func (l *link) passAnswer([]byte) bool {
	if !l.flow() {
		return false
	}
	lose := l.lose.Load()
	if lose == nil {
		return true
	}
	// End our requests and read the answers to the end: the server sees that
	// end only when it has executed everything it was sent before.
	l.draining.Store(true)
	if err := l.server.CloseWrite(); err == nil {
		_, _ = io.Copy(io.Discard, l.server) // any end of the connection will do
	}
	close(lose.happened)
	return false
}

// flow waits while the proxy delays or holds data, and reports whether it may
// then pass.
func (l *link) flow() bool {
	if delay := l.proxy.currentDelay(); delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.closed.Done():
			return false
		}
	}
	select {
	case <-l.proxy.currentFlowing():
		return l.closed.Err() == nil
	case <-l.closed.Done():
		return false
	}
}

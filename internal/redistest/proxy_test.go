package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
	"github.com/redis/go-redis/v9"
)

func TestProxyForwards(t *testing.T) {
	embedded := redistest.StartEmbedded(t)
	rdb := through(t, redistest.StartProxy(t, embedded.Addr()), 0)
	set(t, rdb, "key", "value")
	if got := embedded.Client(t).Get(t.Context(), "key").Val(); got != "value" {
		t.Errorf("behind the proxy: %q", got)
	}
}

func TestProxyThatIsCutClosesAndRefuses(t *testing.T) {
	proxy := redistest.StartProxy(t, redistest.StartEmbedded(t).Addr())
	connection := dial(t, proxy.Addr())
	ask(t, connection, "PING", "+PONG")
	proxy.Cut()
	if _, err := connection.answers.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an open connection was not closed: %v", err)
	}
	if !refuses(t, proxy.Addr()) {
		t.Error("a new connection was accepted")
	}
	proxy.Cut() // again changes nothing
	proxy.Restore()
	ask(t, dial(t, proxy.Addr()), "PING", "+PONG")
}

func TestProxyThatHangsForwardsNothing(t *testing.T) {
	server := redistest.StartEmbedded(t)
	direct := server.Client(t)
	proxy := redistest.StartProxy(t, server.Addr())

	listening := dial(t, proxy.Addr())
	ask(t, listening, "SUBSCRIBE channel", "*3", "$9", "subscribe", "$7", "channel", ":1")
	asking := dial(t, proxy.Addr())
	ask(t, asking, "PING", "+PONG")

	proxy.Hang()
	proxy.Hang() // again changes nothing
	late := dial(t, proxy.Addr())
	send(t, late, "SET late 1")
	send(t, asking, "SET asked 1")
	if heard, err := direct.Publish(t.Context(), "channel", "news").Result(); err != nil || heard != 1 {
		t.Fatalf("%d clients listen, %v", heard, err)
	}
	for name, connection := range map[string]*connection{"asking": asking, "listening": listening, "new": late} {
		if err := connection.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := connection.answers.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the %s connection got something: %v", name, err)
		}
	}
	if n := direct.Exists(t.Context(), "asked", "late").Val(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}

	proxy.Restore()
	expect(t, asking, "+OK")
	expect(t, late, "+OK")
	expect(t, listening, "*3", "$7", "message", "$7", "channel", "$4", "news")
}

func TestProxyDelaysBothDirections(t *testing.T) {
	const delay = 30 * time.Millisecond
	proxy := redistest.StartProxy(t, redistest.StartEmbedded(t).Addr())
	connection := dial(t, proxy.Addr())
	ask(t, connection, "PING", "+PONG")
	proxy.SetDelay(delay)
	start := time.Now()
	ask(t, connection, "PING", "+PONG")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("a round trip took %v, want at least %v", took, 2*delay)
	}
	proxy.SetDelay(time.Hour)
	send(t, connection, "PING")
	proxy.SetDelay(0) // and the cleanup must not wait for an hour
	ask(t, dial(t, proxy.Addr()), "PING", "+PONG")
}

func TestProxyLosesOneAnswerAndTheClientSendsAgain(t *testing.T) {
	server := redistest.StartEmbedded(t)
	proxy := redistest.StartProxy(t, server.Addr())
	rdb := through(t, proxy, 3)
	incr(t, rdb, 1)
	lost := proxy.DropReplyOnce()
	incr(t, rdb, 3)
	happened(t, lost)
	incr(t, rdb, 4)
}

func TestProxyLosesTheAnswerToTheRequestThatContainsAText(t *testing.T) {
	proxy := redistest.StartProxy(t, redistest.StartEmbedded(t).Addr())
	lost := proxy.DropReplyOnce("incr")
	rdb := through(t, proxy, 3) // whose handshake passes
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
		t.Error("the answer to another request was lost")
	default:
	}
	incr(t, rdb, 2)
	happened(t, lost)
}

func TestProxyLosesAnAnswerOnlyAfterTheRequestWasExecuted(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	direct := server.Client(t)
	proxy := redistest.StartProxy(t, server.Addr())
	rdb := through(t, proxy, -1)
	for want := int64(1); want <= 50; want++ {
		lost := proxy.DropReplyOnce("incr")
		if err := rdb.Incr(t.Context(), "counter").Err(); err == nil {
			t.Fatal("the answer arrived")
		}
		happened(t, lost)
		if got, err := direct.Get(t.Context(), "counter").Int64(); err != nil || got != want {
			t.Fatalf("the counter is %d, %v; want %d", got, err, want)
		}
	}
}

func TestProxyClosesConnectionsWhileItsTargetIsAway(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	ask(t, dial(t, proxy.Addr()), "PING", "+PONG")
	server.Kill()
	if _, err := dial(t, proxy.Addr()).answers.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was not closed: %v", err)
	}
	server.Restart()
	ask(t, dial(t, proxy.Addr()), "PING", "+PONG")
}

func TestProxyEndsWithTheTestWhateverItDoes(t *testing.T) {
	for name, disturb := range map[string]func(*redistest.Proxy){
		"forwarding": func(*redistest.Proxy) {},
		"cut":        (*redistest.Proxy).Cut,
		"hanging":    (*redistest.Proxy).Hang,
		"delaying":   func(proxy *redistest.Proxy) { proxy.SetDelay(time.Hour) },
		"losing":     func(proxy *redistest.Proxy) { proxy.DropReplyOnce() },
	} {
		t.Run(name, func(t *testing.T) {
			var address string
			t.Run("test", func(t *testing.T) {
				proxy := redistest.StartProxy(t, redistest.StartEmbedded(t).Addr())
				address = proxy.Addr()
				blocked := dial(t, address)
				ask(t, blocked, "PING", "+PONG")
				disturb(proxy)
				_, _ = io.WriteString(blocked, encode("BLPOP list 0")) // refused once it is cut
			})
			if !refuses(t, address) {
				t.Error("it still listens")
			}
		})
	}
}

// through returns a client behind the proxy that sends again after so many
// failures; -1 stands for never.
func through(t *testing.T, proxy *redistest.Proxy, retries int) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: proxy.Addr(), MaxRetries: retries, ContextTimeoutEnabled: true, PoolSize: 1,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

func incr(t *testing.T, rdb *redis.Client, want int64) {
	t.Helper()
	if got, err := rdb.Incr(t.Context(), "counter").Result(); err != nil || got != want {
		t.Errorf("the counter is %d, %v; want %d", got, err, want)
	}
}

func happened(t *testing.T, event <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-event:
	case <-ctx.Done():
		t.Fatal("no answer was lost")
	}
}

// connection speaks Redis's protocol line by line, so that a test sees what
// passes and when.
type connection struct {
	net.Conn
	answers *bufio.Reader
}

// dial opens a connection that gives up after 10 seconds.
func dial(t *testing.T, address string) *connection {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &connection{Conn: c, answers: bufio.NewReader(c)}
}

func send(t *testing.T, c *connection, command string) {
	t.Helper()
	if _, err := io.WriteString(c, encode(command)); err != nil {
		t.Fatal(err)
	}
}

// encode puts a command into Redis's protocol; the embedded Redis takes no
// plain lines.
func encode(command string) string {
	words := strings.Fields(command)
	var encoded strings.Builder
	fmt.Fprintf(&encoded, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&encoded, "$%d\r\n%s\r\n", len(word), word)
	}
	return encoded.String()
}

// expect reads an answer of these lines.
func expect(t *testing.T, c *connection, lines ...string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range lines {
		if got, err := c.answers.ReadString('\n'); err != nil || got != want+"\r\n" {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
}

func ask(t *testing.T, c *connection, command string, lines ...string) {
	t.Helper()
	send(t, c, command)
	expect(t, c, lines...)
}

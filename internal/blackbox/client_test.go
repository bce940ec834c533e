package blackbox_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	jsonType    = "application/json"
	formType    = "application/x-www-form-urlencoded"
	problemType = "application/problem+json"
	problemURN  = "urn:scales:problem:"
)

// call is a request of a client.
type call struct {
	method, target    string
	contentType, body string
	header            http.Header // further fields
}

func (c call) String() string { return c.method + " " + c.target }

// answer is what a client got.
type answer struct {
	call   call
	status int
	header http.Header
	body   string
}

// do sends a request. It is for goroutines that must not end the test.
func (p *process) do(ctx context.Context, c call) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, c.method, p.url+c.target, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	for name, values := range c.header {
		request.Header[name] = values
	}
	if c.contentType != "" {
		request.Header.Set("Content-Type", c.contentType)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%v: reading the answer: %w", c, err)
	}
	return &answer{call: c, status: response.StatusCode, header: response.Header, body: string(body)}, nil
}

// send sends a request and expects an answer, whichever.
func (p *process) send(t *testing.T, c call) *answer {
	t.Helper()
	a, err := p.do(t.Context(), c)
	if err != nil {
		t.Fatalf("%v through the %s: %v", c, p.role, err)
	}
	return a
}

func (p *process) get(t *testing.T, target string) *answer {
	t.Helper()
	return p.send(t, call{method: http.MethodGet, target: target})
}

// post sends a track as JSON.
func (p *process) post(t *testing.T, name, artist string) *answer {
	t.Helper()
	return p.send(t, postJSON(name, artist))
}

// begin sends a request and does not wait for the answer.
func (p *process) begin(t *testing.T, c call) *pending {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	waiting := &pending{began: time.Now(), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(waiting.done)
		waiting.answer, waiting.err = p.do(ctx, c)
		waiting.took = time.Since(waiting.began)
	}()
	t.Cleanup(waiting.abandon)
	return waiting
}

// pending is a request whose answer may not have arrived.
type pending struct {
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when the fields below are set
	answer *answer
	err    error
	took   time.Duration
}

// wait returns the answer.
func (p *pending) wait(t *testing.T) *answer {
	t.Helper()
	<-p.done
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.answer
}

// abandon closes the connection of the request unless it is answered.
func (p *pending) abandon() {
	p.cancel()
	<-p.done
}

// raw sends bytes over a connection of its own and reads one answer.
func (p *process) raw(t *testing.T, request string) *answer {
	t.Helper()
	connection, err := net.DialTimeout("tcp", strings.TrimPrefix(p.url, "http://"), answerTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(connection, request); err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%q: reading the answer: %v", request, err)
	}
	return &answer{call: call{method: method, target: fmt.Sprintf("%.60q", request)},
		status: response.StatusCode, header: response.Header, body: string(body)}
}

// is expects a status.
func (a *answer) is(t *testing.T, status int) *answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%v: got %d, want %d\n%.1000s", a.call, a.status, status, a.body)
	}
	return a
}

// problem returns what is wrong with an answer that should be a problem of that type ("" for any) by Scales.
func (a *answer) problem(status int, kind string) error {
	var content struct {
		Type, Title, Detail string
		Status              int
	}
	switch err := json.Unmarshal([]byte(a.body), &content); {
	case a.status != status:
		return fmt.Errorf("%v: got %d, want %d\n%.1000s", a.call, a.status, status, a.body)
	case a.header.Get("Content-Type") != problemType:
		return fmt.Errorf("%v: %d with Content-Type %q, want %q", a.call, a.status, a.header.Get("Content-Type"), problemType)
	case err != nil:
		return fmt.Errorf("%v: %d with a problem that is no JSON: %w: %q", a.call, a.status, err, a.body)
	case content.Status != status || content.Title == "" || content.Detail == "":
		return fmt.Errorf("%v: %d with the problem %s", a.call, a.status, a.body)
	case kind == "" && !strings.HasPrefix(content.Type, problemURN), kind != "" && content.Type != problemURN+kind:
		return fmt.Errorf("%v: a problem of type %q, want %q", a.call, content.Type, problemURN+kind)
	case status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "":
		return fmt.Errorf("%v: 503 without Retry-After", a.call)
	}
	return nil
}

// isProblem expects a problem of that type by Scales.
func (a *answer) isProblem(t *testing.T, status int, kind string) {
	t.Helper()
	if err := a.problem(status, kind); err != nil {
		t.Fatal(err)
	}
}

// decode reads the answer as JSON.
func (a *answer) decode(content any) error {
	if media := a.header.Get("Content-Type"); !strings.HasPrefix(media, jsonType) {
		return fmt.Errorf("%v: Content-Type is %q, want %s", a.call, media, jsonType)
	}
	if err := json.Unmarshal([]byte(a.body), content); err != nil {
		return fmt.Errorf("%v: %w: %.200q", a.call, err, a.body)
	}
	return nil
}

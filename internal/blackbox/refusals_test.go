package blackbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// mostBody is the largest body in the tests of refusals.
const mostBody = 1000

// Whatever clients send, and whatever somebody does to the records in Redis, it is answered as it should be, and stops
// nobody.
func TestBadInput(t *testing.T) {
	s := newSite(t, sharedStore(t), "-max-body", fmt.Sprint(mostBody))
	s.open(t, 1, 1)
	reader := s.start(t, "server", "-local-copy", "0") // a copy would hide what becomes of an entry in Redis
	s.fill(t)
	t.Run("requests are refused with a reason", s.refusesWithAReason)
	t.Run("requests cannot split answers", s.cannotBeSplit)
	s.troubled = true // a worker logs what it cannot read
	t.Run("broken jobs are buried", s.buriesBrokenJobs)
	t.Run("broken pages are mended", func(t *testing.T) { s.mendsBrokenPages(t, reader) })
	s.fill(t)
	s.isCurrent(t, someKeys(t, s.app, seededTracks+4))
}

// refusesWithAReason: what a server refuses it tells as a problem that names the reason; what the application refuses comes
// from there, unchanged. Neither changes anything.
func (s *site) refusesWithAReason(t *testing.T) {
	server, kept := s.servers[0], newLedger("Refused")
	t.Run("by the server", func(t *testing.T) { refusedByServer(t, server, kept) })
	t.Run("by the application", func(t *testing.T) {
		for name, c := range map[string]call{
			"malformed JSON":     {http.MethodPost, "/tracks", jsonType, `{"name":`, nil},
			"JSON of two values": {http.MethodPost, "/tracks", jsonType, `{"name":"a","artist":"b"} {}`, nil},
			"no JSON object":     {http.MethodPut, "/tracks/7", jsonType, `[]`, nil},
			"another type":       {http.MethodPost, "/tracks", "text/csv", "name,artist\na,b\n", nil},
			"no type":            {http.MethodPut, "/tracks/7", "", `{"name":"a"}`, nil},
			"a form with PUT":    {http.MethodPut, "/tracks/7", formType, "name=a", nil},
			"a line break":       postJSON("a\r\nSet-Cookie: b=c", "b"),
			"an unknown track":   putJSON(1<<40, map[string]string{"name": "a"}),
			"an unknown page":    {http.MethodPost, "/nowhere", jsonType, `{}`, nil},
			"another method":     {http.MethodPatch, "/tracks/7", jsonType, `{"name":"a"}`, nil},
			"a question":         {"QUERY", "/tracks", jsonType, `{}`, nil},
			"a choice of rights": {http.MethodOptions, "/tracks", "", "", nil},
			"a foreign site":     foreign(postJSON("a", "b")),
		} {
			t.Run(name, func(t *testing.T) {
				want, got := s.app.send(t, c), server.send(t, c)
				if want.status < http.StatusBadRequest {
					t.Fatalf("the application answers %d, so this is no refusal", want.status)
				}
				if got.page() != want.page() {
					t.Errorf("got %s, want what the application answers: %s", got.page(), want.page())
				}
				if got, want := allowed(got), allowed(want); !slices.Equal(got, want) {
					t.Errorf("Allow is %q, want what the application answers: %q", got, want)
				}
			})
		}
		server.send(t, call{http.MethodPost, "/tracks", jsonType, `{"name":`, nil}).is(t, http.StatusBadRequest)
		server.send(t, call{http.MethodPost, "/tracks", "text/csv", "name", nil}).is(t, http.StatusUnsupportedMediaType)
	})
	kept.isKept(t, s.app)
	s.isIdle(t)
	s.isCurrent(t, someKeys(t, s.app, seededTracks+2))
	if total := read[trackList](t, s.app, "/tracks.json").Total; total != seededTracks+len(kept.made) {
		t.Errorf("there are %d tracks, want %d", total, seededTracks+len(kept.made))
	}
}

// allowed returns the methods that an answer allows. The application lists them in any order.
func allowed(a *answer) []string {
	return slices.Sorted(slices.Values(a.header.Values("Allow")))
}

// foreign is a request that a browser sends for the page of another site.
func foreign(c call) call {
	c.header = http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}}
	return c
}

func refusedByServer(t *testing.T, server *process, kept *ledger) {
	get := func(method, target string) string {
		return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	}
	server.send(t, call{method: http.MethodTrace, target: "/tracks/7"}).isProblem(t, http.StatusNotImplemented, "method-not-supported")
	server.raw(t, get("CONNECT", "localhost:80")).isProblem(t, http.StatusNotImplemented, "method-not-supported")
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		a := server.send(t, call{method: method, target: "/.scales/x"}).is(t, http.StatusNotFound)
		if method != http.MethodHead {
			a.isProblem(t, http.StatusNotFound, "reserved")
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		// net/http itself refuses a bad path, and leaves the query to us.
		server.raw(t, get(method, "/tracks/%zz")).is(t, http.StatusBadRequest)
		server.raw(t, get(method, "/tracks?page=%zz")).isProblem(t, http.StatusBadRequest, "malformed-target")
		server.raw(t, get(method, "/tracks/%00")).isProblem(t, http.StatusBadRequest, "malformed-target")
		server.raw(t, get(method, "/tracks/"+strings.Repeat("x", 5000))).isProblem(t, http.StatusRequestURITooLong, "target-too-long")
	}
	server.raw(t, get("OPTIONS", "*")) // net/http answers for the server as a whole
	server.raw(t, get(http.MethodGet, "/tracks/7%2Fedit")).isProblem(t, http.StatusNotFound, "not-found")

	// A body of exactly the limit is let through; one byte more is not, whether or not its length is declared.
	for _, chunked := range []bool{false, true} {
		for _, over := range []int{0, 1} {
			name, request := kept.next()
			request.body += strings.Repeat(" ", mostBody+over-len(request.body))
			a := server.raw(t, asText(request, chunked))
			if err := kept.note(name, a); err != nil {
				t.Error(err)
			}
			if over == 0 {
				a.is(t, http.StatusCreated)
			} else {
				a.isProblem(t, http.StatusRequestEntityTooLarge, "body-too-large")
			}
		}
	}
}

// asText returns the request as it is sent, with its body in chunks if it is said so.
func asText(c call, chunked bool) string {
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %s\r\n", c.method, c.target, c.contentType)
	if !chunked {
		return text + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(c.body), c.body)
	}
	half := len(c.body) / 2
	return text + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n",
		half, c.body[:half], len(c.body)-half, c.body[half:])
}

// cannotBeSplit: nothing that could split a response or smuggle a second request gets to the application or into the header
// of an answer.
func (s *site) cannotBeSplit(t *testing.T) {
	kept := newLedger("Splitter")
	const line = "X-Attack: "
	for name, attack := range map[string]struct {
		target, header string
		status         int
	}{
		"no attack":                      {"/tracks", line + "none", http.StatusCreated},
		"a query that is no key":         {"/tracks?x=%7F%0D%0AInjected:1", "", http.StatusBadRequest},
		"a line break in the target":     {"/tracks%0D%0AInjected:%201", "", http.StatusBadRequest},
		"a line feed in the target":      {"/tracks%0aInjected:%201", "", http.StatusBadRequest},
		"a zero in the target":           {"/tracks%00", "", http.StatusBadRequest},
		"a raw zero in the target":       {"/tracks\x00", "", http.StatusBadRequest},
		"a raw return in the target":     {"/tracks\rInjected:1", "", http.StatusBadRequest},
		"a return in a value":            {"/tracks", line + "a\rInjected: 1", http.StatusBadRequest},
		"a zero in a value":              {"/tracks", line + "a\x00b", http.StatusBadRequest},
		"a control character in a value": {"/tracks", line + "a\x01b", http.StatusBadRequest},
		"a return in a name":             {"/tracks", "X\rInjected: 1", http.StatusBadRequest},
		"a zero in a name":               {"/tracks", "X\x00Y: 1", http.StatusBadRequest},
		"a space in a name":              {"/tracks", "X Injected: 1", http.StatusBadRequest},
		"a line without a colon":         {"/tracks", "Injected", http.StatusBadRequest},
		"a zero in the host":             {"/tracks", "Host: local\x00host", http.StatusBadRequest},
		"two hosts":                      {"/tracks", "Host: other", http.StatusBadRequest},
		"two lengths":                    {"/tracks", "Content-Length: 7", http.StatusBadRequest},
		"another coding of the transfer": {"/tracks", "Transfer-Encoding: gzip", http.StatusNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			track, request := kept.next()
			request.target = attack.target
			text := asText(request, false)
			if attack.header != "" {
				text = strings.Replace(text, "Connection:", attack.header+"\r\nConnection:", 1)
			}
			a := s.servers[0].raw(t, text)
			if err := kept.note(track, a); err != nil {
				t.Error(err)
			}
			isUnsplit(t, a.is(t, attack.status))
			a = s.servers[0].raw(t, strings.Replace(text, "POST", "GET", 1))
			isUnsplit(t, a)
			if attack.status != http.StatusCreated && a.status != attack.status {
				t.Errorf("GET: got %d, want %d", a.status, attack.status)
			}
		})
	}
	kept.isKept(t, s.app)
	if len(kept.made) != 1 {
		t.Errorf("%d of the requests were carried out, want 1", len(kept.made))
	}
	s.isIdle(t)
	s.isCurrent(t, someKeys(t, s.app, seededTracks+3))
}

// isUnsplit expects an answer without a field that the request has brought up.
func isUnsplit(t *testing.T, a *answer) {
	t.Helper()
	for name, values := range a.header {
		if strings.Contains(strings.ToLower(name), "injected") || strings.Contains(strings.Join(values, ""), "Injected") ||
			strings.EqualFold(name, "X-Attack") {
			t.Errorf("%v: the header has %s: %q", a.call, name, values)
		}
	}
}

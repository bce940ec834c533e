package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/problem"
)

// The types and statuses are the part that clients rely on, so they are written
// out here once more.
var catalogue = []struct {
	problem problem.Problem
	kind    string
	status  int
	says    []string
}{
	{problem.NotFound(), "not-found", 404, nil},
	{problem.NotFilled(), "not-filled", 503, []string{"fill"}},
	{problem.Unsure(), "cache-unsure", 503, []string{"verified"}},
	{problem.StoreUnreachable(), "store-unreachable", 503, []string{"StoreTimeout", "not carried out"}},
	{problem.MalformedTarget(errors.New("bad percent-encoding")), "malformed-target", 400, []string{"bad percent-encoding"}},
	{problem.TargetTooLong(2048), "target-too-long", 414, []string{"2048", "MaxKeyLength"}},
	{problem.Misdirected("example.org"), "misdirected", 421, []string{"example.org", "Hosts"}},
	{problem.BodyTooLarge(1048576), "body-too-large", 413, []string{"1048576", "MaxBody", "not carried out"}},
	{problem.BodyTimeout(10 * time.Second), "body-timeout", 408, []string{"10s", "BodyTimeout", "not carried out"}},
	{problem.BodyIncomplete(), "body-incomplete", 400, []string{"not carried out"}},
	{problem.QueueFull(10000), "queue-full", 503, []string{"10000", "QueueLength", "not carried out"}},
	{problem.OrderFull(1000), "order-full", 503, []string{"1000", "Order", "QueueLength", "not carried out"}},
	{problem.TooBusy(15 * time.Second), "too-busy", 503, []string{"15s", "Deadline", "not carried out"}},
	{problem.NoWorker(), "no-worker", 503, []string{"not carried out"}},
	{problem.NotStarted(15 * time.Second), "not-started", 503, []string{"15s", "Deadline", "not carried out"}},
	{problem.StillRunning(15 * time.Second), "still-running", 504, []string{"15s", "Deadline"}},
	{problem.OutcomeUnknown(), "outcome-unknown", 504, nil},
	{problem.WorkerDied(), "worker-died", 502, nil},
	{problem.ApplicationPanicked(), "application-panicked", 500, nil},
	{problem.ApplicationAborted(), "application-aborted", 502, nil},
	{problem.ReplyTooLarge(8 << 20), "reply-too-large", 502, []string{"8388608", "MaxReply"}},
	{problem.MethodNotSupported("TRACE"), "method-not-supported", 501, []string{"TRACE"}},
	{problem.Reserved("/.scales/"), "reserved", 404, []string{"/.scales/", "ReservedPrefix"}},
	{problem.BodiesTooLarge(100), "bodies-too-large", 503, []string{"100 bytes", "BodyMemory"}},
	{problem.Expired(), "expired", 503, []string{"not carried out"}},
	{problem.Lost(), "entry-lost", 503, []string{"entry"}},
	{problem.Misconfigured("an option is missing"), "misconfigured", 500, []string{"an option is missing"}},
	{problem.PreconditionFailed(), "precondition-failed", 412, []string{"If-Match", "If-Unmodified-Since"}},
	{problem.RangeNotSatisfiable(100), "range-not-satisfiable", 416, []string{"100 bytes"}},
	{problem.Draining(), "draining", 503, []string{"not carried out"}},
}

func TestTheCatalogueIsStable(t *testing.T) {
	seen := map[string]bool{}
	for _, entry := range catalogue {
		p := entry.problem
		if p.Type != entry.kind || p.Status != entry.status {
			t.Errorf("%s has the status %d, want %s with %d", p.Type, p.Status, entry.kind, entry.status)
		}
		if seen[p.Type] || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(p.Type) || p.Title == "" || p.Detail == "" {
			t.Errorf("%+v is not unique and complete", p)
		}
		seen[p.Type] = true
		for _, part := range entry.says {
			if !strings.Contains(p.Detail, part) {
				t.Errorf("%s says %q, without %q", p.Type, p.Detail, part)
			}
		}
	}
}

func TestProblemsAreAnswersThatNobodyStores(t *testing.T) {
	for _, entry := range catalogue {
		t.Run(entry.kind, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			recorder.Header().Set("Retry-After", "1")
			recorder.Header().Set("Etag", `"of another"`)
			recorder.Header().Set("Content-Encoding", "gzip")
			entry.problem.Write(recorder, httptest.NewRequest("GET", "/", nil))
			answer := recorder.Result()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			want := http.Header{
				"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
				"Content-Length": {strconv.Itoa(len(body))}, "Retry-After": {"1"},
			}
			if answer.StatusCode != entry.status || !reflect.DeepEqual(answer.Header, want) {
				t.Errorf("got %d %v, want %d %v", answer.StatusCode, answer.Header, entry.status, want)
			}
			var members struct {
				Type, Title, Detail string
				Status              int
			}
			if err := json.Unmarshal(body, &members); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if p := entry.problem; members.Type != "urn:scales:problem:"+p.Type || members.Title != p.Title || members.Detail != p.Detail || members.Status != p.Status {
				t.Errorf("got %s", body)
			}

			reply := entry.problem.Response()
			want.Del("Content-Length")
			want.Del("Retry-After")
			if reply.Status != entry.status || !reflect.DeepEqual(reply.Header, want) || string(reply.Body) != string(body) {
				t.Errorf("as a reply it is %+v", reply)
			}
			if _, err := message.AppendResponse(nil, reply); err != nil {
				t.Errorf("the reply cannot be written: %v", err)
			}
		})
	}
}

func TestHEADGetsTheHeaderOnly(t *testing.T) {
	get, head := httptest.NewRecorder(), httptest.NewRecorder()
	problem.NotFound().Write(get, httptest.NewRequest("GET", "/", nil))
	problem.NotFound().Write(head, httptest.NewRequest("HEAD", "/", nil))
	if head.Code != 404 || head.Body.Len() != 0 || !reflect.DeepEqual(head.Header(), get.Header()) {
		t.Errorf("got %d %v %q", head.Code, head.Header(), head.Body)
	}
}

func TestMembersAreWrittenInTheirOrder(t *testing.T) {
	p := problem.Problem{Type: "t", Title: "T <&>", Status: 400, Detail: "a \"quoted\"\nline \xff", Members: []problem.Member{
		{Name: "z", Value: 1}, {Name: "lost", Value: func() {}}, {Name: "a", Value: []string{"b"}},
	}}
	want := `{"type":"urn:scales:problem:t","title":"T \u003c\u0026\u003e","status":400,"detail":"a \"quoted\"\nline \ufffd","z":1,"a":["b"]}` + "\n"
	if got := string(p.Response().Body); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRepliesDoNotShareTheirHeader(t *testing.T) {
	p := problem.NotFound()
	p.Response().Header.Set("X-A", "b")
	if got := p.Response().Header.Get("X-A"); got != "" {
		t.Errorf("a later reply has X-A: %s", got)
	}
}

func ExampleProblem_Response() {
	fmt.Printf("%s", problem.BodyTooLarge(1<<20).Response().Body)
	// Output: {"type":"urn:scales:problem:body-too-large","title":"The request body is too large","status":413,"detail":"the request body is over 1048576 bytes (option MaxBody); the request was not carried out","limit":1048576}
}

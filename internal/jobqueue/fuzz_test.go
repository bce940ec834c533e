package jobqueue

import (
	"strings"
	"testing"
)

// What is in Redis may have been written by anybody: a job that can be taken for one names no key of another slot.
func FuzzRecord(f *testing.F) {
	f.Add("id", "server", "1795423210134947", "PUT /tracks/7 HTTP/1.1\r\nHost: a\r\n\r\n", "3600000", "order")
	f.Add("", "", "", "", "", "")
	f.Add("id", "a:b", "-1", "x", "-5", "{x}")
	f.Add("id", "s", "99999999999999999999", "x", "1e9", "a b")
	f.Fuzz(func(t *testing.T, id, server, deadline, request, keep, order string) {
		record := map[string]string{"id": id, "server": server, "deadline": deadline, "request": request, "keep": keep, "order": order}
		var d Delivery
		d.fill(func(name string) string { return record[name] })
		if d.Server == "" || strings.ContainsAny(d.Server+d.Order, ":{}") || strings.ContainsAny(d.Order, "/ \t\r\n") || len(d.Order) > 64 {
			t.Fatalf("it names the server %q and the order %q", d.Server, d.Order)
		}
		if d.Broken == nil && (d.ID == "" || d.Request == "" || d.Deadline <= 0 || d.Server != server || d.Order != order) {
			t.Fatalf("%+v is taken for a job", &d)
		}
		if strings.ContainsAny(d.keep(), "\r\n") {
			t.Fatalf("it is kept for %q", d.keep())
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add("0:1795420254911-7\nHTTP/1.1 201 Created\r\n\r\n")
	f.Add("")
	f.Add("\n\n")
	f.Fuzz(func(t *testing.T, record string) {
		r := parseReply(record)
		if strings.Contains(r.Log, "\n") {
			t.Fatalf("the log is %q", r.Log)
		}
		if again := parseReply(r.record()); again != r {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}

func FuzzEnqueued(f *testing.F) {
	for _, said := range []string{"1795420254902-0", "order/1-0", "full", "busy", "order-full", "late", "other", "kept:job", "joined:job:1-0", "joined:job:o/1-0", "joined:", ""} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		e := enqueuedOf(said)
		if e.err != nil && (e.id != "" || e.kept != "") || e.kept != "" && e.id != "" {
			t.Fatalf("%q is taken for %+v", said, e)
		}
		if lane := newKeys("{ns:0}:").laneOf(e.id); lane != "" && !strings.HasPrefix(lane, "{ns:0}:q:lanes:") {
			t.Fatalf("%q waits in %q", said, lane)
		}
	})
}

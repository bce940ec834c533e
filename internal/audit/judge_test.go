package audit_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"testing"

	"github.com/itscales/scales/internal/audit"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// agreed returns a world in which cache and application agree on a page.
func agreed() *world {
	w := stale()
	w.answer.Groups = []string{"g", "h"}
	w.answer.Value = entry(message.Entry{Ticket: at(0), Body: []byte("a page"), Header: http.Header{"Content-Type": {"text/plain"}}})
	w.render(5)
	return w
}

func coded(body string) []message.Coding {
	var coded bytes.Buffer
	w := gzip.NewWriter(&coded)
	_, _ = w.Write([]byte(body)) // a buffer takes everything
	_ = w.Close()
	return []message.Coding{{Name: "gzip", Body: coded.Bytes()}}
}

func TestWhatCountsAsADifference(t *testing.T) {
	store := func(w *world, e message.Entry) {
		e.Ticket = at(5)
		w.status.Value = entry(e)
	}
	plain := http.Header{"Content-Type": {"text/plain"}}
	gone := func(w *world) { store(w, message.Entry{Gone: true}); w.status.Indexed = false }
	lost := func(w *world) { w.status.Found = partition.Found{Lost: true} }
	answers := func(w *world, kind partition.Kind, state render.State, reason string) {
		w.answer, w.result = partition.Operation{Kind: kind, Value: entry(message.Entry{Ticket: at(0), Gone: true})}, render.Result{State: state, Reason: reason}
	}
	none := func(w *world) { answers(w, partition.OpDestroy, render.Destroyed, "") }
	refuses := func(w *world) { answers(w, partition.OpRefuse, render.Refused, "no-store") }
	fails := func(w *world) { answers(w, partition.OpFail, render.Failed, "status 500") }
	for _, test := range []struct {
		name   string
		change func(w *world)
		kind   audit.Kind
		reason string
	}{
		{"nothing differs", func(*world) {}, audit.Current, ""},
		{"the order of groups", func(w *world) { w.status.Groups = []string{"h", "g"} }, audit.Current, ""},
		{"the status", func(w *world) { store(w, message.Entry{Status: 203, Header: plain, Body: []byte("a page")}) }, audit.Stale, "status 203, the application answers 200"},
		{"the body", func(w *world) { store(w, message.Entry{Header: plain, Body: []byte("another")}) }, audit.Stale, "the body differs"},
		{"a field", func(w *world) {
			store(w, message.Entry{Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("a page")})
		}, audit.Stale, `Content-Type: "text/html", the application answers "text/plain"`},
		{"a field less", func(w *world) { store(w, message.Entry{Body: []byte("a page")}) }, audit.Stale, `Content-Type: "", the application answers "text/plain"`},
		{"a field more", func(w *world) {
			store(w, message.Entry{Header: http.Header{"Content-Type": {"text/plain"}, "X": {"y"}}, Body: []byte("a page")})
		}, audit.Stale, `X: "y", which the application does not send`},
		{"codings, where there were none", func(w *world) {
			store(w, message.Entry{Header: plain, Body: []byte("a page"), Codings: coded("a page")})
		}, audit.Current, ""},
		{"a coding of another body", func(w *world) {
			store(w, message.Entry{Header: plain, Body: []byte("a page"), Codings: coded("a pale")})
		}, audit.Stale, "its coding gzip is not that of the body"},
		{"a coding that is broken", func(w *world) {
			store(w, message.Entry{Header: plain, Body: []byte("a page"), Codings: []message.Coding{{Name: "br", Body: []byte("by hand")}}})
		}, audit.Stale, "its coding br is not that of the body"},
		{"the groups", func(w *world) { w.status.Groups = []string{"g"} }, audit.Stale, `it is in the groups ["g"], the application says ["g" "h"]`},
		{"the members of groups", func(w *world) { w.status.Listed = 1 }, audit.Stale, `1 of its groups ["g" "h"] have it among their members`},
		{"the index", func(w *world) { w.status.Indexed = false }, audit.Stale, "the entry is not in the index"},
		{"it cannot be decoded", func(w *world) { w.status.Value = w.status.Value[:20] }, audit.Stale, "the entry cannot be decoded: "},
		{"it was lost", lost, audit.Missing, "the entry was lost"},
		{"there is a tombstone", gone, audit.Missing, "there is no entry"},
		{"there is nothing", func(w *world) { w.status = partition.Status{} }, audit.Missing, "there is no entry"},
		{"nothing, in both", func(w *world) { gone(w); none(w) }, audit.Current, ""},
		{"the application has none", none, audit.Orphaned, "the application has no such resource"},
		{"lost, and the application has none", func(w *world) { lost(w); none(w) }, audit.Orphaned, "the application has no such resource"},
		{"the application forbids it", refuses, audit.Orphaned, "the application's answer must not be stored: no-store"},
		{"nothing, and the application forbids it", func(w *world) { gone(w); refuses(w) }, audit.NotStorable, "no-store"},
		{"the application fails", fails, audit.Unrenderable, "status 500"},
		{"it is push-only", func(w *world) { store(w, message.Entry{PushOnly: true, Body: []byte("pushed")}) }, audit.Pushed, ""},
		{"it is push-only, and the application fails", func(w *world) { store(w, message.Entry{PushOnly: true}); fails(w) }, audit.Pushed, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := agreed()
			test.change(w)
			f, err := w.compare(t)
			if cut := min(len(f.Reason), len(test.reason)); err != nil || f.Kind != test.kind || f.Reason[:cut] != test.reason {
				t.Errorf("%+v, %v; want %q: %s", f, err, test.kind, test.reason)
			}
			if f.Kind == audit.Unrenderable && f.Answer != "" {
				t.Errorf("it answered %q", f.Answer)
			}
		})
	}
}

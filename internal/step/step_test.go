package step_test

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/invoke"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
	"github.com/itscales/scales/internal/step"
)

func TestWhatIsOwedSurvivesItsEncoding(t *testing.T) {
	for _, owed := range []step.Owed{
		{},
		{Pending: step.Pending{Keys: []string{"/a", "/b?x=%FF"}}},
		{Pending: step.Pending{Groups: []string{"", `"g" \`}, Related: []string{"/a"}}},
		{Work: render.Work{
			Needs:  []render.Need{{Key: "/a", Limited: true, Why: "target"}, {Key: "/b"}},
			Groups: []string{"a", "b c"},
			Writes: []partition.Operation{
				{Kind: partition.OpPush, Key: "/c", Position: partition.Position{Incarnation: "i", Ticket: "00000000000000000007"}, Value: "\x00\xff\n", Groups: []string{"g"}, Cause: partition.Cause{Job: "j", Why: "push"}},
				{Kind: partition.OpErase, Key: "/d"},
			},
		}},
	} {
		text, err := owed.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := step.Decode(text)
		if err != nil || !reflect.DeepEqual(got, owed) {
			t.Errorf("%+v became %+v, %v", owed, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"needs":[{"key":"/a","limited":true}],"writes":[{"kind":"push","key":"/c","value":"AP8=","groups":["g"]}],"groups":["a b"],"pending":{"keys":["/b"],"groups":["c"],"related":["/b"]}}`)
	f.Add(`{}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, text string) {
		owed, err := step.Decode(text)
		if err != nil {
			return
		}
		again, err := owed.Encode()
		if err != nil {
			t.Fatal(err)
		}
		twice, err := step.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := twice.Encode(); err != nil || text != again {
			t.Errorf("%s became %s, %v", again, text, err)
		}
	})
}

func TestABufferTakesUntilItIsTaken(t *testing.T) {
	b := new(step.Buffer)
	if err := errors.Join(
		b.Update("/a", "/b"),
		b.Write(partition.Operation{Kind: partition.OpPush, Key: "/c", Value: "1"}, partition.Operation{Kind: partition.OpErase, Key: "/d"}),
		b.Write(partition.Operation{Kind: partition.OpPush, Key: "/c", Value: "2"}),
	); err != nil {
		t.Fatal(err)
	}
	if err := b.UpdateGroups("g", "h"); err != nil {
		t.Fatal(err)
	}
	updates, groups, writes := b.Take()
	if !slices.Equal(updates, []string{"/a", "/b"}) || !slices.Equal(groups, []string{"g", "h"}) || len(writes) != 2 || writes[0].Value != "2" {
		t.Errorf("%v, %v, %+v", updates, groups, writes)
	}
	if err := b.Update("/a"); !errors.Is(err, step.ErrFinished) {
		t.Errorf("afterwards: %v", err)
	}
	if err := new(step.Buffer).Update(make([]string, step.MaxChanges+1)...); !errors.Is(err, step.ErrTooMany) {
		t.Errorf("too many: %v", err)
	}
}

func TestABufferIsBoundedInBytes(t *testing.T) {
	b := new(step.Buffer)
	half := partition.Operation{Kind: partition.OpPush, Key: "/a", Value: strings.Repeat("x", step.MaxBytes/2)}
	other := half
	other.Key = "/b"
	if err := b.Write(half, other); err != nil {
		t.Error(err)
	}
	if err := b.Write(partition.Operation{Kind: partition.OpPush, Key: "/c", Value: "x"}); !errors.Is(err, step.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
	if _, _, writes := b.Take(); len(writes) != 2 {
		t.Errorf("%d writes", len(writes))
	}
}

func TestMethods(t *testing.T) {
	for method, want := range map[string][2]bool{ // safe, idempotent
		"GET": {true, true}, "HEAD": {true, true}, "OPTIONS": {true, true}, "QUERY": {true, true}, "PUT": {false, true},
		"DELETE": {false, true}, "POST": {false, false}, "PATCH": {false, false}, "get": {false, false}, "LOCK": {false, false},
	} {
		if got := [2]bool{step.Safe(method), step.Idempotent(method)}; got != want {
			t.Errorf("%s: %v", method, got)
		}
	}
}

func TestBrokenAnswers(t *testing.T) {
	for _, test := range []struct {
		result invoke.Result
		want   bool
	}{
		{invoke.Result{Status: 200, Header: http.Header{}}, false}, {invoke.Result{Status: 499}, false}, {invoke.Result{Status: 500}, true},
		{invoke.Result{Panic: "x"}, true}, {invoke.Result{Aborted: true}, true}, {invoke.Result{Status: 200, Short: true}, true},
		{invoke.Result{Status: 200, TooLarge: true}, false},
	} {
		if got := step.Broken(test.result); got != test.want {
			t.Errorf("%+v: %t", test.result, got)
		}
	}
}

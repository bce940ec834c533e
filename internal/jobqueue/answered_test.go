package jobqueue

import (
	"strconv"
	"testing"
)

func TestALaterReplyToWhoWasAnsweredIsNoticed(t *testing.T) {
	var a answered
	if a.again("x", "1-0") {
		t.Error("nobody was answered")
	}
	a.note("x", "1-0")
	a.note("withdrawn", "")
	if a.again("x", "1-0") {
		t.Error("the same record, read once more, is no further reply")
	}
	if !a.again("x", "2-0") || !a.again("withdrawn", "2-0") {
		t.Error("a further reply is not noticed")
	}
	for i := range mostAnswered - 1 {
		a.note(strconv.Itoa(i), "3-0")
	}
	if a.again("x", "4-0") || !a.again("withdrawn", "4-0") || len(a.records) != mostAnswered || len(a.order) != mostAnswered {
		t.Errorf("%d callers are remembered", len(a.records))
	}
}

package main

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/itscales/scales/internal/redistest"
)

func TestASmallGroupChangesUnderWrites(t *testing.T) {
	redistest.Require(t)
	var out bytes.Buffer
	args := []string{"-run", "group", "-members", "200", "-grouplimit", "50", "-rounds", "1", "-seconds", "1"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	for _, want := range []string{
		`(?m)^medians\n  quiet .* renders +\d+ `,
		`(?m)^figure group_write_p99_ratio \d+\.\d\d$`,
		`(?m)^figure group_last_member_seconds \d+\.\d\d$`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("the output does not match %s", want)
		}
	}
}

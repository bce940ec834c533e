package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/redistest"
)

// TestMain is also the child processes of all benchmarks: they are this binary, started once more.
func TestMain(m *testing.M) {
	if children[strings.Join(os.Args[1:], " ")] != nil {
		main()
		return
	}
	os.Exit(redistest.Main(m))
}

func TestAStormWithFewWritesRuns(t *testing.T) {
	redistest.Require(t)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-run", "storm", "-writes", "50", "-rounds", "1"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	for _, want := range []string{
		`(?m)^medians\n  shared .* renders +\d+ .*\n  alone .* renders +50 .*$`,
		`(?m)^figure storm_renders_share \d+\.\d{4} `,
		`(?m)^figure storm_speedup \d+\.\d\d `,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("the output does not match %s", want)
		}
	}
}

func TestWhatTheCallerDidWrongIsToldFromWhatFailed(t *testing.T) {
	for _, args := range []string{"", "-run nothing", "-run storm -writes 0", "-run storm -rounds 0", "-run storm more", "-run storm -redis nowhere",
		"-run group -members 0", "-run group -rate 0", "-run group -seconds 0.01", "-run group -grouplimit -1", "-run group -rendertime 2s",
		"-run memory -redis redis://127.0.0.1:1", "-run fill -entries -1", "-run get -seconds 0.01", "-run post -slots 0", "-run workers -seconds 0.01",
	} {
		if err := run(t.Context(), strings.Fields(args), new(bytes.Buffer)); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want %v", args, err, errUsage)
		}
	}
}

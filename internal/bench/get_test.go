package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/redistest"
)

// runs runs a benchmark, and expects lines in what it prints.
func runs(t *testing.T, arguments string, want ...string) {
	t.Helper()
	redistest.Require(t)
	runsWithout(t, arguments, want...)
}

// runsWithout is runs for what needs no Redis.
func runsWithout(t *testing.T, arguments string, want ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), strings.Fields(arguments), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	for _, line := range want {
		if !regexp.MustCompile(`(?m)^` + line).Match(out.Bytes()) {
			t.Errorf("no line of the output begins with %s", line)
		}
	}
}

func TestReadsFromTheLocalCopyAreCompared(t *testing.T) {
	runs(t, "-run get -rounds 1 -seconds 0.1",
		`figure get_local_vs_nethttp_1k \d+\.\d{3} \(goal at most 1\.05\)$`,
		`figure get_local_vs_nethttp_16k \d+\.\d{3} \(`,
		`figure get_local_allocs \d+ \(goal 0\)$`)
}

func TestAnswersToThoseWhoHaveTheEntryAreCompared(t *testing.T) {
	runs(t, "-run get304 -rounds 1 -seconds 0.1", `/1k, body of 0 bytes`, `figure get304_vs_nethttp \d+\.\d{3} \(`)
}

func TestReadsFromRedisAreCompared(t *testing.T) {
	runs(t, "-run getredis -rounds 1 -seconds 0.1",
		`figure getredis_vs_plain \d+\.\d{3} \(goal at least 1\.2\)$`,
		`figure getredis_vs_plain_16k \d+\.\d{3} \(`)
}

package main

import "testing"

func TestAFewWritesReachASecondServer(t *testing.T) {
	runs(t, "-run propagate -rounds 1 -seconds 0.5 -reads 500",
		`  served after the commit  p50 `, `    of that the last read +p50 `, `  PING +p50 `, `figure propagate_p50_vs_rtt \d+\.\d\d$`, `figure propagate_p99_vs_rtt \d+\.\d\d \(goal at most 5\)$`)
}

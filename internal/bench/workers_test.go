package main

import "testing"

// No worker does more than its handler allows; what 8 do to 1 may be more than 8, by what the two windows differ in.
func TestNumbersOfWorkersAreCompared(t *testing.T) {
	runs(t, "-run workers -rounds 1 -seconds 0.3",
		`medians\n  1 workers .*\n  2 workers .*\n  4 workers .*\n  8 workers `,
		`figure workers_scaling_2 \d\.\d{3}$`, `figure workers_scaling_4 \d\.\d{3}$`,
		`figure workers_scaling_8 \d\.\d{3} \(goal at least 0\.95\)$`,
		`figure workers_efficiency_1 (0\.\d{3}|1\.[01]\d\d)$`)
}

package main

import "testing"

func TestAnOverloadIsMeasured(t *testing.T) {
	runs(t, "-run overload -seconds 5",
		`32 callers: \d+\.\d requests/s`, ` *\d+  201$`, ` *\d+  503 too-busy$`, ` *\d+  0 the client left$`,
		`figure overload_goodput \d\.\d{3} \(goal at least 0\.90\)$`, `figure overload_p99_of_deadline \d\.\d{3} `,
		`figure overload_wrong_executions 0$`)
}

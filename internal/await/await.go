// Package await lets tests wait for what can be seen only by asking.
package await

import (
	"testing"
	"time"
)

// Until asks until a condition holds. A test in which it never does ends after half a minute.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Within(t, 30*time.Second, what, holds)
}

// Within is Until with another limit.
func Within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	next := time.NewTicker(time.Millisecond)
	defer next.Stop()
	for !holds() {
		select {
		case <-next.C:
		case <-end.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

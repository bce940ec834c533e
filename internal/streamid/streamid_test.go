package streamid_test

import (
	"testing"

	"github.com/itscales/scales/internal/streamid"
)

func TestIDsAreOrderedByTimeThenNumber(t *testing.T) {
	ordered := []string{"0", "0-1", "9-0", "10-0", "10-2", "10-10", "1764000000000-0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := streamid.Less(a, b); got != (i < j) {
				t.Errorf("Less(%q, %q) = %t", a, b, got)
			}
		}
	}
	if streamid.Less("10-0", "10") || streamid.Less("10", "10-0") {
		t.Error("a missing number is not 0")
	}
}

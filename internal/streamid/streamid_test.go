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

func TestOnlyWholeIDsAreValid(t *testing.T) {
	for id, want := range map[string]bool{
		"0-0": true, "1764000000000-12": true, "18446744073709551615-1": true,
		"": false, "-": false, "+": false, "1": false, "1-": false, "-1": false, "1-1-1": false, "x-1": false, "1-x": false,
		"1-01": false, "01-1": false, "+1-1": false, "1 -1": false, "18446744073709551616-1": false,
	} {
		if got := streamid.Valid(id); got != want {
			t.Errorf("Valid(%q) = %t", id, got)
		}
	}
}

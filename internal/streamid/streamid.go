// Package streamid orders the ids of Redis stream entries, "milliseconds-number".
package streamid

import (
	"strconv"
	"strings"
)

// Less reports whether a is before b. A missing number, and whatever is not a number, counts as 0.
func Less(a, b string) bool {
	aTime, aNumber := split(a)
	bTime, bNumber := split(b)
	return aTime < bTime || aTime == bTime && aNumber < bNumber
}

// Time returns the time at which Redis made an id, in µs of its clock, as far as it says.
func Time(id string) (microseconds int64) {
	milliseconds, _ := split(id)
	return int64(milliseconds) * 1000
}

// Valid reports whether it is a whole id, as Redis writes it.
func Valid(id string) bool {
	milliseconds, number := split(id)
	return id == strconv.FormatUint(milliseconds, 10)+"-"+strconv.FormatUint(number, 10)
}

func split(id string) (milliseconds, number uint64) {
	left, right, _ := strings.Cut(id, "-")
	milliseconds, _ = strconv.ParseUint(left, 10, 64)
	number, _ = strconv.ParseUint(right, 10, 64)
	return milliseconds, number
}

package field

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Preferences are what Scales understands of Prefer (RFC 7240).
type Preferences struct {
	RespondAsync bool          // §4.1
	Wait         time.Duration // §4.3
	Waits        bool          // there is a Wait
}

// Applied returns a value of Preference-Applied (RFC 7240 §3).
func (p Preferences) Applied() string {
	var applied []string
	if p.RespondAsync {
		applied = append(applied, "respond-async")
	}
	if p.Waits {
		applied = append(applied, "wait="+strconv.FormatInt(int64(p.Wait/time.Second), 10))
	}
	return strings.Join(applied, ", ")
}

// TakePreferences returns the preferences that Scales understands and takes them out of the header; others, and what is not
// well-formed, stay in it. Of a preference that is there more than once the first counts (RFC 7240 §2).
func TakePreferences(h http.Header) Preferences {
	var p Preferences
	values := valuesOf(h, "Prefer")
	members, ok := Elements(values)
	if len(values) == 0 || !ok {
		return p
	}
	var others []string
	for _, member := range members {
		preference, _, _ := strings.Cut(member, ";")
		name, value, _ := strings.Cut(preference, "=")
		value = unquote(strings.Trim(value, " \t"))
		switch strings.ToLower(strings.Trim(name, " \t")) {
		case "respond-async":
			p.RespondAsync = true
			continue
		case "wait":
			if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
				if !p.Waits {
					p.Wait, p.Waits = time.Duration(min(seconds, math.MaxInt64/uint64(time.Second)))*time.Second, true
				}
				continue
			}
		}
		others = append(others, member)
	}
	remove(h, func(name string) bool { return name == "Prefer" })
	if len(others) > 0 {
		h["Prefer"] = []string{strings.Join(others, ", ")}
	}
	return p
}

package representation

import (
	"strings"

	"github.com/itscales/scales/internal/field"
)

// negotiate returns the body for a request with these values of Accept-Encoding (RFC 9110 §12.5.3): that with the highest
// weight, and of several the smallest. The identity is acceptable unless it is excluded, so its weight counts only where
// the request names it; if nothing is acceptable it is sent all the same.
func (r *Representation) negotiate(values []string) choice {
	if len(values) == 0 {
		return 0
	}
	accepted := unsaid
	for _, value := range values {
		accepted.parse(value)
	}
	best, highest := choice(0), field.Weight(0)
	for i := range r.codings {
		q := accepted.codings[r.codings[i].coding]
		if q < 0 {
			q = accepted.others
		}
		if q > highest {
			best, highest = choice(i+1), q
		}
	}
	if accepted.identity > highest {
		return 0
	}
	return best
}

// acceptance is what a request says about codings. Where it says something twice the higher weight counts.
type acceptance struct {
	codings  [codingCount]field.Weight
	identity field.Weight
	others   field.Weight // "*": all that are not named
}

var unsaid = acceptance{codings: [codingCount]field.Weight{-1, -1, -1}, identity: -1, others: -1}

// parse reads a value of Accept-Encoding. Members that are malformed or unknown are ignored.
func (a *acceptance) parse(value string) {
	for value != "" {
		member := value
		if comma := strings.IndexByte(value, ','); comma >= 0 {
			member, value = value[:comma], value[comma+1:]
		} else {
			value = ""
		}
		member = trim(member)
		q := field.Weight(1000)
		if semicolon := strings.IndexByte(member, ';'); semicolon >= 0 {
			q = field.ParseWeight(trim(member[semicolon+1:]))
			member = trim(member[:semicolon])
		}
		if target := a.target(member); target != nil && q > *target {
			*target = q
		}
	}
}

// target returns where the weight of a coding goes, or nil if it is of no interest.
func (a *acceptance) target(name string) *field.Weight {
	switch len(name) {
	case 1:
		if name == "*" {
			return &a.others
		}
	case 2:
		if sameToken(name, codingNames[0]) {
			return &a.codings[0]
		}
	case 4:
		if sameToken(name, codingNames[2]) {
			return &a.codings[2]
		}
		if sameToken(name, codingNames[1]) {
			return &a.codings[1]
		}
	case 6:
		if sameToken(name, "x-gzip") { // RFC 9110 §8.4.1.3
			return &a.codings[2]
		}
	case 8:
		if sameToken(name, "identity") {
			return &a.identity
		}
	}
	return nil
}

func sameToken(name, lower string) bool {
	return name == lower || len(name) == len(lower) && strings.EqualFold(name, lower)
}

// trim takes off optional white space (RFC 9110 §5.6.3).
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

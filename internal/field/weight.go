package field

// A Weight is a q-value (RFC 9110 §12.4.2) in thousandths, or negative if there is none.
type Weight int16

// FullWeight is that of a member of a list that names none.
const FullWeight Weight = 1000

// ParseWeight reads what follows a semicolon: "q=" and a number from 0 to 1 with at most three decimals.
func ParseWeight(s string) Weight {
	if len(s) < 3 || len(s) > len("q=0.123") || s[0]|0x20 != 'q' || s[1] != '=' || s[2] != '0' && s[2] != '1' {
		return -1
	}
	q := Weight(s[2]-'0') * 1000
	if len(s) == 3 {
		return q
	}
	if s[3] != '.' {
		return -1
	}
	unit := Weight(100)
	for i := 4; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		q += Weight(s[i]-'0') * unit
		unit /= 10
	}
	if q > 1000 {
		return -1
	}
	return q
}

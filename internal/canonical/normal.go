package canonical

import (
	"fmt"
	"strings"
)

// class is a set of properties that a byte of a target has.
type class uint8

const (
	unreserved class = 1 << iota // RFC 3986 §2.3: the same raw and encoded
	inPath                       // may stand raw in a path (§3.3)
	inQuery                      // may stand raw in a query (§3.4)
	control                      // refused, raw or encoded
	inHost                       // may stand in a host name or IPv4 address (§3.2.2)
	inIPv6                       // may stand within the brackets of an IPv6 address
)

const (
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	subDelims = "!$&'()*+,;="
	upperHex  = "0123456789ABCDEF"
)

// classes is read only.
var classes = makeClasses()

func makeClasses() (table [256]class) {
	add := func(characters string, c class) {
		for i := range len(characters) {
			table[characters[i]] |= c
		}
	}
	add(letters+digits+"-._~", unreserved|inPath|inQuery|inHost)
	add(subDelims+":@/", inPath|inQuery)
	add("?", inQuery)
	add(digits+"abcdefABCDEF:.", inIPv6)
	for b := range 0x20 {
		table[b] |= control
	}
	table[0x7F] |= control
	return table
}

// Path returns the canonical form of a path. It returns the path
// itself if it is in this form.
func Path(path string) (string, error) {
	switch {
	case path == "":
		return "/", nil
	case path == "*":
		return "", fmt.Errorf("%w: \"*\" names no resource", ErrMalformed)
	case path[0] != '/':
		path = "/" + path
	}
	if isNormal(path, inPath) && !hasDotSegment(path) {
		return path, nil
	}
	normal, err := appendNormal(make([]byte, 0, len(path)+16), path, inPath)
	if err != nil {
		return "", fmt.Errorf("%w in the path", err)
	}
	return string(removeDotSegments(normal)), nil
}

// isNormal says whether appendNormal would change nothing.
func isNormal(s string, allowed class) bool {
	for i := 0; i < len(s); i++ {
		if classes[s[i]]&allowed != 0 {
			continue
		}
		if s[i] != '%' || i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
			return false
		}
		if classes[unhex(s[i+1])<<4|unhex(s[i+2])]&(unreserved|control) != 0 {
			return false
		}
		i += 2
	}
	return true
}

// appendNormal appends s with its percent-encoding normalised: the encodings of
// unreserved characters decoded, others in upper case, raw characters that are
// not allowed encoded. It decodes once: "%252e" stays.
func appendNormal(dst []byte, s string, allowed class) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		b := s[i]
		encoded := b == '%'
		if encoded {
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return nil, fmt.Errorf("%w: bad percent-encoding %q", ErrMalformed, s[i:min(i+3, len(s))])
			}
			b = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		switch c := classes[b]; {
		case c&control != 0:
			return nil, fmt.Errorf("%w: control character %#02x", ErrMalformed, b)
		case c&unreserved != 0, !encoded && c&allowed != 0:
			dst = append(dst, b)
		default:
			dst = append(dst, '%', upperHex[b>>4], upperHex[b&0xF])
		}
	}
	return dst, nil
}

// hasDotSegment says whether a segment of the path is "." or "..".
func hasDotSegment(path string) bool {
	for i := 0; i+1 < len(path); i++ {
		if path[i] != '/' || path[i+1] != '.' {
			continue
		}
		if rest := path[i+2:]; rest == "" || rest[0] == '/' ||
			rest[0] == '.' && (len(rest) == 1 || rest[1] == '/') {
			return true
		}
	}
	return false
}

// removeDotSegments is the algorithm of RFC 3986 §5.2.4 for a path that begins
// with "/", done in place: what is kept is never longer than what was read.
func removeDotSegments(path []byte) []byte {
	kept := path[:0]
	for read := 0; read < len(path); {
		end := read + 1
		for end < len(path) && path[end] != '/' {
			end++
		}
		segment := path[read:end] // with its leading slash
		last := end == len(path)
		switch string(segment) {
		case "/.":
			if last {
				kept = append(kept, '/')
			}
		case "/..":
			for len(kept) > 0 {
				slash := kept[len(kept)-1] == '/'
				kept = kept[:len(kept)-1]
				if slash {
					break
				}
			}
			if last {
				kept = append(kept, '/')
			}
		default:
			kept = append(kept, segment...)
		}
		read = end
	}
	return kept
}

// decodeName decodes the name of a parameter whose percent-encoding is known to
// be good.
func decodeName(name string) string {
	decoded := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '+':
			decoded = append(decoded, ' ')
		case '%':
			decoded = append(decoded, unhex(name[i+1])<<4|unhex(name[i+2]))
			i += 2
		default:
			decoded = append(decoded, name[i])
		}
	}
	return string(decoded)
}

// isHostName says whether a host without its port is a name, an IPv4 address or
// an IPv6 address in brackets.
func isHostName(name string) bool {
	allowed := inHost
	if inner, ok := strings.CutPrefix(name, "["); ok {
		if name, ok = strings.CutSuffix(inner, "]"); !ok {
			return false
		}
		allowed = inIPv6
	}
	for i := range len(name) {
		if classes[name[i]]&allowed == 0 {
			return false
		}
	}
	return name != ""
}

func isDigits(s string) bool {
	return strings.Trim(s, digits) == ""
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func isUpperHex(b byte) bool {
	return '0' <= b && b <= '9' || 'A' <= b && b <= 'F'
}

// unhex returns the value of a hexadecimal digit.
func unhex(b byte) byte {
	switch {
	case b >= 'a':
		return b - 'a' + 10
	case b >= 'A':
		return b - 'A' + 10
	}
	return b - '0'
}

package representation

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Tag returns a strong entity tag for an answer that has none of its own, or "" for a status other than 200 and 203, where
// validators are of no use. Equal answers have equal tags, in every process.
//
// It is made of the status, the body, and the fields that a client keeps with the content: those about the content, such
// as Content-Type and Content-Language, Link, and the policies for its use (CSP, CORS and the like). So a client whose
// copy lacks a change of those gets the whole answer; others, such as Cache-Control, it gets with a 304 as well, or they may
// differ each time.
func Tag(status int, header http.Header, body []byte) string {
	if status != http.StatusOK && status != http.StatusNonAuthoritativeInfo {
		return ""
	}
	names := make([]string, 0, len(header))
	for name, values := range header {
		if len(values) > 0 && isTagged(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	digest := sha256.New()
	writeNumber(digest, status)
	writeNumber(digest, len(names))
	for _, name := range names {
		writeText(digest, name)
		writeNumber(digest, len(header[name]))
		for _, value := range header[name] {
			writeText(digest, value)
		}
	}
	digest.Write(body)
	// 128 bits: nobody finds two pages with the same ones. The alphabet has no hyphen, so that no tag ends as that of a
	// coding does.
	return `"` + base64.RawStdEncoding.EncodeToString(digest.Sum(nil)[:16]) + `"`
}

func isTagged(name string) bool {
	switch name {
	case "Content-Length", "Content-Encoding", "Content-Location":
		return false
	case "Link", "Refresh", "Permissions-Policy", "Referrer-Policy", "X-Content-Type-Options", "X-Frame-Options",
		"X-Robots-Tag", "Timing-Allow-Origin", "Origin-Agent-Cluster", "Sourcemap":
		return true
	}
	return strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "Access-Control-") ||
		strings.HasPrefix(name, "Cross-Origin-")
}

func writeNumber(digest hash.Hash, n int) {
	var bytes [8]byte
	binary.BigEndian.PutUint64(bytes[:], uint64(n))
	digest.Write(bytes[:])
}

func writeText(digest hash.Hash, s string) {
	writeNumber(digest, len(s))
	digest.Write([]byte(s))
}

// TakeSuffixes takes the suffixes of codings and of variants off the entity tags in If-Match, If-None-Match and If-Range, for a request
// that goes to the application: it knows only the tags that it has set itself. The slices of values are replaced, not
// written to.
func TakeSuffixes(header http.Header) {
	for _, name := range [...]string{"If-Match", "If-None-Match", "If-Range"} {
		values, copied := header[name], false
		for i, value := range values {
			without := takeSuffixes(value)
			if without == value {
				continue
			}
			if !copied {
				values, copied = slices.Clone(values), true
				header[name] = values
			}
			values[i] = without
		}
	}
}

// takeSuffixes takes the suffixes off a list of entity tags. From a place where it is malformed it is left alone.
func takeSuffixes(value string) string {
	if !strings.Contains(value, "--") {
		return value
	}
	var result strings.Builder
	rest := value
	for {
		start := strings.IndexAny(rest, `W"`)
		if start < 0 {
			break
		}
		tag, after, ok := scanTag(rest[start:])
		if !ok {
			break
		}
		opaque := tag[:len(tag)-1]
		for _, suffix := range suffixes {
			if without, found := strings.CutSuffix(opaque, suffix); found {
				opaque = without
				break
			}
		}
		result.WriteString(rest[:start] + cutVariant(opaque) + `"`)
		rest = after
	}
	return result.String() + rest
}

// entityTag returns the entity tag in a header, or "" if there is none or it is malformed.
func entityTag(header http.Header) string {
	values := header["Etag"]
	if len(values) != 1 {
		return ""
	}
	if _, rest, ok := scanTag(values[0]); !ok || rest != "" {
		return ""
	}
	return values[0]
}

// addSuffix returns an entity tag with a suffix: "v--br" for "v".
func addSuffix(tag, suffix string) string {
	if tag == "" {
		return ""
	}
	return tag[:len(tag)-1] + suffix + `"`
}

// variantSuffix, and eight digits, tell entity tags of variants apart that the application has not.
const variantSuffix = "--variant-"

// suffixOf returns the suffix of the variant that a request with these fields selects: it is about the values, not about
// their order.
func suffixOf(fields string) string {
	digest := fnv.New32a()
	_, _ = io.WriteString(digest, fields)
	return fmt.Sprintf("%s%08x", variantSuffix, digest.Sum32())
}

// cutVariant takes the suffix of a variant off the text of an entity tag.
func cutVariant(opaque string) string {
	end := len(opaque) - len(variantSuffix) - 8
	if end < 0 || opaque[end:][:len(variantSuffix)] != variantSuffix {
		return opaque
	}
	for _, digit := range opaque[len(opaque)-8:] {
		if (digit < '0' || digit > '9') && (digit < 'a' || digit > 'f') {
			return opaque
		}
	}
	return opaque[:end]
}

// scanTag returns the entity tag that s begins with, and what follows it (RFC 9110 §8.8.3).
func scanTag(s string) (tag, rest string, ok bool) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if start >= len(s) || s[start] != '"' {
		return "", s, false
	}
	for i := start + 1; i < len(s); i++ {
		switch b := s[i]; {
		case b == '"':
			return s[:i+1], s[i+1:], true
		case b <= ' ' || b == 0x7F:
			return "", s, false
		}
	}
	return "", s, false
}

func isWeak(tag string) bool { return strings.HasPrefix(tag, "W/") }

// sameWeakly and sameStrongly are the comparisons of RFC 9110 §8.8.3.2.
func sameWeakly(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

func sameStrongly(a, b string) bool { return a == b && !isWeak(a) }

package coding

import (
	"fmt"
	"strings"
)

// DefaultTypes returns the types of what web applications send as text, and of the binary formats that compress well.
func DefaultTypes() []string {
	return []string{
		"text/*", "*/*+json", "*/*+xml", "*/*+text", "application/json", "application/json-seq", "application/x-ndjson",
		"application/jsonl", "application/ld+json", "application/xml", "application/javascript", "application/x-javascript",
		"application/ecmascript", "application/graphql", "application/rtf", "application/sql", "application/toml",
		"application/yaml", "application/x-yaml", "application/wasm", "application/vnd.ms-fontobject", "font/otf", "font/ttf",
		"font/collection", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
	}
}

// pattern is one of Config.Types, in lower case. Its parts are "*" where an asterisk stands for all of them.
type pattern struct {
	mainType, subtype string
	suffix            string // "+json", with the subtype "*"
}

func parsePattern(text string) (pattern, error) {
	mainType, subtype, ok := strings.Cut(strings.ToLower(text), "/")
	p := pattern{mainType: mainType, subtype: subtype}
	if suffix, found := strings.CutPrefix(subtype, "*+"); found {
		p.subtype, p.suffix = "*", "+"+suffix
		ok = ok && isName(suffix)
	}
	if !ok || p.mainType != "*" && !isName(p.mainType) || p.subtype != "*" && !isName(p.subtype) {
		return p, fmt.Errorf(`%q is no pattern of a media type such as "text/html", "text/*" or "*/*+json"`, text)
	}
	return p, nil
}

// matches says whether the pattern has a type, whose parts are in lower case.
func (p pattern) matches(mainType, subtype string) bool {
	if p.mainType != "*" && p.mainType != mainType || p.subtype != "*" && p.subtype != subtype {
		return false
	}
	named := p.mainType != "*" && p.subtype != "*"
	return strings.HasSuffix(subtype, p.suffix) && (named || !isCompressed(mainType, subtype))
}

// mediaType returns the type in the value of a Content-Type field, in lower case and without parameters (RFC 9110
// §8.3.1).
func mediaType(contentType string) (mainType, subtype string, ok bool) {
	contentType, _, _ = strings.Cut(contentType, ";")
	mainType, subtype, ok = strings.Cut(strings.ToLower(strings.Trim(contentType, " \t")), "/")
	return mainType, subtype, ok && isName(mainType) && isName(subtype)
}

// isName says whether s can be a part of a media type (RFC 6838 §4.2).
func isName(s string) bool {
	for i := range len(s) {
		b := s[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("!#$&-^_.+", b) >= 0) {
			return false
		}
	}
	return s != ""
}

// isCompressed says whether content of a type is compressed already.
func isCompressed(mainType, subtype string) bool {
	switch mainType {
	case "image":
		switch subtype {
		case "bmp", "x-icon", "vnd.microsoft.icon":
			return false
		}
		return !strings.HasSuffix(subtype, "+xml") && !strings.HasSuffix(subtype, "+json") // svg+xml
	case "audio":
		switch subtype {
		case "wav", "x-wav", "vnd.wave", "midi", "basic", "l16":
			return false
		}
		return true
	case "video":
		return true
	case "font":
		return subtype == "woff" || subtype == "woff2"
	case "application":
		switch subtype {
		case "zip", "gzip", "x-gzip", "zstd", "x-brotli", "x-bzip", "x-bzip2", "x-xz", "x-lzma", "x-compress",
			"x-7z-compressed", "vnd.rar", "x-rar-compressed", "java-archive", "font-woff", "x-font-woff", "ogg", "pdf",
			"vnd.android.package-archive":
			return true
		}
		return strings.HasPrefix(subtype, "vnd.openxmlformats-officedocument.") ||
			strings.HasPrefix(subtype, "vnd.oasis.opendocument.") ||
			strings.HasSuffix(subtype, "+zip") || strings.HasSuffix(subtype, "+gzip") || strings.HasSuffix(subtype, "+zstd")
	}
	return false
}

package field

import (
	"net/url"
	"strings"
)

// SameOrigin resolves a reference, as Location, Content-Location and Link have
// them, against the URL of the request (RFC 3986 §5) and returns the escaped path
// and the query of what it names, and its host. It isn't ok if that is not of the
// same origin.
//
// A reference without a host is of the same origin. The host of any other has to
// be one of hosts, without regard to case, and without the port if that is 80 or
// 443. The scheme may be http or https and doesn't matter otherwise, since behind
// a proxy that ends TLS nobody here knows it. A user name is refused. A fragment
// is dropped.
func SameOrigin(ref string, base *url.URL, hosts ...string) (host, path, rawQuery string, ok bool) {
	parsed, err := url.Parse(ref)
	if err != nil || parsed.Opaque != "" || parsed.User != nil {
		return "", "", "", false
	}
	if parsed.Scheme != "" && parsed.Scheme != "http" && parsed.Scheme != "https" {
		return "", "", "", false
	}
	// "http:///a" and "///a" have a host, which is empty and refers to nothing
	// (RFC 9110 §4.2.1).
	if (parsed.Scheme != "" || strings.HasPrefix(ref, "//")) && !hasHost(hosts, parsed.Host) {
		return "", "", "", false
	}
	resolved := base.ResolveReference(parsed)
	path = resolved.EscapedPath()
	if path == "" {
		path = "/"
	}
	return resolved.Host, path, resolved.RawQuery, path[0] == '/'
}

func hasHost(hosts []string, host string) bool {
	host = withoutDefaultPort(host)
	for _, candidate := range hosts {
		if host != "" && strings.EqualFold(withoutDefaultPort(candidate), host) {
			return true
		}
	}
	return false
}

func withoutDefaultPort(host string) string {
	for _, port := range []string{":", ":80", ":443"} {
		name, found := strings.CutSuffix(host, port)
		// Without brackets, ":80" is the end of an IPv6 address and no port.
		if found && (!strings.Contains(name, ":") || strings.HasSuffix(name, "]")) {
			return name
		}
	}
	return host
}

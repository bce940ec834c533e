package field

import (
	"net/http"
	"strings"
)

// RemoveHopByHop removes the fields that are about one connection and not about
// the message (RFC 9110 §7.6.1): Connection, the fields it nominates, and
// Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade and
// HTTP2-Settings whether nominated or not.
//
// Proxy-Authenticate, Proxy-Authorization and Proxy-Authentication-Info go, too:
// they are meant for the next proxy and its client (RFC 9110 §11.7), so an
// application must not see a client's credentials for a proxy, nor may a client
// be asked for some on behalf of an application.
//
// Connection may not nominate fields that are meant for all recipients. Those
// that an application or a cache relies on stay although they are nominated;
// else a client could take away what a proxy has added about it (X-Forwarded-For),
// or a careless upstream its own Cache-Control.
func RemoveHopByHop(h http.Header) {
	var nominated []string
	for _, value := range valuesOf(h, "Connection") {
		for option := range strings.SplitSeq(value, ",") {
			option = http.CanonicalHeaderKey(strings.Trim(option, " \t"))
			if option != "" && !isEndToEnd(option) {
				nominated = append(nominated, option)
			}
		}
	}
	remove(h, func(name string) bool {
		if IsHopByHop(name) {
			return true
		}
		for _, option := range nominated {
			if name == option {
				return true
			}
		}
		return false
	})
}

// IsHopByHop says whether a field, whose name is canonical, is about one
// connection, or for a proxy.
func IsHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info":
		return true
	}
	return false
}

// isEndToEnd says whether a field is surely meant for all recipients.
func isEndToEnd(name string) bool {
	switch name {
	case "Host", "Via", "Forwarded", "X-Real-Ip",
		"Authorization", "Cookie", "Set-Cookie", "Origin", "Idempotency-Key",
		"Cache-Control", "Vary", "Date", "Age", "Expires", "Etag", "Last-Modified", "Location",
		"Range", "Accept-Ranges", "Strict-Transport-Security":
		return true
	}
	return strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "If-") ||
		strings.HasPrefix(name, "Access-Control-")
}

// Strip removes what never goes into an entry:
//
//   - what goes only one hop ([RemoveHopByHop]; RFC 9111 §3.1),
//   - the fields that no-cache="…" and private="…" name (RFC 9111 §5.2.2.4,
//     §5.2.2.7),
//   - Set-Cookie, since an entry is sent to everyone (and Set-Cookie2, its
//     forerunner),
//   - what a server says about the message that it sends: Date, Age (RFC 9111
//     §5.1), Content-Length, Cache-Status (RFC 9211),
//   - [ScalesCacheControl], which is for us.
//
// It keeps Content-Encoding, which whoever stores a coded body has to see to.
func Strip(h http.Header) {
	named := map[string]bool{}
	members, _ := directives(h)
	for _, member := range members {
		if member.name != "no-cache" && member.name != "private" {
			continue
		}
		for name := range strings.SplitSeq(member.argument, ",") {
			named[http.CanonicalHeaderKey(strings.Trim(name, " \t"))] = true
		}
	}
	RemoveHopByHop(h)
	remove(h, func(name string) bool {
		switch name {
		case "Set-Cookie", "Set-Cookie2", "Date", "Age", "Content-Length", "Cache-Status", ScalesCacheControl:
			return true
		}
		return named[name]
	})
}

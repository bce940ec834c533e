// Package canonical makes the keys of the cache: the one spelling under which
// a resource is known, whatever spelling of its target a client or a program
// used.
//
// A key is made from the path and the query of a request target (RFC 3986):
//
//   - Percent-encodings are written in upper case, those of unreserved
//     characters (§2.3) are decoded, and characters that may not stand in a
//     path or query (§3.3, §3.4) are encoded, as in `[`. Reserved characters
//     mean something else encoded than raw, so %2F, %3B or %21 stay as they are.
//   - Then dot segments are removed (§5.2.4), those that were written as %2e too.
//   - Letter case, ";", empty segments ("//") and a trailing slash are kept.
//   - The order of the query's parameters is kept and an empty query is dropped.
//     [Rules] may say which parameters count; the others are left out.
//   - With [Rules.Hosts] the key begins with the host, "//example.com/tracks".
//
// Control characters are refused, raw as well as encoded (%00 to %1F and %7F),
// and so is a "%" that two hexadecimal digits don't follow. That holds for
// the parameters that don't count, too: whether a target is well-formed does
// not depend on the rules.
//
// A key consists of the bytes 0x21 to 0x7E. It is its own canonical form, and
// a request for what [Rules.Target] says has this key again.
package canonical

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Errors that the functions of this package wrap. The status is what a server
// answers.
var (
	ErrMalformed = errors.New("malformed request target") // 400 Bad Request
	ErrTooLong   = errors.New("request target too long")  // 414 URI Too Long
	ErrHost      = errors.New("host is not served here")  // 421 Misdirected Request
)

// Rules say what counts for a key. All processes that share a cache need the
// same rules. The zero value leaves the query out, leaves the host out and
// sets no limit. Rules are not changed by use: one value serves any number of
// goroutines.
type Rules struct {
	// QueryAll lets the whole query count.
	QueryAll bool

	// Query names the parameters that count unless QueryAll is set, decoded
	// ("a b", not "a+b"). With none, the query doesn't count.
	Query []string

	// Hosts makes the host a part of the key and names the hosts there are, in
	// the form that [Host] returns. Nil: the host doesn't count.
	Hosts []string

	// MaxLength is the greatest length of a key in bytes. Zero: no limit.
	MaxLength int
}

// Key returns the canonical key of a request target as a server sees it:
// escapedPath is r.URL.EscapedPath(), rawQuery is r.URL.RawQuery and host is
// r.Host, which is looked at only if Hosts is set. An empty path is "/"; one
// that [http.StripPrefix] left without its first slash gets it back; "*" is
// malformed, since it names no resource.
//
// The error wraps [ErrMalformed], [ErrTooLong] or [ErrHost]. A path that is
// canonical already is returned as it is, without an allocation, unless a
// query or a host comes to it.
func (r *Rules) Key(host, escapedPath, rawQuery string) (string, error) {
	if r.Hosts != nil {
		known, err := r.host(host)
		if err != nil {
			return "", err
		}
		host = known
	}
	path, err := Path(escapedPath)
	if err != nil {
		return "", err
	}
	query, err := r.query(rawQuery)
	if err != nil {
		return "", err
	}
	key := path
	switch {
	case r.Hosts != nil && query != "":
		key = "//" + host + path + "?" + query
	case r.Hosts != nil:
		key = "//" + host + path
	case query != "":
		key = path + "?" + query
	}
	if r.MaxLength > 0 && len(key) > r.MaxLength {
		return "", fmt.Errorf("%w: its canonical form has %d bytes, the limit is %d", ErrTooLong, len(key), r.MaxLength)
	}
	return key, nil
}

// Request returns the key of a request's target. Where [Rules.Key] is given
// parts, Request also refuses a target that has none, such as "mailto:x".
func (r *Rules) Request(req *http.Request) (string, error) {
	if req.URL.Opaque != "" {
		return "", fmt.Errorf("%w: it has no path", ErrMalformed)
	}
	return r.Key(req.Host, req.URL.EscapedPath(), req.URL.RawQuery)
}

// Parse canonicalises a key written by a program. It must begin with "/", or
// with "//host" if Hosts is set. A fragment is refused, as it names a part of a
// resource. Characters that would have to be encoded ("/söng") may be raw.
func (r *Rules) Parse(key string) (string, error) {
	if !strings.HasPrefix(key, "/") {
		return "", fmt.Errorf("%w: key %q does not begin with \"/\"", ErrMalformed, key)
	}
	if strings.Contains(key, "#") {
		return "", fmt.Errorf("%w: key %q has a fragment", ErrMalformed, key)
	}
	var host string
	rest := key
	if r.Hosts != nil {
		if !strings.HasPrefix(key, "//") {
			return "", fmt.Errorf("%w: key %q does not begin with \"//\" and a host", ErrHost, key)
		}
		rest = key[2:]
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		host, rest = rest[:end], rest[end:]
	}
	path, query, _ := strings.Cut(rest, "?")
	return r.Key(host, path, query)
}

// Target splits a canonical key into what a request for it needs: the host
// ("" unless Hosts is set) and the request target, "/path?query".
func (r *Rules) Target(key string) (host, target string) {
	if r.Hosts == nil || !strings.HasPrefix(key, "//") {
		return "", key
	}
	end := strings.IndexByte(key[2:], '/')
	if end < 0 {
		return "", key
	}
	return key[2 : 2+end], key[2+end:]
}

// Groups returns the names under which the groups of the resource with that
// canonical key are known in the cache. Groups of two origins are different ones
// (RFC 9875 §2.1), so with Hosts a name is "host/group".
func (r *Rules) Groups(key string, groups []string) []string {
	if r.Hosts == nil || len(groups) == 0 {
		return groups
	}
	host, _ := r.Target(key)
	return scope(host, groups)
}

// GroupsOf is Groups for a response to a request with that host.
func (r *Rules) GroupsOf(host string, groups []string) []string {
	if r.Hosts == nil || len(groups) == 0 {
		return groups
	}
	known, err := r.host(host)
	if err != nil {
		return nil
	}
	return scope(known, groups)
}

// GroupsEverywhere is Groups for all hosts.
func (r *Rules) GroupsEverywhere(groups []string) []string {
	if r.Hosts == nil {
		return groups
	}
	var all []string
	for _, host := range r.Hosts {
		all = append(all, scope(host, groups)...)
	}
	return all
}

func scope(host string, groups []string) []string {
	scoped := make([]string, len(groups))
	for i, group := range groups {
		scoped[i] = host + "/" + group
	}
	return scoped
}

// host returns the member of Hosts that a request's host stands for.
func (r *Rules) host(host string) (string, error) {
	if slices.Contains(r.Hosts, host) {
		return host, nil
	}
	canonical, err := Host(host)
	if err == nil && slices.Contains(r.Hosts, canonical) {
		return canonical, nil
	}
	return "", fmt.Errorf("%w: %q", ErrHost, host)
}

// query returns the canonical form of what counts in a query, without "?".
func (r *Rules) query(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	query := raw
	if !isNormal(raw, inQuery) {
		normal, err := appendNormal(make([]byte, 0, len(raw)+16), raw, inQuery)
		if err != nil {
			return "", fmt.Errorf("%w in the query", err)
		}
		query = string(normal)
	}
	switch {
	case r.QueryAll:
		return query, nil
	case len(r.Query) == 0:
		return "", nil
	}
	return r.filter(query), nil
}

// filter returns the parameters of a canonical query that count.
func (r *Rules) filter(query string) string {
	all := true
	for parameter := range strings.SplitSeq(query, "&") {
		all = all && r.counts(parameter)
	}
	if all {
		return query
	}
	kept := make([]byte, 0, len(query))
	for parameter := range strings.SplitSeq(query, "&") {
		if !r.counts(parameter) {
			continue
		}
		if len(kept) > 0 {
			kept = append(kept, '&')
		}
		kept = append(kept, parameter...)
	}
	return string(kept)
}

// counts says whether a parameter, "name" or "name=value" in canonical form,
// counts. The name is compared decoded, with "+" as a space.
func (r *Rules) counts(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	if strings.ContainsAny(name, "%+") {
		name = decodeName(name)
	}
	return slices.Contains(r.Query, name)
}

// Host returns the canonical form of a host: in lower case, without the default
// port of http or https (":80", ":443"), which a key doesn't tell apart. The
// error wraps [ErrHost]; a host without a name, with user information or with
// characters that don't stand in one is refused.
func Host(host string) (string, error) {
	name, port := host, ""
	// The colons of an IPv6 address are inside its brackets.
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], host[i+1:]
	}
	if !isHostName(name) || !isDigits(port) {
		return "", fmt.Errorf("%w: %q is not a host", ErrHost, host)
	}
	name = strings.ToLower(name)
	if port == "" || port == "80" || port == "443" {
		return name, nil
	}
	return name + ":" + port, nil
}

package canonical_test

import (
	"bufio"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/canonical"
)

var whole = &canonical.Rules{QueryAll: true}

func TestPathsOfOneResourceHaveOneKey(t *testing.T) {
	for _, test := range []struct{ name, path, want string }{
		{"plain", "/tracks/7.json", "/tracks/7.json"},
		{"empty", "", "/"},
		{"root", "/", "/"},
		{"without its first slash, as StripPrefix leaves it", "tracks", "/tracks"},
		{"hex in lower case", "/a%2fb%c3%bc", "/a%2Fb%C3%BC"},
		{"encoded unreserved characters", "/%41%7a%30%2d%2e%5f%7E", "/Az0-._~"},
		{"an encoded slash is no separator", "/a%2Fb", "/a%2Fb"},
		{"an encoded reserved character stays", "/a%3Bb%21", "/a%3Bb%21"},
		{"an encoded percent sign is not decoded twice", "/%252e%252E/a", "/%252e%252E/a"},
		{"case", "/Tracks", "/Tracks"},
		{"semicolon", "/a;v=1/b", "/a;v=1/b"},
		{"empty segments", "//a///b", "//a///b"},
		{"trailing slash", "/a/", "/a/"},
		{"all that RFC 3986 lets stand raw", "/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"},
		{"brackets, which net/http lets through", "/a[1]", "/a%5B1%5D"},
		{"other characters that have to be encoded", "/\"<>\\^`{|} #?", "/%22%3C%3E%5C%5E%60%7B%7C%7D%20%23%3F"},
		{"raw UTF-8", "/söng", "/s%C3%B6ng"},
		{"encoded bytes that are no UTF-8", "/%ff%FE", "/%FF%FE"},
		{"dot segments", "/a/b/c/./../../g", "/a/g"},
		{"dot segments at the end", "/a/b/..", "/a/"},
		{"a dot at the end", "/a/.", "/a/"},
		{"dot segments above the root", "/../../a", "/a"},
		{"only dot segments", "/..", "/"},
		{"encoded dot segments", "/a/%2e%2E/b/%2e", "/b/"},
		{"half encoded dot segments", "/a/.%2e/b", "/b"},
		{"dot segments after an empty segment", "/a//../b", "/a/b"},
		{"dot segments that leave an empty segment", "/.//a", "//a"},
		{"names that begin with dots", "/.well-known/..a/...", "/.well-known/..a/..."},
		{"an encoded slash beside dots", "/a/..%2fb", "/a/..%2Fb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := whole.Key("", test.path, "")
			if err != nil || got != test.want {
				t.Errorf("Key(%q) = %q, %v; want %q", test.path, got, err, test.want)
			}
		})
	}
}

func TestQueries(t *testing.T) {
	some := &canonical.Rules{Query: []string{"page", "a b", "ü", "f[x]"}}
	none := &canonical.Rules{}
	for _, test := range []struct {
		name  string
		rules *canonical.Rules
		query string
		want  string
	}{
		{"the order is kept", whole, "b=2&a=1", "/?b=2&a=1"},
		{"an empty query is dropped", whole, "", "/"},
		{"repeated and empty parameters are kept", whole, "a=1&&a=1&b", "/?a=1&&a=1&b"},
		{"normalised like a path", whole, "%61=%7e%2f%c3", "/?a=~%2F%C3"},
		{"an encoded separator stays", whole, "a=%26%3d", "/?a=%26%3D"},
		{"plus is not a spelling of %20", whole, "a=+%20%2b", "/?a=+%20%2B"},
		{"slash and question mark stay raw", whole, "a=/?", "/?a=/?"},
		{"dots are no segments", whole, "a=/../b", "/?a=/../b"},
		{"characters that have to be encoded", whole, "f[x]=\"ü\"#", "/?f%5Bx%5D=%22%C3%BC%22%23"},
		{"what doesn't count is left out", some, "utm_source=x&page=2&utm_medium=y", "/?page=2"},
		{"nothing left", some, "utm_source=x", "/"},
		{"all that counts is kept in its order", some, "page=2&x&page=1&page", "/?page=2&page=1&page"},
		{"names are compared decoded", some, "p%61ge=1&a+b=2&a%20b=3&%c3%bc=4&f[x]=5", "/?page=1&a+b=2&a%20b=3&%C3%BC=4&f%5Bx%5D=5"},
		{"a semicolon doesn't end a parameter", some, "page=1;x=2", "/?page=1;x=2"},
		{"case tells names apart", some, "Page=1", "/"},
		{"empty parameters don't count", some, "&&page=1&", "/?page=1"},
		{"no parameter counts", none, "page=1", "/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.rules.Key("", "/", test.query)
			if err != nil || got != test.want {
				t.Errorf("Key(%q) = %q, %v; want %q", test.query, got, err, test.want)
			}
		})
	}
}

func TestMalformedTargetsAreRefused(t *testing.T) {
	for _, test := range []struct{ name, path, query string }{
		{"an asterisk", "*", ""},
		{"a lone percent sign", "/%", ""},
		{"one digit", "/%4", ""},
		{"not hexadecimal", "/%4g", ""},
		{"percent percent", "/%%41", ""},
		{"in the query", "/", "a=%zz"},
		{"a raw control character", "/a\nb", ""},
		{"a raw DEL", "/a\x7f", ""},
		{"an encoded NUL", "/a%00", ""},
		{"an encoded line feed", "/a%0a", ""},
		{"an encoded DEL", "/%7f", ""},
		{"an encoded tab in the query", "/", "a=%09"},
		{"in a segment that dots remove", "/%zz/..", ""},
	} {
		for name, rules := range map[string]*canonical.Rules{
			"the whole query counts": whole, "no query counts": {}, "another parameter counts": {Query: []string{"z"}},
		} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				key, err := rules.Key("", test.path, test.query)
				if !errors.Is(err, canonical.ErrMalformed) || key != "" {
					t.Errorf("Key(%q, %q) = %q, %v; want ErrMalformed", test.path, test.query, key, err)
				}
			})
		}
	}
}

func TestLongKeysAreRefused(t *testing.T) {
	rules := &canonical.Rules{Query: []string{"page"}, MaxLength: 14}
	for _, test := range []struct {
		path, query string
		ok          bool
	}{
		{"/12345", "page=1", true},
		{"/123456", "page=1", true},
		{"/1234567", "page=1", false},
		{"/1234", "utm_source=does+not+count", true},
		{"/%31%32%33%34%35%36%37", "", true},
		{"/[][][]", "", false},
	} {
		_, err := rules.Key("", test.path, test.query)
		if test.ok && err != nil || !test.ok && !errors.Is(err, canonical.ErrTooLong) {
			t.Errorf("Key(%q, %q): %v; want accepted: %t", test.path, test.query, err, test.ok)
		}
	}
}

func TestTheHostIsPartOfTheKeyWhereItCounts(t *testing.T) {
	rules := &canonical.Rules{Hosts: []string{"example.com", "example.com:8080", "[2001:db8::1]", "[2001:db8::1]:8080"}}
	for _, test := range []struct{ host, path, want string }{
		{"example.com", "/a", "//example.com/a"},
		{"EXAMPLE.com", "/a", "//example.com/a"},
		{"example.com:80", "/a", "//example.com/a"},
		{"example.com:443", "/a", "//example.com/a"},
		{"example.com:", "/a", "//example.com/a"},
		{"Example.com:8080", "/a", "//example.com:8080/a"},
		{"[2001:DB8::1]", "/a", "//[2001:db8::1]/a"},
		{"[2001:db8::1]:443", "/a", "//[2001:db8::1]/a"},
		{"[2001:db8::1]:8080", "/a", "//[2001:db8::1]:8080/a"},
		{"example.com", "", "//example.com/"},
		{"example.com", "//b/", "//example.com//b/"},
	} {
		key, err := rules.Key(test.host, test.path, "")
		if err != nil || key != test.want {
			t.Errorf("Key(%q, %q) = %q, %v; want %q", test.host, test.path, key, err, test.want)
			continue
		}
		host, target := rules.Target(key)
		if again, err := rules.Key(host, target, ""); again != key || err != nil {
			t.Errorf("Target(%q) = %q, %q, which has the key %q, %v", key, host, target, again, err)
		}
		if parsed, err := rules.Parse(key); parsed != key || err != nil {
			t.Errorf("Parse(%q) = %q, %v", key, parsed, err)
		}
	}
	for _, host := range []string{"", "example.org", "example.com:81", "example.com.", "www.example.com",
		"user@example.com", "example.com/", "[example.com]", "[2001:db8::1", "2001:db8::1", "example.com:80:80", "example.com\n"} {
		if key, err := rules.Key(host, "/", ""); !errors.Is(err, canonical.ErrHost) {
			t.Errorf("Key with host %q = %q, %v; want ErrHost", host, key, err)
		}
	}
}

func TestAnEmptyListOfHostsServesNone(t *testing.T) {
	rules := &canonical.Rules{Hosts: []string{}}
	if key, err := rules.Key("example.com", "/", ""); !errors.Is(err, canonical.ErrHost) {
		t.Errorf("Key = %q, %v; want ErrHost", key, err)
	}
}

func TestKeysOfPrograms(t *testing.T) {
	hosts := &canonical.Rules{Hosts: []string{"example.com"}, QueryAll: true}
	for _, test := range []struct {
		rules     *canonical.Rules
		key, want string
		err       error
	}{
		{whole, "/tracks?b=2&a=%7e", "/tracks?b=2&a=~", nil},
		{whole, "/söng name", "/s%C3%B6ng%20name", nil},
		{whole, "/ü%2Fx", "/%C3%BC%2Fx", nil},
		{whole, "/a?", "/a", nil},
		{whole, "//a/b", "//a/b", nil},
		{whole, "/a?b?c", "/a?b?c", nil},
		{whole, "", "", canonical.ErrMalformed},
		{whole, "tracks", "", canonical.ErrMalformed},
		{whole, "*", "", canonical.ErrMalformed},
		{whole, "http://example.com/", "", canonical.ErrMalformed},
		{whole, "/a#b", "", canonical.ErrMalformed},
		{whole, "/a?b#c", "", canonical.ErrMalformed},
		{whole, "/%0a", "", canonical.ErrMalformed},
		{hosts, "//EXAMPLE.com:443/a/../b?c", "//example.com/b?c", nil},
		{hosts, "//example.com", "//example.com/", nil},
		{hosts, "//example.com?a", "//example.com/?a", nil},
		{hosts, "//example.org/a", "", canonical.ErrHost},
		{hosts, "/a", "", canonical.ErrHost},
		{hosts, "//", "", canonical.ErrHost},
		{hosts, "///a", "", canonical.ErrHost},
	} {
		got, err := test.rules.Parse(test.key)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("Parse(%q) = %q, %v; want %q, %v", test.key, got, err, test.want, test.err)
		}
	}
}

func TestHostNames(t *testing.T) {
	for host, want := range map[string]string{
		"localhost": "localhost", "A.example:8080": "a.example:8080", "127.0.0.1:80": "127.0.0.1",
		"[::1]:9": "[::1]:9", "under_score": "under_score",
	} {
		if got, err := canonical.Host(host); got != want || err != nil {
			t.Errorf("Host(%q) = %q, %v; want %q", host, got, err, want)
		}
	}
	for _, host := range []string{"", ":80", "a b", "a/b", "a?b", "http://a", "a:b", "ü", "[", "[]", "[::1]x", "%41"} {
		if got, err := canonical.Host(host); !errors.Is(err, canonical.ErrHost) || got != "" {
			t.Errorf("Host(%q) = %q, %v; want ErrHost", host, got, err)
		}
	}
}

// The requests are read by net/http, so that these are the paths a server sees.
func TestTargetsAsNetHTTPReadsThem(t *testing.T) {
	for target, want := range map[string]string{
		"/a%2fb/./c?d":             "/a%2Fb/c?d",
		"/a%2Fb[1]?":               "/a%2Fb%5B1%5D",
		"/!$&'()*":                 "/!$&'()*",
		"/%21":                     "/%21",
		"//a/b":                    "//a/b",
		"/a#b?c#d":                 "/a%23b?c%23d",
		"http://example.com":       "/",
		"http://example.com/a?b":   "/a?b",
		"/%e2%82%ac/€":             "/%E2%82%AC/%E2%82%AC",
		"/a?b[]=1&c=\"|\"":         "/a?b%5B%5D=1&c=%22%7C%22",
		"*":                        "",
		"mailto:nina@example.com":  "",
		"/%7f":                     "",
		"/a?b=%":                   "",
		"http:relative/of/a/kind?": "",
	} {
		request, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")))
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		got, err := whole.Request(request)
		if got != want || (want == "") != errors.Is(err, canonical.ErrMalformed) {
			t.Errorf("Request(%q) = %q, %v; want %q", target, got, err, want)
		}
	}
}

func TestACanonicalPathCostsNoAllocation(t *testing.T) {
	request := &http.Request{URL: &url.URL{Path: "/tracks/.well-known/nina-simone.json"}}
	rules := &canonical.Rules{QueryAll: true, MaxLength: 2048}
	var key string
	if n := testing.AllocsPerRun(100, func() { key, _ = rules.Request(request) }); n != 0 || key != request.URL.Path {
		t.Errorf("%q took %v allocations", key, n)
	}
}

func TestPartitionsNeverMove(t *testing.T) {
	for _, test := range []struct {
		key        string
		partitions int
		want       int
	}{
		{"123456789", 1024, 0xCBF43926 % 1024}, // the check value of CRC-32
		{"/", 16, 4},
		{"/tracks/7.json", 16, 13},
		{"/tracks/7.json", 3, 0},
		{"/anything", 1, 0},
		{"/anything", 0, 0},
	} {
		if got := canonical.Partition(test.key, test.partitions); got != test.want {
			t.Errorf("Partition(%q, %d) = %d, want %d", test.key, test.partitions, got, test.want)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	rules := &canonical.Rules{Query: []string{"page"}, MaxLength: 2048}
	hosts := &canonical.Rules{Hosts: []string{"example.com"}, MaxLength: 2048}
	for _, bench := range []struct {
		name              string
		rules             *canonical.Rules
		host, path, query string
	}{
		{"canonical", rules, "", "/artists/nina-simone/albums/7.json", ""},
		{"canonical with query", rules, "", "/artists/nina-simone/albums", "page=2"},
		{"query filtered", rules, "", "/artists/nina-simone/albums", "page=2&utm_source=x"},
		{"to be normalised", rules, "", "/artists/%6eina-simone/../[7].json", ""},
		{"with host", hosts, "example.com", "/artists/nina-simone/albums/7.json", ""},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.rules.Key(bench.host, bench.path, bench.query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPartition(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		canonical.Partition("/artists/nina-simone/albums/7.json", 16)
	}
}

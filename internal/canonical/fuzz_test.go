package canonical_test

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/canonical"
)

// fuzzRules are the kinds of rules there are.
var fuzzRules = []*canonical.Rules{
	{QueryAll: true},
	{},
	{Query: []string{"page", "a b"}},
	{QueryAll: true, Hosts: []string{"example.com", "[::1]:8080"}},
}

func FuzzKey(f *testing.F) {
	for _, seed := range [][2]string{
		{"/a/../b%2f%2e%2E//", "a=1&%70age=%zz&page=+2"}, {"*", "?"}, {"", "&&"}, {"/%252e/[ü]#?", "a b&a+b=1"}, {"//h/..//x", "#"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, path, query string) {
		for _, rules := range fuzzRules {
			key, err := rules.Key("example.com", path, query)
			if err != nil {
				continue
			}
			checkKey(t, rules, key)
			if rules.Hosts == nil && !strings.ContainsAny(path, "?#*") && !strings.ContainsAny(query, "#") && strings.HasPrefix(path, "/") {
				parsed, err := rules.Parse(path + "?" + query)
				if parsed != key || err != nil {
					t.Errorf("Key(%q, %q) = %q but Parse gives %q, %v", path, query, key, parsed, err)
				}
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/a?b", "//example.com/a/%2e%2e/b?c", "//[::1]:8080?", "/%zz", "/a#b", "//EXAMPLE.COM:80//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		for _, rules := range fuzzRules {
			if canonicalKey, err := rules.Parse(key); err == nil {
				checkKey(t, rules, canonicalKey)
			}
		}
	})
}

// FuzzTwoKeys looks for two keys that have the same target.
func FuzzTwoKeys(f *testing.F) {
	f.Add("/a%2fb", "/a%2Fb")
	f.Add("//example.com//a", "//example.com/a")
	f.Add("/a?b", "/a%3fb")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, rules := range fuzzRules {
			keyA, errA := rules.Parse(a)
			keyB, errB := rules.Parse(b)
			if errA != nil || errB != nil {
				continue
			}
			hostA, targetA := rules.Target(keyA)
			hostB, targetB := rules.Target(keyB)
			if (keyA == keyB) != (hostA == hostB && targetA == targetB) {
				t.Errorf("keys %q and %q have the targets %q %q and %q %q", keyA, keyB, hostA, targetA, hostB, targetB)
			}
		}
	})
}

// checkKey checks what holds for every key: its bytes, that it is its own
// canonical form, and that net/http reads its target as it was meant.
func checkKey(t *testing.T, rules *canonical.Rules, key string) {
	t.Helper()
	for i := range len(key) {
		if key[i] < 0x21 || key[i] > 0x7E {
			t.Fatalf("key %q holds the byte %#02x", key, key[i])
		}
	}
	if again, err := rules.Parse(key); again != key || err != nil {
		t.Fatalf("key %q is canonicalised to %q, %v", key, again, err)
	}
	host, target := rules.Target(key)
	if _, err := url.ParseRequestURI(target); err != nil {
		t.Fatalf("target %q of key %q: %v", target, key, err)
	}
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")))
	if err != nil {
		t.Fatalf("target %q of key %q: %v", target, key, err)
	}
	if again, err := rules.Request(request); again != key || err != nil {
		t.Fatalf("a request for %q of key %q has the key %q, %v", target, key, again, err)
	}
}

package field_test

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/field"
)

func TestLinkTargets(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []string
		want   []string
	}{
		{"one", []string{`</a>; rel="invalidates"`}, []string{"/a"}},
		{"without quotes", []string{`</a>;rel=invalidates`}, []string{"/a"}},
		{"several", []string{`</a>; rel=invalidates, </b>; rel=next, </c>; rel=invalidates`, `</d>; rel=invalidates`}, []string{"/a", "/c", "/d"}},
		{"several types", []string{`</a>; rel="next  invalidates	prev"`}, []string{"/a"}},
		{"in any case", []string{`</a>; REL=Invalidates`}, []string{"/a"}},
		{"the first rel counts", []string{`</a>; rel=next; rel=invalidates, </b>; rel=invalidates; rel=next`}, []string{"/b"}},
		{"with an anchor", []string{`</a>; rel=invalidates; anchor="/x", </b>; anchor=""; rel=invalidates, </c>; rel=invalidates`}, []string{"/c"}},
		{"commas and semicolons in a target", []string{`</a,b;c>; rel=invalidates`}, []string{"/a,b;c"}},
		{"commas in a quoted string", []string{`</a>; title="x, </y>; rel=invalidates"; rel=next, </b>; title="\"," ; rel=invalidates`}, []string{"/b"}},
		{"escapes in a quoted string", []string{`</a>; rel="in\validates"`}, []string{"/a"}},
		{"a type is the whole word", []string{`</a>; rel=invalidatesx, </b>; rel="x-invalidates", </c>; rel=""`}, nil},
		{"no rel", []string{`</a>`, `</b>; rel`, `</c>; rev=invalidates`, `</d>; rel*=invalidates`}, nil},
		{"white space everywhere", []string{" \t</a> ; rel = \"invalidates\" ; x = y\t,\t</b>\t;rel = invalidates "}, []string{"/a", "/b"}},
		{"empty elements and parameters", []string{`,, </a>;; rel=invalidates;, ,</b>; ;rel=invalidates,`}, []string{"/a", "/b"}},
		{"an empty target", []string{`<>; rel=invalidates`}, []string{""}},
		{"nothing", nil, nil},
		{"an empty value", []string{""}, nil},
		{"no brackets", []string{`</a>; rel=invalidates, /b; rel=invalidates, </c>; rel=invalidates`, `</d>; rel=invalidates`}, []string{"/a", "/d"}},
		{"a bracket that doesn't close", []string{`</a>; rel=invalidates, </b; rel=invalidates`}, []string{"/a"}},
		{"a quoted string that doesn't end", []string{`</a>; rel=invalidates, </b>; rel="invalidates`}, []string{"/a"}},
		{"a quoted string that ends in a backslash", []string{`</a>; rel=invalidates, </b>; rel="invalidates\`}, []string{"/a"}},
		{"something after a quoted string", []string{`</a>; rel="invalidates" x`}, nil},
		{"something after a target", []string{`</a> x; rel=invalidates`}, nil},
		{"something after a name", []string{`</a>; x y; rel=invalidates`}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := field.LinkTargets(test.values, "invalidates"); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// FuzzLinkTargets checks that each target is in the value, that a value before
// another changes nothing about it, and that a good link before a bad value is
// found.
func FuzzLinkTargets(f *testing.F) {
	f.Add(`</a>; rel="next invalidates"; title="x, \"y\"", <>;rel=invalidates;anchor=x`)
	f.Add(`</a>; rel="`)
	f.Add(",;<>=\"\\")
	f.Fuzz(func(t *testing.T, value string) {
		targets := field.LinkTargets([]string{value}, "invalidates")
		for _, target := range targets {
			if !strings.Contains(value, "<"+target+">") {
				t.Fatalf("target %q is not in %q", target, value)
			}
		}
		if got := field.LinkTargets([]string{value, value}, "Invalidates"); !slices.Equal(got, slices.Concat(targets, targets)) {
			t.Fatalf("twice %q gives %q, once %q", value, got, targets)
		}
		if got := field.LinkTargets([]string{"</x>; rel=invalidates, " + value}, "invalidates"); !slices.Equal(got, slices.Concat([]string{"/x"}, targets)) {
			t.Fatalf("after a good link %q gives %q, alone %q", value, got, targets)
		}
	})
}

func TestReferencesOfTheSameOrigin(t *testing.T) {
	base, err := url.Parse("http://example.com/a/b?q")
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"example.com", "other.example:8080", "[::1]:80"}
	for ref, want := range map[string]string{
		"/c":                           "/c",
		"c":                            "/a/c",
		"../c?d#e":                     "/c?d",
		"?x=1":                         "/a/b?x=1",
		"":                             "/a/b?q",
		"#x":                           "/a/b?q",
		"/c%2Fd/%7e":                   "/c%2Fd/%7e",
		"/söng":                        "/s%C3%B6ng",
		"//example.com/c":              "/c",
		"http://example.com":           "/",
		"http://example.com?x":         "/?x",
		"HTTPS://EXAMPLE.COM:443/c":    "/c",
		"http://example.com:80/../c":   "/c",
		"https://example.com:/c":       "/c",
		"http://other.example:8080/c":  "/c",
		"http://[::1]/c":               "/c",
		"http://other.example/c":       "refused",
		"http://example.com:8080/c":    "refused",
		"http://example.org/c":         "refused",
		"//example.org/c":              "refused",
		"http://user@example.com/c":    "refused",
		"http://@example.com/c":        "refused",
		"http://example.com@evil.org/": "refused",
		"http:///c":                    "refused",
		"///c":                         "refused",
		"http:c":                       "refused",
		"ftp://example.com/c":          "refused",
		"mailto:nina@example.com":      "refused",
		"urn:x":                        "refused",
		"/c\n":                         "refused",
		"/%zz":                         "refused",
		"http://[::1/":                 "refused",
	} {
		_, path, query, ok := field.SameOrigin(ref, base, hosts...)
		got := path
		if query != "" {
			got += "?" + query
		}
		if !ok {
			got = "refused" + path + query
		}
		if got != want {
			t.Errorf("SameOrigin(%q) = %q, want %q", ref, got, want)
		}
	}
	if _, path, _, ok := field.SameOrigin("/c", base); !ok || path != "/c" {
		t.Errorf("without hosts a reference without one is %q, %t", path, ok)
	}
	if _, path, _, ok := field.SameOrigin("http://example.com/c", base); ok {
		t.Errorf("without hosts a reference with one is %q", path)
	}
	if !reflect.DeepEqual(base, &url.URL{Scheme: "http", Host: "example.com", Path: "/a/b", RawQuery: "q"}) {
		t.Errorf("the base was changed to %v", base)
	}
}

// FuzzSameOrigin checks that what is of the same origin is a request target, and
// that a reference to another host never is.
func FuzzSameOrigin(f *testing.F) {
	base := &url.URL{Scheme: "http", Host: "example.com", Path: "/a/b"}
	for _, seed := range []string{"../c?d#e", "//example.com:80/%2e", "/\\evil.example/", "http:///x", "a:b", "http://evil.example\\@example.com/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		_, path, _, ok := field.SameOrigin(ref, base, "example.com")
		if !ok {
			return
		}
		if _, err := url.ParseRequestURI(path); err != nil || path[0] != '/' {
			t.Fatalf("SameOrigin(%q) gives the path %q: %v", ref, path, err)
		}
		resolved, err := base.Parse(ref)
		if err != nil || resolved.Hostname() != "example.com" && !strings.EqualFold(resolved.Hostname(), "example.com") {
			t.Fatalf("SameOrigin(%q) is ok, but the host is %q, %v", ref, resolved.Host, err)
		}
	})
}

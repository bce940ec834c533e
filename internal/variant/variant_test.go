package variant_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/itscales/scales/internal/variant"
)

var (
	languages = variant.Field{Name: "Accept-Language", Values: []string{"en", "de", "pt-BR"}}
	devices   = variant.Field{Name: "X-Device", Values: []string{"", "phone"}}
)

func TestVariantsAreNumberedByTheirValues(t *testing.T) {
	fields := variant.Fields{languages, devices}
	if fields.Count() != 6 {
		t.Fatalf("there are %d variants, want 6", fields.Count())
	}
	for n, want := range []http.Header{
		{"Accept-Language": {"en"}}, {"Accept-Language": {"en"}, "X-Device": {"phone"}},
		{"Accept-Language": {"de"}}, {"Accept-Language": {"de"}, "X-Device": {"phone"}},
		{"Accept-Language": {"pt-BR"}}, {"Accept-Language": {"pt-BR"}, "X-Device": {"phone"}},
	} {
		got := http.Header{"X-Device": {"other"}}
		fields.Set(got, n)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("variant %d is asked for with %v, want %v", n, got, want)
		}
		if selected := variant.SelectorOf(fields).Select(want); selected != n {
			t.Errorf("%v selects %d, want %d", want, selected, n)
		}
	}
	if got, want := fields.String(3), "Accept-Language: de, X-Device: phone"; got != want {
		t.Errorf("variant 3 is %q, want %q", got, want)
	}
	if got := (variant.Fields{}).Count(); got != 1 {
		t.Errorf("without fields there are %d variants, want 1", got)
	}
}

func TestVariantsWithinSomeOfTheFields(t *testing.T) {
	fields := variant.Fields{languages, devices}
	for _, test := range []struct {
		in      []bool
		within  variant.Fields
		numbers []int
	}{
		{[]bool{false, false}, nil, []int{0}},
		{[]bool{true, false}, variant.Fields{languages}, []int{0, 2, 4}},
		{[]bool{false, true}, variant.Fields{devices}, []int{0, 1}},
		{[]bool{true, true}, fields, []int{0, 1, 2, 3, 4, 5}},
	} {
		within, numbers := fields.Within(test.in)
		if !reflect.DeepEqual(within, test.within) || !reflect.DeepEqual(numbers, test.numbers) {
			t.Errorf("within %v: %v, %v; want %v, %v", test.in, within, numbers, test.within, test.numbers)
		}
	}
}

func TestRequestsSelect(t *testing.T) {
	for _, test := range []struct {
		name   string
		field  variant.Field
		header []string
		want   string
	}{
		{"no field", languages, nil, "en"},
		{"exact", languages, []string{"de"}, "de"},
		{"another case", languages, []string{"DE"}, "de"},
		{"a country", languages, []string{"de-AT"}, "de"},
		{"of another country", languages, []string{"pt-PT"}, "pt-BR"},
		{"a browser", languages, []string{"fr-CH, fr;q=0.9, de;q=0.8, en;q=0.7, *;q=0.5"}, "de"},
		{"weights", languages, []string{"en;q=0.5, de;q=0.8"}, "de"},
		{"two lines", languages, []string{"en;q=0.5", "de;q=0.8"}, "de"},
		{"none that there is", languages, []string{"ja"}, "en"},
		{"refused", languages, []string{"de;q=0, de-AT, pt"}, "pt-BR"},
		{"the first one is refused", languages, []string{"en;q=0, *"}, "de"},
		{"all are refused", languages, []string{"*;q=0"}, "en"},
		{"anything", languages, []string{"*"}, "en"},
		{"anything else", languages, []string{"de;q=0.1, *"}, "en"},
		{"rather than anything", languages, []string{"de, *;q=0.5"}, "de"},
		{"anything but the first", languages, []string{"ja, *;q=0.5, en;q=0.1"}, "de"},
		{"an unknown one before", languages, []string{"zz, de"}, "de"},
		{"a relative before", variant.Field{Name: "Accept-Language", Values: []string{"de", "en"}}, []string{"is, de;q=0.9"}, "de"},
		{"a far relative before", variant.Field{Name: "Accept-Language", Values: []string{"en", "zh-CN"}}, []string{"zh-TW, en;q=0.8"}, "en"},
		{"only a relative", variant.Field{Name: "Accept-Language", Values: []string{"de", "en"}}, []string{"cy"}, "en"},
		{"an unknown country", languages, []string{"de-AB, en;q=0.1"}, "de"},
		{"an unknown variant", languages, []string{"de-foobar"}, "de"},
		{"one country refused", variant.Field{Name: "Accept-Language", Values: []string{"en-US", "en-GB"}}, []string{"en-US;q=0, en"}, "en-GB"},
		{"the first refused, nothing asked for", languages, []string{"en;q=0"}, "de"},
		{"a malformed one after", languages, []string{"de, x!, ;q=1"}, "de"},
		{"a malformed weight", languages, []string{"en;q=NaN, de;q=0.1, pt;q=1e30, en;q=;q"}, "de"},
		{"an empty parameter", languages, []string{"pt;q=0.9;, de;q=0.1"}, "de"},
		{"garbage", languages, []string{";;,,==\x01"}, "en"},
		{"too long", languages, []string{"de, " + strings.Repeat("x-a, ", 1000)}, "en"},

		{"no field", devices, nil, ""},
		{"exact", devices, []string{" phone "}, "phone"},
		{"another case", devices, []string{"Phone"}, ""},
		{"none that there is", devices, []string{"tablet"}, ""},
		{"two lines", devices, []string{"phone", "phone"}, ""},
		{"the absent one is not the first", variant.Field{Name: "X", Values: []string{"a", ""}}, nil, ""},
		{"nor is it what others get", variant.Field{Name: "X", Values: []string{"a", ""}}, []string{"b"}, "a"},

		{"no field", types("text/html", "application/json"), nil, "text/html"},
		{"exact", types("text/html", "application/json"), []string{"application/json"}, "application/json"},
		{"with a parameter", types("text/html", "application/json"), []string{"application/json; charset=utf-8"}, "application/json"},
		{"a browser", types("text/html", "application/json"), []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, "text/html"},
		{"weights", types("text/html", "application/json"), []string{"text/html;q=0.5, application/json;q=0.9"}, "application/json"},
		{"the precise one says the weight", types("text/html", "application/json"), []string{"text/html;q=0.1, */*"}, "application/json"},
		{"the precise one goes first", types("text/html", "application/json"), []string{"*/*, application/json"}, "application/json"},
		{"a kind", types("text/html", "application/json"), []string{"application/*, text/*;q=0.5"}, "application/json"},
		{"excluded", types("text/html", "application/json"), []string{"application/json;q=0"}, "text/html"},
		{"none that there is", types("text/html", "application/json"), []string{"image/png"}, "text/html"},
		{"garbage", types("text/html", "application/json"), []string{`application, /json, "`}, "text/html"},
		{"malformed weights", types("text/html", "application/json"), []string{"text/html;q=7, text/html;q=, text/html;q=NaN, application/json;q=0.1"}, "application/json"},
		{"a weight in quotes", types("text/html", "application/json"), []string{`application/json;p=";q=0;", text/html;q=0.9`}, "application/json"},
		{"kinds of it, and it", types("text/html", "application/json"), []string{"application/json;profile=x;q=0.1, application/json, text/html;q=0.5"}, "application/json"},
		{"it, and kinds of it", types("text/html", "application/json"), []string{"application/json, application/json;profile=x;q=0.1, text/html;q=0.5"}, "application/json"},
		{"half of a range", types("*/*", "application/json"), []string{"*/json, application/json;q=0.5"}, "application/json"},
		{"another kind of it excluded", types("text/html", "application/json"), []string{"text/html;level=1;q=0, text/html;q=0.9, application/json;q=0.8"}, "text/html"},
		{"anything", types("*/*", "application/json"), []string{"*/*"}, "*/*"},
		{"something", types("*/*", "application/json"), []string{"image/png"}, "*/*"},
		{"just that", types("*/*", "application/json"), []string{"application/json"}, "application/json"},
		{"something or just that", types("*/*", "application/json"), []string{"text/html, application/json"}, "*/*"},
		{"just that or something", types("*/*", "application/json"), []string{"text/html;q=0.9, application/json"}, "application/json"},
		{"rather just that", types("*/*", "application/json"), []string{"application/json, */*;q=0.01"}, "application/json"},
		{"just that, named", types("*/*", "application/json"), []string{"application/json, */*"}, "application/json"},
		{"anything but that", types("*/*", "application/json"), []string{"application/json;q=0, */*;q=0.1"}, "*/*"},
		{"a browser again", types("*/*", "application/json"), []string{"text/html,application/xml;q=0.9,*/*;q=0.8"}, "*/*"},
	} {
		t.Run(test.field.Name+"/"+test.name, func(t *testing.T) {
			fields := variant.Fields{test.field}
			if err := fields.Check(); err != nil {
				t.Fatal(err)
			}
			header := http.Header{test.field.Name: test.header}
			if test.header == nil {
				header = http.Header{}
			}
			for range 2 { // what is found and what is remembered
				if got := test.field.Values[variant.SelectorOf(fields).Select(header)]; got != test.want {
					t.Fatalf("%q selects %q, want %q", test.header, got, test.want)
				}
			}
		})
	}
}

func types(values ...string) variant.Field { return variant.Field{Name: "Accept", Values: values} }

func TestFieldsThatCannotSelectAreRefused(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, fields := range map[string]variant.Fields{
		"cookie":            {{Name: "Cookie", Values: []string{"a", "b"}}},
		"authorization":     {{Name: "Authorization", Values: []string{"a", "b"}}},
		"host":              {{Name: "Host", Values: []string{"a", "b"}}},
		"coding":            {{Name: "Accept-Encoding", Values: []string{"gzip", "br"}}},
		"trailer":           {{Name: "Trailer", Values: []string{"a"}}},
		"expect":            {{Name: "Expect", Values: []string{"a"}}},
		"range":             {{Name: "Range", Values: []string{"bytes=0-", ""}}},
		"no name":           {{Values: []string{"a", "b"}}},
		"bad name":          {{Name: "A b", Values: []string{"a", "b"}}},
		"not canonical":     {{Name: "x-device", Values: []string{"a", "b"}}},
		"every field":       {{Name: "*x", Values: nil}},
		"no values":         {{Name: "X-Device"}},
		"twice":             {devices, devices},
		"a value twice":     {{Name: "X-Device", Values: []string{"a", "A"}}},
		"control character": {{Name: "X-Device", Values: []string{"a\r\nb", "c"}}},
		"white space":       {{Name: "X-Device", Values: []string{" a", "c"}}},
		"no language":       {{Name: "Accept-Language", Values: []string{"en", "German"}}},
		"absent language":   {{Name: "Accept-Language", Values: []string{"", "de"}}},
		"no type":           {{Name: "Accept", Values: []string{"html"}}},
		"a range":           {{Name: "Accept", Values: []string{"text/*"}}},
		"too many":          {{Name: "X-Device", Values: many}},
		"too many together": {{Name: "X-A", Values: many[:10]}, {Name: "X-B", Values: many[:10]}},
	} {
		if err := fields.Check(); !errors.Is(err, variant.ErrInvalid) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}

// Whoever sends different values all the time has nothing remembered without end, and what others send is remembered again.
func TestWhatIsRememberedComesBack(t *testing.T) {
	s := variant.SelectorOf(variant.Fields{languages})
	browser := http.Header{"Accept-Language": {"de-CH, de;q=0.9"}}
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			for i := range 500 {
				s.Select(http.Header{"Accept-Language": {fmt.Sprintf("x-%d-%d", client, i)}})
				if got := s.Select(browser); got != 1 {
					t.Errorf("it selects %d", got)
				}
			}
		})
	}
	clients.Wait()
	s.Select(browser)
	if !variant.Remembers(s, browser.Get("Accept-Language")) {
		t.Error("it is not remembered any more")
	}
	if n := testing.AllocsPerRun(100, func() { s.Select(browser) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSelectingWhatIsKnownAllocatesNothing(t *testing.T) {
	s := variant.SelectorOf(variant.Fields{languages, devices, types("text/html", "application/json")})
	header := http.Header{"Accept-Language": {"de-CH,de;q=0.9"}, "X-Device": {"phone"}, "Accept": {"application/json"}}
	want := s.Select(header)
	if n := testing.AllocsPerRun(100, func() {
		if s.Select(header) != want {
			t.Error("it selects another")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzSelect(f *testing.F) {
	f.Add("de-AT, en;q=0.5", `text/html;level="1,2";q=0.3, */*`)
	f.Add("*;q=0", "*/*;q=1.001")
	fields := variant.Fields{languages, types("*/*", "application/json")}
	s := variant.SelectorOf(fields)
	f.Fuzz(func(t *testing.T, language, accept string) {
		header := http.Header{"Accept-Language": {language}, "Accept": {accept}}
		if got := s.Select(header); got < 0 || got >= fields.Count() || got != s.Select(header) {
			t.Errorf("%v selects %d", header, got)
		}
	})
}

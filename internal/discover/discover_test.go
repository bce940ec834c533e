package discover_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/discover"
)

var page = &url.URL{Scheme: "https", Host: "example.com", Path: "/tracks/7", RawQuery: "page=2"}

type linksTest struct {
	name string
	body string
	want []string
}

func testLinks(t *testing.T, contentType string, tests []linksTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := discover.Links(contentType, page, []byte(test.body)); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q, from %s", got, test.want, test.body)
			}
		})
	}
}

func TestAPageLeadsTo(t *testing.T) {
	testLinks(t, "text/html; charset=utf-8", []linksTest{
		{"what it links", `<a href="/a">x</a><map><area href=b></map>`, []string{"/a", "b"}},
		{"what it links without endorsing it", `<a rel="nofollow" href="/a">x</a>`, []string{"/a"}},
		{"its style sheets, icons and manifest", `<link rel=stylesheet href=/s.css><link rel="shortcut icon" href=/i.ico><link rel=manifest href=/m>`, []string{"/s.css", "/i.ico", "/m"}},
		{"its alternatives and neighbours", `<link rel=alternate href=/feed><link rel=next href=?page=3><link rel=canonical href=https://example.com/a>`, []string{"/feed", "?page=3", "https://example.com/a"}},
		{"its images", `<img src=/i.png><IMG SRC='/j.png'><input type=Image src=/k.png>`, []string{"/i.png", "/j.png", "/k.png"}},
		{"its images in all sizes", `<picture><source srcset="/a.webp 1x, /b.webp 2x"><img src=/c.png srcset=/d.png></picture>`, []string{"/a.webp", "/b.webp", "/c.png", "/d.png"}},
		{"images loaded early", `<link rel=preload as=image href=/a.png imagesrcset="/b.png 2x">`, []string{"/a.png", "/b.png"}},
		{"its scripts", `<script src=/a.js></script><script type=module src=/b.js></script>`, []string{"/a.js", "/b.js"}},
		{"its frames and objects", `<iframe src=/a></iframe><frame src=/b><embed src=/c><object data=/d></object>`, []string{"/a", "/b", "/c", "/d"}},
		{"its media", `<video src=/v poster=/p><source src=/w><track src=/t></video><audio src=/a></audio>`, []string{"/v", "/p", "/w", "/t", "/a"}},
		{"its SVG images", `<svg><use href="/s.svg#x"/><use xlink:href="/t.svg"/><image href=/i.png /><a xlink:href=/a></a></svg>`, []string{"/s.svg", "/t.svg", "/i.png", "/a"}},
		{"backgrounds", `<body background=/a><p style="background: url(/b)">`, []string{"/a", "/b"}},
		{"what its style elements need", `<style>@import "/a.css"; p { background: url(/b.png) }</style><p style="color:red">`, []string{"/a.css", "/b.png"}},
		{"where it refreshes to", `<meta http-equiv=Refresh content="0; url=/next">`, []string{"/next"}},
		{"what is there without scripts", `<noscript><img src=/a></noscript><img src=/b>`, []string{"/a", "/b"}},
		{"what templates hold", `<template><a href=/a></a></template>`, []string{"/a"}},
		{"everything once, in order", `<a href=/b></a><a href=/a></a><a href=/b></a><img src=/a>`, []string{"/b", "/a"}},
		{"a resource, not its parts", `<a href=/a#x></a><a href="/a#y?z"></a>`, []string{"/a"}},
		{"other hosts, which are for the caller to tell", `<a href="//cdn.example/a"></a><a href="HTTP://example.org/"></a>`, []string{"//cdn.example/a", "HTTP://example.org/"}},
	})
}

func TestAPageDoesNotLeadTo(t *testing.T) {
	testLinks(t, "TEXT/HTML", []linksTest{
		{"the targets of forms", `<form action=/a><button formaction=/b><input type=submit src=/c></form>`, nil},
		{"what takes a POST", `<a ping=/p href=/a></a><link rel=pingback href=/b><link rel="webmention" href=/c>`, []string{"/a"}},
		{"hosts to connect to", `<link rel=preconnect href=//a.example><link rel="dns-prefetch PRECONNECT" href=//b.example>`, nil},
		{"links without a type", `<link href=/a><link itemprop=url href=/b>`, nil},
		{"other schemes", `<a href="mailto:a@example.com"></a><a href="JavaScript:x()"></a><img src="data:image/png;base64,AA=="><a href="tel:1"></a><a href="ftp://example.com/"></a><a href="blob:https://example.com/x"></a>`, nil},
		{"schemes that white space hides", "<a href=' \x01java\nscript:x()'></a><a href='java\tscript&colon;x()'></a>", nil},
		{"itself", `<a href=""></a><a href="#top"></a><a href=" "></a><a></a><img src>`, nil},
		{"what is in comments", `<!-- <a href=/a></a> --><a href=/b></a>`, []string{"/b"}},
		{"what scripts and titles say", `<title><a href=/a></title><textarea><a href=/b></textarea><script>"<a href=/c>"</script><a href=/d>`, []string{"/d"}},
		{"what other meta elements say", `<meta name=description content="0; url=/a"><meta http-equiv=Content-Type content="0; url=/b">`, nil},
		{"what is no UTF-8", "<a href='/a\xff'></a><a href=/b></a>", []string{"/b"}},
		{"what other attributes say", `<blockquote cite=/a><div href=/b src=/c data-src=/d></div>`, nil},
	})
}

func TestReferencesAreReadAsBrowsersReadThem(t *testing.T) {
	testLinks(t, "text/html", []linksTest{
		{"character references", `<a href="/a?b=1&amp;c=2&#x26;d"></a><a href="/?a=1&copy=2"></a>`, []string{"/a?b=1&c=2&d", "/?a=1&copy=2"}},
		{"white space around", "<a href=' \r\n/a b\t '></a>", []string{"/a b"}},
		{"tabs and newlines within", "<a href='/a\n/\tb'></a>", []string{"/a/b"}},
		{"backslashes", `<a href="\a\b?c\d"></a><a href="/\evil.example/"></a><a href="/x?\"></a>`, []string{`/a/b?c\d`, "//evil.example/", `/x?\`}},
		{"other scripts", `<a href="/söng/日本"></a>`, []string{"/söng/日本"}},
		{"a colon that ends no scheme", `<a href="/a:b"></a><a href="?a:b"></a><a href="1:2"></a><a href="a/b:c"></a>`, []string{"/a:b", "?a:b", "1:2", "a/b:c"}},
	})
}

func TestMalformedPagesGiveWhatCanBeFound(t *testing.T) {
	testLinks(t, "text/html", []linksTest{
		{"nothing", ``, nil},
		{"no mark-up", "\x00\xff just text < > & http://example.com/", nil},
		{"cut off in a tag", `<a href=/a></a><a href="/b`, []string{"/a"}},
		{"cut off in a style sheet", `<style>p{background:url(/a`, []string{"/a"}},
		{"elements that don't end", `<div><a href=/a><p><a href=/b>`, []string{"/a", "/b"}},
		{"ends without beginnings", `</div></svg></style></a><a href=/a>`, []string{"/a"}},
		{"the same attribute twice", `<a href=/a href=/b>`, []string{"/a"}},
		{"attributes without quotes or space", `<a class="x"href=/a/><img/src=/b>`, []string{"/a/", "/b"}},
		{"an empty script of SVG in a page", `<svg><script href=/a /><style/><title/></svg><a href=/b>`, []string{"/a", "/b"}},
		{"an empty script of HTML, which is none", `<script src=/a /><a href=/b></script><a href=/c>`, []string{"/a", "/c"}},
	})
}

func TestTheBaseOfAPageIsHonoured(t *testing.T) {
	testLinks(t, "text/html", []linksTest{
		{"a path", `<base href="/app/"><a href=a></a><a href=../b></a><a href=/c></a><a href="?d"></a>`, []string{"/app/a", "/b", "/c", "/app/?d"}},
		{"a path relative to the page", `<base href="x/"><a href=a></a><base href="/y/">`, []string{"/tracks/x/a"}},
		{"a host", `<base href="https://cdn.example/x/y"><a href=a></a><a href=/b></a><a href=//example.com/c></a><a href=https://example.com/d></a>`, []string{"https://cdn.example/x/a", "https://cdn.example/b", "https://example.com/c", "https://example.com/d"}},
		{"a host without a scheme", `<base href="//cdn.example"><a href=a></a>`, []string{"//cdn.example/a"}},
		{"the first counts, wherever it is", `<a href=a></a><base target=_top><base href=/x/><base href=/y/>`, []string{"/x/a"}},
		{"references that are the same below it", `<base href=/x/><a href=a></a><a href=/x/a></a>`, []string{"/x/a"}},
		{"references that can't be resolved", `<base href=/x/><a href="/%zz"></a><a href="///a"></a><a href="http://[::1/"></a><a href=a></a>`, []string{"/x/a"}},
		{"only the page's query", `<base href="?x"><a href="a"></a>`, []string{"/tracks/a"}},
		{"styles", `<base href=/x/><p style="background:url(a)"><style>@import "b"</style>`, []string{"/x/a", "/x/b"}},
		{"another scheme is no base", `<base href="data:text/plain,x"><a href=a></a>`, []string{"a"}},
		{"an opaque one is no base", `<base href="http:x"><a href=a></a>`, []string{"a"}},
		{"a malformed one is no base", `<base href="http://[/"><a href=a></a>`, []string{"a"}},
		{"one with an empty host is no base", `<base href="///x/"><a href=a></a>`, []string{"a"}},
		{"an endless one is no base", `<base href="/` + strings.Repeat("x", discover.MaxReferenceLength) + `/"><a href=a></a>`, []string{"a"}},
		{"one in SVG is no base", `<svg><base href="/x/"></svg><a href=a></a>`, []string{"a"}},
	})
	odd := &url.URL{Path: "//x/"}
	if got := discover.Links("text/html", odd, []byte(`<base href="?y"><a href="?z">`)); !slices.Equal(got, []string{"/.//x/?z"}) {
		t.Errorf("a path that begins with two slashes gives %q", got)
	}
	if *page != (url.URL{Scheme: "https", Host: "example.com", Path: "/tracks/7", RawQuery: "page=2"}) {
		t.Errorf("the URL of the page was changed to %v", page)
	}
}

func TestSourceSets(t *testing.T) {
	for _, test := range []struct {
		value string
		want  []string
	}{
		{"", nil},
		{" , ,", nil},
		{"/a", []string{"/a"}},
		{"/a 1x, /b 2x", []string{"/a", "/b"}},
		{"/a 100w 50h,/b 200w", []string{"/a", "/b"}},
		{" ,/a, /b,,,/c", []string{"/a", "/b,,,/c"}},
		{"/a,b,c 1x, /d", []string{"/a,b,c", "/d"}},
		{"/a,b/c,, /d", []string{"/a,b/c", "/d"}},
		{"/a 1x,/b", []string{"/a", "/b"}},
		{"/a calc(1, 2) 1x, /b", []string{"/a", "/b"}},
		{"/a calc(1, 2, /b", []string{"/a"}},
		{"/a nonsense, /b", []string{"/a", "/b"}},
		{"data:image/png;base64,AA== 1x, /b 2x", []string{"/b"}},
		{"/a\t\n1x\f,\r/b", []string{"/a", "/b"}},
	} {
		got := discover.Links("text/html", page, []byte(`<img srcset="`+test.value+`">`))
		if !slices.Equal(got, test.want) {
			t.Errorf("srcset %q gives %q, want %q", test.value, got, test.want)
		}
	}
}

func TestRefreshes(t *testing.T) {
	for value, want := range map[string]string{
		"0; url=/a":       "/a",
		"5;URL='/a'x":     "/a",
		" 5.5 , Url = /a": "/a",
		"5 /a":            "/a",
		".5;/a":           "/a",
		"5; url =/a b":    "/a b",
		"0;url=url=/a":    "url=/a",
		"0; urls/a":       "urls/a",
		"0; '/a":          "/a",
		"0; u":            "u",
		"5":               "",
		"5;":              "",
		"5; url=":         "",
		"url=/a":          "",
		"x; url=/a":       "",
		"5x; url=/a":      "",
		"":                "",
	} {
		got := strings.Join(discover.Links("text/html", page, []byte(`<meta http-equiv=refresh content="`+value+`">`)), " ")
		if got != want {
			t.Errorf("refresh %q gives %q, want %q", value, got, want)
		}
	}
}

func TestAStyleSheetLeadsTo(t *testing.T) {
	testLinks(t, "text/css", []linksTest{
		{"its images and fonts", `p { background: url(/a.png) no-repeat, URL( "/b.png" ) } @font-face { src: url('/c.woff2') format("woff2"), url(/d.woff) }`, []string{"/a.png", "/b.png", "/c.woff2", "/d.woff"}},
		{"what it imports", `@charset "utf-8"; @import "/a.css"; @IMPORT/**/ '/b.css' screen; @import url(/c.css) layer(x) supports(display: grid);`, []string{"/a.css", "/b.css", "/c.css"}},
		{"images in several resolutions", `p { background: image-set("/a.png" 1x, "/b.png" type("image/png") 2x, url(/c.png) 3x); content: -webkit-image-set("/d" 1x) }`, []string{"/a.png", "/b.png", "/c.png", "/d"}},
		{"what src() names", `p { background: src("/a.png") }`, []string{"/a.png"}},
		{"what its variables hold", `:root { --a: url(/a.png) }`, []string{"/a.png"}},
		{"no strings", `p::before { content: "url(/a)" "/b"; quotes: "/c" "/d" } q[title="/e"] {}`, nil},
		{"no comments", `/* url(/a) @import "/b"; */ p { background: url(/c) }`, []string{"/c"}},
		{"no namespaces", `@namespace svg url(http://www.w3.org/2000/svg); @namespace "http://www.w3.org/1999/xhtml"; p { background: url(/a) }`, []string{"/a"}},
		{"no parts of itself", `p { filter: url(#blur); background: url(data:image/png;base64,AA==) url() url("") }`, nil},
		{"escaped characters", `p { background: url(/a\)b) url("/c\"d\65  f") url(/\000073ong) url('/x\` + "\r\n" + `y') }`, []string{"/a)b", `/c"de f`, "/song", "/xy"}},
		{"escapes of no character", `p { background: url("/a\0 b\d800 c\ffffff") }`, []string{"/a\uFFFDb\uFFFDc\uFFFD"}},
		{"what is before the end", `p { background: url("/a`, []string{"/a"}},
		{"what is before an escape at the end", `p { background: url("/a\`, []string{"/a"}},
		{"what is behind nonsense", `} ) url(/x y) "unended` + "\n" + ` @ \ ]] p { background: url(/a) }`, []string{"/a"}},
		{"no mark-up", `<a href=/a>`, nil},
	})
}

func TestAnXMLDocumentIsReadAsXML(t *testing.T) {
	for _, mediaType := range []string{"image/svg+xml", "Application/XHTML+xml ; charset=utf-8"} {
		testLinks(t, mediaType, []linksTest{
			{"empty elements end", `<script href="/a"/><title/><style/><a href="/b"/>`, []string{"/a", "/b"}},
			{"CDATA sections are text", `<style><![CDATA[ @import "/a?b=1&c"; a > b { fill: url(/d.svg#x) } ]]></style><![CDATA[<a href="/e"/>]]>`, []string{"/a?b=1&c", "/d.svg"}},
			{"character references count in styles", `<style>@import "/a?b=1&amp;c"; </style>`, []string{"/a?b=1&c"}},
			{"instructions and types are none of it", `<?xml version="1.0"?><!DOCTYPE svg SYSTEM "/x.dtd"><svg><image xlink:href="/a.png"/></svg>`, []string{"/a.png"}},
		})
	}
}

func TestOtherMediaTypesLeadNowhere(t *testing.T) {
	for _, contentType := range []string{"", ";", "text/plain", "application/json", "text/htmlx", "application/xml", "image/png", "text/javascript"} {
		if got := discover.Links(contentType, page, []byte(`<a href="/a"></a> url(/b)`)); got != nil {
			t.Errorf("%q gives %q", contentType, got)
		}
	}
}

func TestWhatIsReturnedIsBounded(t *testing.T) {
	var many, styles strings.Builder
	for i := range discover.MaxReferences + 10 {
		fmt.Fprintf(&many, "<a href=/%d></a>", i)
		fmt.Fprintf(&styles, "@import '/%d';", i)
	}
	for name, got := range map[string][]string{
		"links":                   discover.Links("text/html", page, []byte(many.String())),
		"imports":                 discover.Links("text/css", page, []byte(styles.String())),
		"links beside imports":    discover.Links("text/html", page, []byte("<style>"+styles.String()+"</style>"+many.String())),
		"links below a base":      discover.Links("text/html", page, []byte("<base href=/x/>"+many.String())),
		"candidates for an image": discover.Links("text/html", page, []byte("<img srcset=\""+strings.NewReplacer("@import '", "", "';", " 1x,").Replace(styles.String())+"\">")),
	} {
		if len(got) != discover.MaxReferences || !strings.HasSuffix(got[len(got)-1], "/9999") {
			t.Errorf("too many %s give %d references up to %q", name, len(got), got[len(got)-1])
		}
	}

	long := "/" + strings.Repeat("x", discover.MaxReferenceLength-1)
	if got := discover.Links("text/html", page, []byte("<a href="+long+"y></a><a href="+long+"></a>")); !slices.Equal(got, []string{long}) {
		t.Errorf("long references give %d", len(got))
	}

	base := "<base href=/" + strings.Repeat("x", discover.MaxReferenceLength-100) + "/>"
	bytes := 0
	for _, reference := range discover.Links("text/html", page, []byte(base+strings.ReplaceAll(many.String(), "href=/", "href="))) {
		bytes += len(reference)
	}
	if bytes < 1<<20 || bytes > 5<<20 {
		t.Errorf("a long base makes %d bytes of short references", bytes)
	}
}

func TestTheBodyIsNotWritten(t *testing.T) {
	for _, contentType := range []string{"text/html", "image/svg+xml", "text/css"} {
		memory := []byte(`<STYLE>@import "/a"</STYLE>` + "\r\n" + `<A HREF="/b&amp;c">url(/d)`)
		before := string(memory)
		discover.Links(contentType, page, memory[:len(memory)-3])
		if string(memory) != before {
			t.Errorf("%s: the body became %q", contentType, memory)
		}
	}
}

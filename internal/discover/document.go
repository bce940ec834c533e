package discover

import (
	"bytes"
	"strings"

	"golang.org/x/net/html"
)

// document reads the tags of an HTML, XHTML or SVG document one by one. Without a
// tree it needs little memory, and what a tree would tell (whether an element is
// where it may be) matters little for references.
type document struct {
	found *references
	xml   bool   // XHTML or SVG as XML: "<x/>" ends the element, no text is raw
	base  string // the href of the first <base> that has one

	foreign    int  // how many <svg> and <math> are open
	style      bool // in a <style>
	attributes []attribute
}

type attribute struct{ name, value string }

func (d *document) read(body []byte) {
	z := html.NewTokenizer(bytes.NewReader(body))
	z.AllowCDATA(d.xml)
	// After the last reference, only a base could be of interest, and that comes
	// before references.
	for !d.found.full {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.TextToken:
			if d.style {
				readStyle(d.found, z.Text())
			}
		case html.StartTagToken:
			d.start(z, false)
		case html.SelfClosingTagToken:
			d.start(z, true)
		case html.EndTagToken:
			name, _ := z.TagName()
			d.end(string(name))
		}
	}
}

// start reads a start tag. Which elements the tokenizer takes for raw text is
// corrected here, as far as it needs to know more than the tag.
func (d *document) start(z *html.Tokenizer, slash bool) {
	name, more := z.TagName()
	element := string(name)
	// A slash ends elements of XML, SVG and MathML, but not those of HTML
	// (HTML, "Elements", on the start tags of foreign elements).
	empty := slash && (d.xml || d.foreign > 0)
	if d.xml || empty || element == "noscript" {
		z.NextIsNotRawText()
	}
	d.style = element == "style" && !empty
	if !slash && (element == "svg" || element == "math") {
		d.foreign++
	}
	d.attributes = d.attributes[:0]
	for more {
		var name, value []byte
		name, value, more = z.TagAttr()
		d.attributes = append(d.attributes, attribute{string(name), string(value)})
	}
	if element == "base" && d.base == "" && d.foreign == 0 {
		d.base = d.attribute("href")
		return
	}
	for _, attribute := range d.attributes {
		d.value(element, attribute)
	}
}

func (d *document) end(element string) {
	switch element {
	case "style":
		d.style = false
	case "svg", "math":
		d.foreign = max(0, d.foreign-1)
	}
}

// value collects the references in an attribute of an element.
func (d *document) value(element string, attribute attribute) {
	switch d.holds(element, attribute.name) {
	case holdsReference:
		d.found.add(attribute.value)
	case holdsSourceSet:
		readSourceSet(d.found, attribute.value)
	case holdsRefresh:
		d.found.add(refreshTarget(attribute.value))
	case holdsDeclarations:
		readStyle(d.found, []byte(attribute.value))
	}
}

// content is what the value of an attribute holds.
type content int

const (
	holdsNothing content = iota
	holdsReference
	holdsSourceSet    // URLs of images, with what they are good for
	holdsRefresh      // seconds and a URL
	holdsDeclarations // CSS
)

// holds says what an attribute of the current element holds (HTML, "Attributes" in
// the index; SVG 2, "URL reference attributes").
func (d *document) holds(element, name string) content {
	switch element + " " + name {
	case "a href", "area href",
		"img src", "source src", "script src", "iframe src", "frame src", "embed src",
		"video src", "video poster", "audio src", "track src", "object data",
		"body background", "table background", "td background", "th background",
		"use href", "image href", "feimage href", "script href",
		"use xlink:href", "image xlink:href", "feimage xlink:href", "script xlink:href", "a xlink:href":
		return holdsReference
	case "input src":
		if strings.EqualFold(d.attribute("type"), "image") {
			return holdsReference
		}
	case "link href":
		if fetchable(d.attribute("rel")) {
			return holdsReference
		}
	case "img srcset", "source srcset":
		return holdsSourceSet
	case "link imagesrcset":
		if fetchable(d.attribute("rel")) {
			return holdsSourceSet
		}
	case "meta content":
		if strings.EqualFold(d.attribute("http-equiv"), "refresh") {
			return holdsRefresh
		}
	default:
		if name == "style" {
			return holdsDeclarations
		}
	}
	return holdsNothing
}

// attribute returns the value of an attribute of the current element.
func (d *document) attribute(name string) string {
	for _, attribute := range d.attributes {
		if attribute.name == name {
			return attribute.value
		}
	}
	return ""
}

// fetchable says whether a <link> with a value of rel has a type (HTML, "Link
// types") that is about a resource to get. These types are not: preconnect and
// dns-prefetch are about a host; pingback, webmention, micropub and hub name what
// takes a POST. A link without a type is no link.
func fetchable(rel string) bool {
	for _, relation := range strings.Fields(strings.ToLower(rel)) {
		switch relation {
		case "preconnect", "dns-prefetch", "pingback", "webmention", "micropub", "hub":
		default:
			return true
		}
	}
	return false
}

// refreshTarget returns the URL in a declarative refresh, "5; url=/next" (HTML,
// "Pragma directives", the shared declarative refresh steps). It is "" for a refresh
// of the document itself and for what isn't a refresh.
func refreshTarget(value string) string {
	rest := strings.TrimLeft(value, whiteSpace)
	time := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	if time == 0 && !strings.HasPrefix(rest, ".") {
		return ""
	}
	rest = strings.TrimLeft(rest, "0123456789.")
	if rest == "" || !strings.ContainsRune(";,"+whiteSpace, rune(rest[0])) {
		return ""
	}
	rest = strings.TrimLeft(rest, whiteSpace)
	if rest != "" && (rest[0] == ';' || rest[0] == ',') {
		rest = strings.TrimLeft(rest[1:], whiteSpace)
	}
	if len(rest) >= 3 && strings.EqualFold(rest[:3], "url") {
		if after, found := strings.CutPrefix(strings.TrimLeft(rest[3:], whiteSpace), "="); found {
			rest = strings.TrimLeft(after, whiteSpace)
		}
	}
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		rest, _, _ = strings.Cut(rest[1:], rest[:1])
	}
	return rest
}

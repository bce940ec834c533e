package field

import "strings"

// LinkTargets returns the targets of the links in the values of Link fields that
// have a relation type, as they are written, in their order (RFC 8288 §3 and
// appendix B.2).
//
// Relation types are compared without regard to case; one rel parameter may have
// several, and only the first of a link counts. A link with an anchor
// parameter speaks about another resource and is left out. A value that is
// malformed yields the links before that place.
func LinkTargets(values []string, rel string) []string {
	var targets []string
	for _, value := range values {
		p := linkParser{rest: value}
		for {
			target, matches, ok := p.link(rel)
			if !ok {
				break
			}
			if matches {
				targets = append(targets, target)
			}
		}
	}
	return targets
}

// linkParser reads a Link value from its front.
type linkParser struct{ rest string }

// link reads a link, and says whether it has the relation type. It isn't ok at
// the end of the value and where that is malformed.
func (p *linkParser) link(rel string) (target string, matches, ok bool) {
	p.rest = strings.TrimLeft(p.rest, " \t,") // with empty elements
	if !p.skip('<') {
		return "", false, false
	}
	target, p.rest, ok = strings.Cut(p.rest, ">")
	if !ok {
		return "", false, false
	}
	sawRel, sawAnchor := false, false
	for {
		p.space()
		if p.rest == "" || p.rest[0] == ',' {
			return target, matches && !sawAnchor, true
		}
		if !p.skip(';') {
			return "", false, false
		}
		name, value, ok := p.parameter()
		if !ok {
			return "", false, false
		}
		switch name {
		case "anchor":
			sawAnchor = true
		case "rel":
			if !sawRel {
				matches = hasType(value, rel)
			}
			sawRel = true
		}
	}
}

// parameter reads a parameter (RFC 8288 appendix B.3). An empty one is ok.
func (p *linkParser) parameter() (name, value string, ok bool) {
	p.space()
	end := strings.IndexAny(p.rest, " \t=;,")
	if end < 0 {
		end = len(p.rest)
	}
	name, p.rest = strings.ToLower(p.rest[:end]), p.rest[end:]
	p.space()
	if !p.skip('=') {
		return name, "", true
	}
	p.space()
	if p.skip('"') {
		value, ok = p.quoted()
		return name, value, ok
	}
	end = strings.IndexAny(p.rest, ";,")
	if end < 0 {
		end = len(p.rest)
	}
	value, p.rest = strings.TrimRight(p.rest[:end], " \t"), p.rest[end:]
	return name, value, true
}

// quoted reads a quoted string after its first quote.
func (p *linkParser) quoted() (string, bool) {
	var value []byte
	for i := 0; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '"':
			p.rest = p.rest[i+1:]
			return string(value), true
		case '\\':
			i++
			if i == len(p.rest) {
				return "", false
			}
		}
		value = append(value, p.rest[i])
	}
	return "", false
}

func (p *linkParser) space() {
	p.rest = strings.TrimLeft(p.rest, " \t")
}

func (p *linkParser) skip(b byte) bool {
	if p.rest == "" || p.rest[0] != b {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// hasType says whether the value of a rel parameter has a relation type.
func hasType(value, rel string) bool {
	for _, relation := range strings.Fields(value) {
		if strings.EqualFold(relation, rel) {
			return true
		}
	}
	return false
}

package discover

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/css"
)

// readStyle collects the references in a style sheet or in the declarations of a
// style attribute: url() and src() of CSS Values, image-set() of CSS Images, @import of
// CSS Cascading. The name of an @namespace looks like a reference and is
// none.
func readStyle(found *references, text []byte) {
	// The lexer writes a NUL behind the text if there is room. There must be none,
	// because that may be memory which others read.
	lexer := css.NewLexer(parse.NewInputBytes(slices.Clip(text)))
	// What the next string means is decided by what stands before it.
	var imports, namespace bool
	var open []bool // for every open parenthesis, whether strings in it are references
	for !found.full {
		kind, token := lexer.Next()
		switch kind {
		case css.ErrorToken:
			return
		case css.WhitespaceToken, css.CommentToken:
			continue
		case css.URLToken:
			if !namespace {
				found.add(urlOf(token))
			}
		case css.StringToken:
			if imports || len(open) > 0 && open[len(open)-1] {
				found.add(unescape(token[1:], token[0]))
			}
		case css.FunctionToken:
			open = append(open, stringsAreReferences(token))
		case css.LeftParenthesisToken:
			open = append(open, false)
		case css.RightParenthesisToken:
			open = open[:max(0, len(open)-1)]
		case css.SemicolonToken, css.LeftBraceToken:
			namespace = false
		case css.AtKeywordToken:
			namespace = strings.EqualFold(string(token), "@namespace")
		}
		imports = kind == css.AtKeywordToken && strings.EqualFold(string(token), "@import")
	}
}

// stringsAreReferences says whether the strings that stand directly in a function
// are references.
func stringsAreReferences(function []byte) bool {
	switch strings.ToLower(string(function)) {
	case "src(", "image-set(", "-webkit-image-set(":
		return true
	}
	return false
}

// urlOf returns what stands in a token `url(...)`, quoted or not.
func urlOf(token []byte) string {
	text := strings.TrimLeft(string(token[bytes.IndexByte(token, '(')+1:]), whiteSpace)
	if text != "" && (text[0] == '"' || text[0] == '\'') {
		return unescape([]byte(text[1:]), text[0])
	}
	return unescape([]byte(text), ')')
}

// unescape returns the value of a string or an unquoted url up to the first end
// that is not escaped, or the end of the text (CSS Syntax 3 §4.3.5 to §4.3.7).
func unescape(text []byte, end byte) string {
	value := make([]byte, 0, len(text))
	for i := 0; i < len(text) && text[i] != end; i++ {
		if text[i] != '\\' {
			value = append(value, text[i])
			continue
		}
		var length int
		value, length = appendEscaped(value, text[i+1:])
		i += length
	}
	return string(value)
}

// appendEscaped appends what the text behind a backslash stands for, and returns how
// much of the text that is. An escaped newline stands for nothing.
func appendEscaped(value, text []byte) ([]byte, int) {
	length := 0
	var code rune
	for ; length < 6 && length < len(text) && hexadecimal(text[length]) >= 0; length++ {
		code = code<<4 | hexadecimal(text[length])
	}
	rest := text[length:]
	switch {
	case length == 0 && newline(text) > 0:
		return value, newline(text)
	case length == 0 && len(text) > 0:
		return append(value, text[0]), 1
	case length == 0:
		return value, 0
	case newline(rest) > 0: // one white space ends the digits
		length += newline(rest)
	case len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t'):
		length++
	}
	if code == 0 {
		code = utf8.RuneError
	}
	return utf8.AppendRune(value, code), length
}

// hexadecimal returns the value of a digit, -1 if it is none.
func hexadecimal(digit byte) rune {
	switch {
	case '0' <= digit && digit <= '9':
		return rune(digit - '0')
	case 'a' <= digit|0x20 && digit|0x20 <= 'f':
		return rune(digit|0x20-'a') + 10
	}
	return -1
}

// newline returns the length of the newline that a text begins with, 0 if there is
// none (CSS Syntax 3 §3.3).
func newline(text []byte) int {
	switch {
	case len(text) > 1 && text[0] == '\r' && text[1] == '\n':
		return 2
	case len(text) > 0 && (text[0] == '\n' || text[0] == '\r' || text[0] == '\f'):
		return 1
	}
	return 0
}

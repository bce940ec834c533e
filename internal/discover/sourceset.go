package discover

import "strings"

// whiteSpace is the ASCII whitespace of the Infra Standard, which CSS has too.
const whiteSpace = "\t\n\f\r "

// readSourceSet collects the URLs of the image candidates in a srcset attribute, as
// HTML, "Parsing a srcset attribute", splits it: a comma ends a candidate
// only at the end of a URL or after descriptors, and not in their parentheses. A
// candidate whose descriptors make no sense counts here all the same.
func readSourceSet(found *references, value string) {
	for {
		value = strings.TrimLeft(value, whiteSpace+",")
		if value == "" || found.full {
			return
		}
		end := strings.IndexAny(value, whiteSpace)
		if end < 0 {
			end = len(value)
		}
		written := value[:end]
		value = value[end:]
		if trimmed := strings.TrimRight(written, ","); trimmed != written {
			found.add(trimmed)
			continue
		}
		found.add(written)
		value = value[descriptorsEnd(value):]
	}
}

// descriptorsEnd returns the length of the descriptors that a value begins with.
func descriptorsEnd(value string) int {
	parentheses := false
	for i := range len(value) {
		switch value[i] {
		case '(':
			parentheses = true
		case ')':
			parentheses = false
		case ',':
			if !parentheses {
				return i
			}
		}
	}
	return len(value)
}

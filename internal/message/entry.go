package message

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/itscales/scales/internal/variant"
)

const (
	// TicketWidth is the number of digits of a ticket.
	TicketWidth = 20

	// TicketOffset is where the digits of the ticket begin in an entry. Scripts
	// in Redis read and write them there.
	TicketOffset = len(ticketMember)

	ticketMember = `{"ticket":"`
	floorMember  = `","floor":"`
	noTicket     = "00000000000000000000"
)

// Entry is a stored representation: one line of JSON metadata, then the body,
// then the same body in each coding. A field value is bytes, JSON is Unicode: each byte of a value is the code
// point of the same number there.
//
// The members are ticket, pushOnly (if true), status, header, size and codings
// (if there are any: an array of pairs of name and size), or for a tombstone
// ticket and gone, and then job, why and refusal, if they are not empty. The
// ticket comes first, so that its digits are always at [TicketOffset], and
// pushOnly follows it, because scripts look for both there. The others may come in any order when an entry is read, and
// members that are not known are skipped: scripts put one named floor after the
// ticket of what was pushed without being exact.
//
// The entry of a resource that has variants has vary instead of what is from
// pushOnly to codings: for each field an array of its name and values; and
// variants: the size of each. What follows the metadata is the variants, each as
// an entry of its own with a ticket of zeros, or nothing, with a size of 0.
type Entry struct {
	// Ticket is the ticket of the write that made the entry: 20 digits.
	Ticket string

	// Status is 200 to 999, and 0 in a tombstone.
	Status int

	// Header, Body and Codings are empty in a tombstone.
	Header  http.Header
	Body    []byte
	Codings []Coding

	// Gone marks a tombstone: what is left of a destroyed entry for a while,
	// lest a late, stale write bring it back.
	Gone bool

	// PushOnly marks what the application cannot render.
	PushOnly bool

	// Job is the id of the job that had the entry made, if there was one.
	Job string

	// Why is what had it made, such as "target" or "group tracks".
	Why string

	// Refusal is why what the application answered must not be stored; only in
	// a tombstone.
	Refusal string

	// Vary are the request fields that select among Variants. Where there are
	// any, what is above is empty but for Ticket, Job and Why.
	Vary variant.Fields

	// Variants has as many as Vary says, nil where the application has none;
	// not all are. They have a Status, Header, Body and Codings.
	Variants []*Entry
}

// Representations returns the variants that there are, or the entry itself where
// it has none; nothing for a tombstone.
func (e *Entry) Representations() []*Entry {
	switch {
	case e.Gone:
		return nil
	case len(e.Vary) == 0:
		return []*Entry{e}
	}
	return slices.DeleteFunc(slices.Clone(e.Variants), func(v *Entry) bool { return v == nil })
}

// A Coding is the body of an entry in a content coding (RFC 9110 §8.4.1).
type Coding struct {
	Name string // a token in lower case, such as "gzip"; none comes twice in an entry
	Body []byte
}

// maxCodings is how many codings an entry has at most.
const maxCodings = 16

// AppendEntry appends an entry to dst. An empty ticket is written as zeros, to
// be filled in by a script. The error wraps [ErrInvalid] and leaves dst as it
// was.
func AppendEntry(dst []byte, e *Entry) ([]byte, error) {
	start := len(dst)
	ticket := e.Ticket
	if ticket == "" {
		ticket = noTicket
	}
	switch {
	case !isTicket(ticket):
		return dst, fmt.Errorf("%w: ticket %q is not %d digits", ErrInvalid, excerpt(ticket), TicketWidth)
	case len(e.Vary) > 0 || len(e.Variants) > 0:
		return appendVariants(dst, e, ticket)
	case !e.Gone && e.Refusal != "":
		return dst, fmt.Errorf("%w: a refusal outside of a tombstone", ErrInvalid)
	case e.Gone && (e.Status != 0 || len(e.Header) > 0 || len(e.Body)+len(e.Codings) > 0 || e.PushOnly):
		return dst, fmt.Errorf("%w: a tombstone has no response", ErrInvalid)
	case !e.Gone && !isFinal(e.Status):
		return dst, fmt.Errorf("%w: status %d is not that of a final response", ErrInvalid, e.Status)
	}
	bodies := len(e.Body)
	for _, c := range e.Codings {
		bodies += len(c.Body)
	}
	dst = slices.Grow(dst, bodies+headSize(e.Header))
	dst = append(dst, ticketMember...)
	dst = append(dst, ticket...)
	if e.Gone {
		dst = append(dst, `","gone":true`...)
		return append(appendOrigin(dst, e), "}\n"...), nil
	}
	dst = append(dst, '"')
	if e.PushOnly {
		dst = append(dst, `,"pushOnly":true`...)
	}
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = append(dst, `,"header":{`...)
	dst, err := appendJSONHeader(dst, e.Header)
	if err != nil {
		return dst[:start], err
	}
	dst = append(dst, `},"size":`...)
	dst = strconv.AppendInt(dst, int64(len(e.Body)), 10)
	if dst, err = appendCodings(dst, e.Codings); err != nil {
		return dst[:start], err
	}
	dst = append(appendOrigin(dst, e), "}\n"...)
	if len(dst)-start > MaxHead {
		return dst[:start], fmt.Errorf("%w: metadata of %d bytes, the limit is %d", ErrInvalid, len(dst)-start, MaxHead)
	}
	dst = append(dst, e.Body...)
	for _, c := range e.Codings {
		dst = append(dst, c.Body...)
	}
	return dst, nil
}

// appendCodings appends the member that lists the codings of an entry, if it has any.
func appendCodings(dst []byte, codings []Coding) ([]byte, error) {
	if err := checkCodings(codings); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for i, c := range codings {
		if i == 0 {
			dst = append(dst, `,"codings":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, `["`...)
		dst = append(dst, c.Name...)
		dst = append(dst, `",`...)
		dst = strconv.AppendInt(dst, int64(len(c.Body)), 10)
		dst = append(dst, ']')
	}
	if len(codings) > 0 {
		dst = append(dst, ']')
	}
	return dst, nil
}

// checkCodings checks the names of codings.
func checkCodings(codings []Coding) error {
	if len(codings) > maxCodings {
		return fmt.Errorf("%d codings, the limit is %d", len(codings), maxCodings)
	}
	for i, c := range codings {
		if !isToken(c.Name) || c.Name != strings.ToLower(c.Name) || c.Name == "identity" {
			return fmt.Errorf("coding %q is not a token in lower case, or is identity", excerpt(c.Name))
		}
		for _, other := range codings[:i] {
			if c.Name == other.Name {
				return fmt.Errorf("coding %q comes twice", excerpt(c.Name))
			}
		}
	}
	return nil
}

// appendOrigin appends the members that say where an entry comes from.
func appendOrigin(dst []byte, e *Entry) []byte {
	for _, member := range [...]struct{ name, value string }{{`,"job":`, e.Job}, {`,"why":`, e.Why}, {`,"refusal":`, e.Refusal}} {
		if member.value != "" {
			dst = appendJSONString(append(dst, member.name...), printable(member.value))
		}
	}
	return dst
}

// printable returns the printable ASCII in a text, and a question mark for each
// other byte.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// appendJSONHeader appends the members of the JSON object that is a header.
func appendJSONHeader(dst []byte, header http.Header) ([]byte, error) {
	var buffer [nameBuffer]string
	names, header := sortedNames(buffer[:0], header)
	first := true
	for _, name := range names {
		if !isToken(name) {
			return dst, fmt.Errorf("%w: field name %q is not a token", ErrInvalid, name)
		}
		if len(header[name]) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		dst = append(dst, name...) // a token has nothing to escape
		dst = append(dst, `":[`...)
		for i, value := range header[name] {
			value = textproto.TrimString(value)
			if !isFieldValue(value) {
				return dst, fmt.Errorf("%w: field %s has a control character", ErrInvalid, name)
			}
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONString(dst, value)
		}
		dst = append(dst, ']')
	}
	return dst, nil
}

// appendJSONString appends a field value as a JSON string, each of its bytes as
// the code point of the same number.
func appendJSONString(dst []byte, value string) []byte {
	dst = append(dst, '"')
	for i := range len(value) {
		switch b := value[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\t':
			dst = append(dst, `\t`...)
		case b >= 0x80:
			dst = append(dst, 0xC0|b>>6, 0x80|b&0x3F)
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"')
}

// EntryTicket returns the ticket at the head of an entry, a part of s, and "" if
// there is none. It looks at nothing else.
func EntryTicket(s string) string {
	const end = TicketOffset + TicketWidth
	if len(s) <= end || !strings.HasPrefix(s, ticketMember) || s[end] != '"' || !isTicket(s[TicketOffset:end]) {
		return ""
	}
	return s[TicketOffset:end]
}

// EntryFloor returns the ticket at the head of an entry up to which the entry is
// sure to show what happened: its floor if it has one, else its ticket. It is ""
// if there is none, and looks at nothing else.
func EntryFloor(s string) string {
	ticket := EntryTicket(s)
	if ticket == "" {
		return ""
	}
	floor, ok := strings.CutPrefix(s[TicketOffset+TicketWidth:], floorMember)
	if ok && len(floor) > TicketWidth && floor[TicketWidth] == '"' && isTicket(floor[:TicketWidth]) {
		return floor[:TicketWidth]
	}
	return ticket
}

func isTicket(s string) bool {
	if len(s) != TicketWidth {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Package problem has the answers that are Scales's own and not the
// application's, as problem details (RFC 9457).
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/itscales/scales/internal/message"
)

// TypePrefix makes the "type" member of a problem's Type: clients compare it as
// a whole. It is a URN, not the address of a page, so it depends on no host; the
// namespace isn't registered, which is of no consequence for a comparison. It
// never changes.
const TypePrefix = "urn:scales:problem:"

// Problem is an answer. The zero value is none.
type Problem struct {
	// Type tells problems apart, in lower case with hyphens: "queue-full".
	Type string

	// Title is what the type means, the same for all problems of the type.
	Title string

	// Status is the status code of the answer.
	Status int

	// Detail says what is the matter this time, and names the limit or option.
	Detail string

	// Members are further members of the JSON object, in their order.
	Members []Member
}

// Member is an extension member (RFC 9457 §3.2).
type Member struct {
	Name  string // printable ASCII
	Value any    // what encoding/json writes
}

const mediaType = "application/problem+json"

// Write answers a request. What the caller has set in the header stays
// (Retry-After, Allow, Connection), except what would be about another content.
// The answer is not to be stored, and has no content if the method is HEAD.
func (p Problem) Write(w http.ResponseWriter, r *http.Request) {
	body := p.json()
	header := w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Language", "Content-Range", "Etag", "Last-Modified", "Expires"} {
		header.Del(name)
	}
	p.describe(header)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		// An error means that the client is gone, and nobody is left to be told.
		_, _ = w.Write(body)
	}
}

// Response returns the problem as the reply to a job. The caller may change it.
func (p Problem) Response() *message.Response {
	header := make(http.Header, 4)
	p.describe(header)
	return &message.Response{Status: p.Status, Header: header, Body: p.json()}
}

func (p Problem) describe(header http.Header) {
	header.Set("Content-Type", mediaType)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
}

// json writes the members in a stable order.
func (p Problem) json() []byte {
	members := append([]Member{
		{"type", TypePrefix + p.Type},
		{"title", p.Title},
		{"status", p.Status},
		{"detail", p.Detail},
	}, p.Members...)
	body := []byte("{")
	for _, member := range members {
		value, err := json.Marshal(member.Value)
		if err != nil {
			continue // what cannot be written is worth less than the rest
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = strconv.AppendQuote(body, member.Name)
		body = append(append(body, ':'), value...)
	}
	return append(body, "}\n"...)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	mediaJSON = "application/json"
	mediaForm = "application/x-www-form-urlencoded"
)

// maxFieldLength is the longest name of a track or artist, in characters.
const maxFieldLength = 200

// submission is what a client sent to make or change something.
type submission struct {
	// json says that it came as JSON and wants JSON back; otherwise it came from a form.
	json bool
	// method is what a form asks for in its field _method, in upper case.
	method string
	// fields are the values sent, by field; nothing else is in it.
	fields map[string]string
	// errors are the reasons why values were refused, by field.
	errors map[string]string
}

// mediaType returns the media type of the body of r, in lower case and without parameters; "" if there is none or it is
// malformed.
func mediaType(r *http.Request) string {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return media
}

// readSubmission reads the body of r, of which it takes at most limit bytes. A body that cannot be read as what its
// Content-Type says is a *refusal; values that are no good are listed in the errors of the submission. Only fields are
// looked at. JSON is taken with any method, a form with POST only. A DELETE needs no body.
func readSubmission(w http.ResponseWriter, r *http.Request, limit int64, fields ...string) (submission, error) {
	s := submission{fields: map[string]string{}, errors: map[string]string{}}
	switch media := mediaType(r); {
	case bareDelete(r), r.Method == http.MethodDelete && media == mediaJSON:
		s.json = true
		return s, nil
	case media == mediaJSON:
		s.json = true
	case media == mediaForm && r.Method == http.MethodPost:
	default:
		return s, &refusal{http.StatusUnsupportedMediaType,
			"The body must be " + mediaJSON + ", or " + mediaForm + " with POST."}
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	var err error
	if s.json {
		err = s.readJSON(r, fields)
	} else {
		err = s.readForm(r, fields)
	}
	if err != nil {
		return s, err
	}
	for field, value := range s.fields {
		if value, reason := checkField(value); reason != "" {
			s.errors[field] = reason
		} else {
			s.fields[field] = value
		}
	}
	return s, nil
}

func (s *submission) readJSON(r *http.Request, fields []string) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return unreadable(err)
	}
	var object map[string]json.RawMessage
	if !utf8.Valid(body) {
		return &refusal{http.StatusBadRequest, "The body must be JSON in UTF-8."}
	}
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		return &refusal{http.StatusBadRequest, "The body must be one JSON object."}
	}
	for _, field := range fields {
		raw, ok := object[field]
		if !ok {
			continue
		}
		var value *string
		if err := json.Unmarshal(raw, &value); err != nil || value == nil {
			s.errors[field] = "must be a string"
			continue
		}
		s.fields[field] = *value
	}
	return nil
}

func (s *submission) readForm(r *http.Request, fields []string) error {
	if err := r.ParseForm(); err != nil {
		return unreadable(err)
	}
	for _, field := range fields {
		if r.PostForm.Has(field) {
			s.fields[field] = r.PostForm.Get(field)
		}
	}
	s.method = strings.ToUpper(r.PostForm.Get("_method"))
	return nil
}

// unreadable says what is the matter with a body that could not be read.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is larger than %d bytes.", tooLarge.Limit)}
	}
	return &refusal{http.StatusBadRequest, "The body cannot be read."}
}

// require adds an error for each field that was not sent.
func (s *submission) require(fields ...string) {
	for _, field := range fields {
		_, sent := s.fields[field]
		if _, refused := s.errors[field]; !sent && !refused {
			s.errors[field] = "is required"
		}
	}
}

// field returns the value of a field, nil if it was not sent.
func (s *submission) field(name string) *string {
	value, sent := s.fields[name]
	if !sent {
		return nil
	}
	return &value
}

// checkField returns value without surrounding spaces, or the reason why it is no good.
func checkField(value string) (trimmed, reason string) {
	if !utf8.ValidString(value) {
		return "", "must be valid UTF-8"
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return "", "must not contain control characters"
	}
	trimmed = strings.TrimSpace(value)
	if trimmed == "" {
		return "", "is required"
	}
	if utf8.RuneCountInString(trimmed) > maxFieldLength {
		return "", fmt.Sprintf("must not be longer than %d characters", maxFieldLength)
	}
	return trimmed, ""
}

package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed templates
var templates embed.FS

// pages are the templates by file name, each joined with the layout.
type pages map[string]*template.Template

// parsePages parses all templates.
func parsePages() (pages, error) {
	layout, err := template.ParseFS(templates, "templates/layout.html")
	if err != nil {
		return nil, fmt.Errorf("parsing the layout: %w", err)
	}
	files, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("listing the templates: %w", err)
	}
	parsed := pages{}
	for _, file := range files {
		page, err := layout.Clone()
		if err != nil {
			return nil, fmt.Errorf("copying the layout: %w", err)
		}
		if parsed[path.Base(file)], err = page.ParseFS(templates, file); err != nil {
			return nil, fmt.Errorf("parsing a template: %w", err)
		}
	}
	return parsed, nil
}

// form is the content of the page with the form for a track. An ID of 0 stands for a track that is to be made.
type form struct {
	ID     int64
	Name   string
	Artist string
	// ArtistSlug is that of the artist whom the track has, "" for a track that is to be made.
	ArtistSlug string
	// Errors are the reasons why the values were refused, by field.
	Errors map[string]string
}

// problem is the content of an error page.
type problem struct {
	Title  string
	Reason string
}

// refusal is an error that the client can do something about.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

// wantsJSON reports whether an error should be told as JSON: to who names a JSON resource, sends JSON, or deletes
// without a body, which no form can.
func wantsJSON(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, ".json") || mediaType(r) == mediaJSON || bareDelete(r)
}

// bareDelete reports whether r is a DELETE that says nothing about a body.
func bareDelete(r *http.Request) bool {
	return r.Method == http.MethodDelete && r.Header.Get("Content-Type") == ""
}

// fail answers with what err means. What is not the client's doing is logged.
func (a *application) fail(w http.ResponseWriter, r *http.Request, asJSON bool, err error) {
	status, reason := http.StatusInternalServerError, "Something went wrong here."
	var refused *refusal
	switch {
	case errors.Is(err, errNotFound):
		status, reason = http.StatusNotFound, "There is nothing at this address."
	case errors.As(err, &refused):
		status, reason = refused.status, refused.reason
	default:
		a.logger.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if asJSON {
		a.writeJSON(w, r, status, map[string]string{"error": reason})
		return
	}
	a.writePage(w, r, status, "problem.html", problem{Title: http.StatusText(status), Reason: reason})
}

// writePage answers with a template. The page is complete before its first byte is sent.
func (a *application) writePage(w http.ResponseWriter, r *http.Request, status int, name string, content any) {
	var page bytes.Buffer
	if err := a.pages[name].ExecuteTemplate(&page, "layout.html", content); err != nil {
		a.logger.ErrorContext(r.Context(), "page failed", "path", r.URL.Path, "template", name, "error", err)
		http.Error(w, "Something went wrong here.", http.StatusInternalServerError)
		return
	}
	write(w, status, "text/html; charset=utf-8", page.Bytes())
}

// writeJSON answers with a JSON document.
func (a *application) writeJSON(w http.ResponseWriter, r *http.Request, status int, content any) {
	document, err := json.Marshal(content)
	if err != nil {
		a.logger.ErrorContext(r.Context(), "document failed", "path", r.URL.Path, "error", err)
		http.Error(w, "Something went wrong here.", http.StatusInternalServerError)
		return
	}
	write(w, status, "application/json; charset=utf-8", append(document, '\n'))
}

// write answers with a body that is complete.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

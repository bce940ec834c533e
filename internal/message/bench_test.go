package message_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/message"
)

var benchHeader = http.Header{
	"Accept": {"text/html,application/xhtml+xml"}, "Accept-Language": {"en"}, "Content-Length": {"512"},
	"Content-Type": {"application/json"}, "Cookie": {"session=0123456789abcdef"}, "Etag": {`"0123456789abcdef"`},
	"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}, "X-Request-Id": {"0123456789abcdef"},
}

var benchBody = []byte(strings.Repeat("x", 512))

func BenchmarkRequest(b *testing.B) {
	r := &message.Request{Method: "POST", Target: "/tracks?album=3", Host: "example.com", Header: benchHeader, Body: benchBody}
	text, err := message.AppendRequest(nil, r)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = message.AppendRequest(dst[:0], r)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := message.ParseRequest(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEntry(b *testing.B) {
	e := &message.Entry{Ticket: ticket, Status: 200, Header: benchHeader, Body: benchBody}
	text, err := message.AppendEntry(nil, e)
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = message.AppendEntry(dst[:0], e)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		s := string(text)
		for b.Loop() {
			if _, err := message.ParseEntry(s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("metadata", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			message.ScanMetadata(line)
		}
	})
	b.Run("metadata with encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := message.DecodeMetadata(line); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package outage_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/outage"
)

func TestAnOutageIsLoggedOnceAndSoIsItsEnd(t *testing.T) {
	var b bytes.Buffer
	l := outage.Reading(slog.New(slog.NewTextHandler(&b, nil)))
	ctx, end := context.WithCancel(context.Background())
	gone := errors.New("gone")
	for _, err := range []error{nil, gone, gone, nil, nil, gone, nil} {
		l.Note(ctx, err)
	}
	end() // what fails now was told to
	l.Note(ctx, gone)
	var got []string
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "Redis is away") {
			got = append(got, "away")
		}
		if strings.Contains(line, "Redis is back") {
			got = append(got, "back")
		}
	}
	if strings.Join(got, " ") != "away back away back" {
		t.Errorf("logged: %s", b.String())
	}
}

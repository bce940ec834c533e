package representation_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/representation"
)

func TestRanges(t *testing.T) { // RFC 9110 §14
	for _, test := range []struct {
		name, value  string
		status       int
		contentRange string
		body         string
	}{
		{"the beginning", "bytes=0-3", 206, "bytes 0-3/10", "0123"},
		{"one byte", "bytes=4-4", 206, "bytes 4-4/10", "4"},
		{"to the end", "bytes=7-", 206, "bytes 7-9/10", "789"},
		{"over the end", "bytes=7-100", 206, "bytes 7-9/10", "789"},
		{"all", "bytes=0-", 206, "bytes 0-9/10", "0123456789"},
		{"the last ones", "bytes=-3", 206, "bytes 7-9/10", "789"},
		{"more of the last ones than there are", "bytes=-100", 206, "bytes 0-9/10", "0123456789"},
		{"a huge end", "bytes=2-99999999999999999999999999", 206, "bytes 2-9/10", "23456789"},
		{"white space and empty members", "bytes= ,\t0-3 ,,", 206, "bytes 0-3/10", "0123"},
		{"a unit in any case", "Bytes=0-3", 206, "bytes 0-3/10", "0123"},
		{"one that can be satisfied", "bytes=100-200, 1-2, -0", 206, "bytes 1-2/10", "12"},

		{"behind the end", "bytes=10-", 416, "bytes */10", ""},
		{"far behind the end", "bytes=99999999999999999999999999-", 416, "bytes */10", ""},
		{"none of the last ones", "bytes=-0", 416, "bytes */10", ""},
		{"several behind the end", "bytes=10-11,20-", 416, "bytes */10", ""},

		{"another unit", "lines=0-3", 200, "", "0123456789"},
		{"no unit", "0-3", 200, "", "0123456789"},
		{"nothing", "bytes=", 200, "", "0123456789"},
		{"nothing but a hyphen", "bytes=-", 200, "", "0123456789"},
		{"backwards", "bytes=3-2", 200, "", "0123456789"},
		{"a right one and a wrong one", "bytes=0-1,3-2", 200, "", "0123456789"},
		{"letters", "bytes=a-b", 200, "", "0123456789"},
		{"signs", "bytes=+0-3", 200, "", "0123456789"},
		{"two hyphens", "bytes=--3", 200, "", "0123456789"},
		{"white space inside", "bytes=0 - 3", 200, "", "0123456789"},
		{"overlapping beyond the whole", "bytes=0-9,0-0", 200, "", "0123456789"},
		{"the whole three times", "bytes=0-,0-,0-", 200, "", "0123456789"},
		{"more than sixteen", "bytes=" + strings.Repeat("0-0,", 17), 200, "", "0123456789"},
		{"an empty field", "", 200, "", "0123456789"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := ask(page(), "GET", fields("Range", test.value))
			body := bodyOf(t, answer)
			if answer.StatusCode != test.status || answer.Header.Get("Content-Range") != test.contentRange {
				t.Fatalf("%s got %d %v", test.value, answer.StatusCode, answer.Header)
			}
			if answer.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
				t.Errorf("%d bytes have %v", len(body), answer.Header)
			}
			if test.status == 416 {
				if answer.Header.Get("Content-Type") != "application/problem+json" || answer.Header["Etag"] != nil {
					t.Errorf("got %v", answer.Header)
				}
				return
			}
			if body != test.body || answer.Header.Get("Accept-Ranges") != "bytes" || answer.Header.Get("Etag") != `"v"` || answer.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("got %q with %v", body, answer.Header)
			}
		})
	}
}

func TestTwoRangeFieldsAreIgnored(t *testing.T) { // RFC 9110 §5.3: it is no list-based field
	if answer := ask(page(), "GET", fields("Range", "bytes=0-1", "Range", "bytes=3-4")); answer.StatusCode != 200 {
		t.Errorf("got %d", answer.StatusCode)
	}
}

func TestOnlyGETOfA200HasRanges(t *testing.T) { // RFC 9110 §14.2
	if head, plain := ask(page(), "HEAD", fields("Range", "bytes=0-1")), ask(page(), "HEAD", nil); head.StatusCode != 200 || !reflect.DeepEqual(head.Header, plain.Header) {
		t.Errorf("HEAD got %d %v", head.StatusCode, head.Header)
	}
	for _, status := range []int{203, 300, 301} {
		source := page()
		source.Status = status
		if answer := ask(source, "GET", fields("Range", "bytes=0-1")); answer.StatusCode != status || answer.Header["Accept-Ranges"] != nil {
			t.Errorf("%d became %d %v", status, answer.StatusCode, answer.Header)
		}
	}
	if answer := ask(representation.Source{Status: 200}, "GET", fields("Range", "bytes=0-1")); answer.StatusCode != 200 {
		t.Errorf("an empty body got %d", answer.StatusCode)
	}
}

func TestRangesAreThoseOfTheSelectedCoding(t *testing.T) {
	answer := ask(codedPage(), "GET", fields("Range", "bytes=1-2", "Accept-Encoding", "gzip", "If-Range", `"v--gzip"`))
	if body := bodyOf(t, answer); answer.StatusCode != 206 || body != "zi" || answer.Header.Get("Content-Range") != "bytes 1-2/7" ||
		answer.Header.Get("Content-Encoding") != "gzip" || answer.Header.Get("Etag") != `"v--gzip"` {
		t.Errorf("got %d %q %v", answer.StatusCode, body, answer.Header)
	}
	if answer := ask(codedPage(), "GET", fields("Range", "bytes=8-", "Accept-Encoding", "gzip")); answer.StatusCode != 416 || answer.Header.Get("Content-Range") != "bytes */7" {
		t.Errorf("got %d %v", answer.StatusCode, answer.Header)
	}
	// Clients don't agree on what is coded then, the parts or the whole.
	if answer := ask(codedPage(), "GET", fields("Range", "bytes=0-1,3-4", "Accept-Encoding", "gzip")); answer.StatusCode != 200 || bodyOf(t, answer) != "gzipgzi" {
		t.Errorf("several ranges of a coding got %d %v", answer.StatusCode, answer.Header)
	}
}

func TestIfRange(t *testing.T) { // RFC 9110 §13.1.5
	now := time.Now().UTC()
	this, future := now.Format(http.TimeFormat), now.Add(time.Hour).Format(http.TimeFormat)
	for _, test := range []struct {
		name, tag, modified string
		ifRange             []string
		want                int
	}{
		{"the tag", `"v"`, lastWeek, []string{`"v"`}, 206},
		{"another tag", `"v"`, lastWeek, []string{`"w"`}, 200},
		{"a weak tag", `"v"`, lastWeek, []string{`W/"v"`}, 200},
		{"weak ones are not enough", `W/"v"`, lastWeek, []string{`W/"v"`}, 200},
		{"a list", `"v"`, lastWeek, []string{`"v", "w"`}, 200},
		{"no tag there", "", lastWeek, []string{`"v"`}, 200},
		{"any is none", `"v"`, lastWeek, []string{"*"}, 200},
		{"the date", `"v"`, lastWeek, []string{lastWeek}, 206},
		{"the date in another form", "", lastWeek, []string{"Tuesday, 17-Nov-20 10:00:00 GMT"}, 206},
		{"an earlier date", "", lastWeek, []string{weekBefore}, 200},
		{"a later date", "", lastWeek, []string{weekAfter}, 200},
		{"no date there", `"v"`, "", []string{lastWeek}, 200},
		{"neither tag nor date", `"v"`, lastWeek, []string{"v"}, 200},
		{"a date to come is not strong", "", future, []string{future}, 200},
		{"twice", `"v"`, lastWeek, []string{`"v"`, `"v"`}, 200},
		{"empty is none", `"v"`, lastWeek, []string{""}, 206},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := page()
			source.Header = http.Header{"Content-Type": {"a/b"}, "Etag": {test.tag}, "Last-Modified": {test.modified}}
			request := http.Header{"Range": {"bytes=0-3"}, "If-Range": test.ifRange}
			if answer := ask(source, "GET", request); answer.StatusCode != test.want {
				t.Errorf("got %d %v, want %d", answer.StatusCode, answer.Header, test.want)
			}
			request = http.Header{"If-Range": test.ifRange}
			if answer := ask(source, "GET", request); answer.StatusCode != 200 {
				t.Errorf("without Range: got %d", answer.StatusCode)
			}
		})
	}
	// While the second lasts the resource may change once more (§8.8.2.2).
	source := page()
	source.Header = fields("Last-Modified", this)
	answer := ask(source, "GET", fields("Range", "bytes=0-3", "If-Range", this))
	if answer.StatusCode != 200 && time.Now().Unix() == now.Unix() {
		t.Errorf("in the second of the change: got %d", answer.StatusCode)
	}
}

func TestSeveralRangesAreMultipart(t *testing.T) { // RFC 9110 §14.6
	for _, contentType := range []string{"text/html; charset=utf-8", ""} {
		source := page()
		source.Header["Content-Type"] = []string{contentType}
		if contentType == "" {
			delete(source.Header, "Content-Type")
		}
		answer := ask(source, "GET", fields("Range", "bytes=0-1, 20-, 4-6, -1"))
		body := bodyOf(t, answer)
		kind, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
		if answer.StatusCode != 206 || kind != "multipart/byteranges" || err != nil || answer.Header["Content-Range"] != nil ||
			answer.Header.Get("Content-Length") != strconv.Itoa(len(body)) || answer.Header.Get("Etag") != `"v"` {
			t.Fatalf("got %d %v, %v", answer.StatusCode, answer.Header, err)
		}
		reader := multipart.NewReader(strings.NewReader(body), parameters["boundary"])
		for _, want := range []struct{ contentRange, body string }{{"bytes 0-1/10", "01"}, {"bytes 4-6/10", "456"}, {"bytes 9-9/10", "9"}} {
			part, err := reader.NextRawPart()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(part)
			if err != nil || string(content) != want.body || part.Header.Get("Content-Range") != want.contentRange || part.Header.Get("Content-Type") != contentType {
				t.Errorf("got %q %v, %v", content, part.Header, err)
			}
		}
		if part, err := reader.NextRawPart(); err != io.EOF {
			t.Errorf("after the last part: %v, %v", part, err)
		}
		if again := bodyOf(t, ask(source, "GET", fields("Range", "bytes=0-1, 4-6"))); strings.Contains(again, parameters["boundary"]) {
			t.Error("the boundary can be foreseen")
		}
	}
}

// However ranges are put together, an answer is not much larger than the whole (RFC 9110 §17.15).
func TestRangesDoNotAmplify(t *testing.T) {
	source := page()
	source.Body = bytes.Repeat([]byte("x"), 10_000)
	for _, set := range []string{strings.Repeat("0-,", 16), strings.Repeat("0-0,", 16), strings.Repeat("0-9999,", 1000), strings.Repeat("5000-,", 3),
		"0-4999,0-4999", "0-5000,0-5000", strings.Repeat("-1,", 16)} {
		if body := bodyOf(t, ask(source, "GET", fields("Range", "bytes="+set))); len(body) > len(source.Body)+17*200 {
			t.Errorf("%.40s got %d bytes", set, len(body))
		}
	}
}

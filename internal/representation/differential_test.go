package representation_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/itscales/scales/internal/representation"
)

// question is a request, and the entry that it is about.
type question struct {
	method, tag, modified string
	size                  int
	request               http.Header
}

// answers returns what we and what http.ServeContent answer.
func (q question) answers(t *testing.T) (ours, theirs *http.Response) {
	t.Helper()
	body := []byte("0123456789abcdefghijklmnopqrstuvwxyz")[:q.size]
	header := http.Header{"Content-Type": {"text/plain"}}
	var modified time.Time
	if q.tag != "" {
		header["Etag"] = []string{q.tag}
	}
	if q.modified != "" {
		header["Last-Modified"] = []string{q.modified}
		var err error
		if modified, err = http.ParseTime(q.modified); err != nil {
			t.Fatal(err)
		}
	}
	ours = ask(representation.Source{Status: 200, Header: header, Body: body}, q.method, q.request.Clone())

	recorder := httptest.NewRecorder()
	for name, values := range header {
		recorder.Header()[name] = values
	}
	request := httptest.NewRequest(q.method, "/", nil)
	request.Header = q.request.Clone()
	if q.method == "HEAD" {
		// ServeContent gives a 206 to a HEAD. RFC 9110 §14.2 defines Range for GET only.
		request.Header.Del("Range")
	}
	http.ServeContent(recorder, request, "", modified, bytes.NewReader(body))
	return ours, recorder.Result()
}

// plainRange is a Range on which we and ServeContent agree but for what compare says: without white space inside of a range
// and signs, which ServeContent takes; without numbers that don't fit, which it takes for malformed and we for large ones;
// and without "-0", which it answers with a 206 of no bytes and we with 416 (RFC 9110 §14.1.2).
var (
	plainRange = regexp.MustCompile(`^bytes=[ \t,]*(\d{1,18}-\d{0,18}|-0{0,17}[1-9]\d{0,17})?([ \t]*,[ \t]*((\d{1,18}-\d{0,18}|-0{0,17}[1-9]\d{0,17}))?)*[ \t]*$`)
	boundaries = regexp.MustCompile(`[0-9a-f]{60}`)
)

var fromTo = regexp.MustCompile(`(\d+)-(\d+)`)

// isBackwards says whether a Range has a range that ends before it begins, which makes it malformed (RFC 9110 §14.1.1).
func isBackwards(value string) bool {
	for _, match := range fromTo.FindAllStringSubmatch(value, -1) {
		first, last := strings.TrimLeft(match[1], "0"), strings.TrimLeft(match[2], "0")
		if len(last) < len(first) || len(last) == len(first) && last < first {
			return true
		}
	}
	return false
}

// compare compares the answers.
func (q question) compare(t *testing.T) {
	t.Helper()
	ours, theirs := q.answers(t)
	complain := func(format string, arguments ...any) {
		t.Helper()
		t.Errorf("%+v: %s\nours   %d %v\ntheirs %d %v", q, fmt.Sprintf(format, arguments...), ours.StatusCode, ours.Header, theirs.StatusCode, theirs.Header)
	}
	rangeValue := q.request.Get("Range")
	if theirs.StatusCode == 416 && theirs.Header.Get("Content-Range") == "" {
		// For them a malformed Range can't be satisfied; we ignore it (RFC 9110 §14.2).
		if ours.StatusCode != 200 {
			complain("a malformed Range was not ignored")
		}
		return
	}
	if strings.Count(rangeValue, "-") > 16 && theirs.StatusCode == 206 {
		return // we answer at most so many ranges
	}
	if (isBackwards(rangeValue) || !plainRange.MatchString(rangeValue)) && ours.StatusCode == 200 && (theirs.StatusCode == 206 || theirs.StatusCode == 416) {
		return // they don't look at the end of a range that begins behind the content, so they miss that it is malformed
	}
	if q.size == 0 && ours.StatusCode == 200 && theirs.StatusCode == 206 {
		return // they say "bytes 0--1/0" of the last bytes of an empty content; both ignore other ranges of it
	}
	if ours.StatusCode != theirs.StatusCode {
		complain("the statuses differ")
		return
	}
	names := []string{"Etag", "Last-Modified", "Content-Range", "Content-Type", "Content-Length", "Accept-Ranges"}
	switch ours.StatusCode {
	case 412, 416: // ours are problems
		names = []string{"Content-Range"}
	}
	for _, name := range names {
		a, b := boundaries.ReplaceAllString(ours.Header.Get(name), "*"), boundaries.ReplaceAllString(theirs.Header.Get(name), "*")
		if a != b {
			complain("%s differs", name)
		}
	}
	if ours.StatusCode == 412 || ours.StatusCode == 416 {
		return
	}
	a, b := boundaries.ReplaceAllString(bodyOf(t, ours), "*"), boundaries.ReplaceAllString(bodyOf(t, theirs), "*")
	if a != b {
		complain("the bodies differ: %q and %q", a, b)
	}
}

// randomQuestion makes a question from values that are apt to match.
func randomQuestion(random *rand.Rand) question {
	pick := func(values ...string) string { return values[random.IntN(len(values))] }
	tag := func() string { return pick(`"v"`, `"v"`, `W/"v"`, `"w"`, `"a,b"`, `""`, `W/"w"`, `v`, `"v`, `W/v`) }
	date := func() string {
		return pick(weekBefore, lastWeek, lastWeek, weekAfter, "Tuesday, 17-Nov-20 10:00:00 GMT", "Tue Nov 17 10:00:00 2020", "no date")
	}
	list := func() string {
		if random.IntN(8) == 0 {
			return "*"
		}
		var tags []string
		for range 1 + random.IntN(3) {
			tags = append(tags, tag())
		}
		return strings.Join(tags, pick(",", ", ", " ,\t", ", ,"))
	}
	ranges := func() string {
		var specs []string
		for range 1 + random.IntN(4) {
			first, last := random.IntN(40), random.IntN(40)
			if random.IntN(4) > 0 && last < first {
				first, last = last, first
			}
			specs = append(specs, pick(fmt.Sprintf("%d-%d", first, last), fmt.Sprintf("%d-%d", first, first+random.IntN(4)), fmt.Sprintf("%d-", first),
				fmt.Sprintf("-%d", 1+last)))
		}
		if random.IntN(12) == 0 {
			specs = append(specs, pick("", "x", "3", "-", "3-x", "1-2-3", "--1"))
		}
		return pick("bytes=", "bytes=", "bytes=", "bytes=", "bytes=", "lines=") + strings.Join(specs, pick(",", ", "))
	}
	q := question{method: pick("GET", "GET", "HEAD"), tag: pick("", `"v"`, `"v"`, `W/"v"`), modified: pick("", lastWeek), size: random.IntN(37), request: http.Header{}}
	for _, f := range []struct {
		name  string
		often int
		value func() string
	}{{"If-Match", 4, list}, {"If-Unmodified-Since", 5, date}, {"If-None-Match", 3, list}, {"If-Modified-Since", 4, date}, {"Range", 2, ranges},
		{"If-Range", 3, func() string { return pick(tag(), date()) }}} {
		if random.IntN(f.often) == 0 {
			q.request.Set(f.name, f.value())
		}
	}
	return q
}

func TestAnswersAreThoseOfServeContent(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	statuses := map[int]int{}
	for range 20_000 {
		q := randomQuestion(random)
		q.compare(t)
		if t.Failed() {
			return
		}
		ours, _ := q.answers(t)
		statuses[ours.StatusCode]++
	}
	t.Logf("answers by status: %v", statuses)
	for _, status := range []int{200, 206, 304, 412, 416} {
		if statuses[status] < 100 {
			t.Errorf("only %d answers were %d", statuses[status], status)
		}
	}
}

func FuzzAgainstServeContent(f *testing.F) {
	f.Add(false, uint8(20), "", "", "", "", "bytes=0-3, 5-", `"v"`)
	f.Add(true, uint8(20), `"v"`, "", "", lastWeek, "bytes=-3", lastWeek)
	f.Add(false, uint8(9), "", lastWeek, `W/"v", "w"`, "", "bytes=9-", "")
	f.Add(false, uint8(20), "", "", "", "", "bytes=0-", `"v"0`)
	f.Fuzz(func(t *testing.T, head bool, size uint8, ifMatch, ifUnmodifiedSince, ifNoneMatch, ifModifiedSince, rangeValue, ifRange string) {
		q := question{method: "GET", tag: `"v"`, modified: lastWeek, size: int(size % 37), request: http.Header{}}
		if head {
			q.method = "HEAD"
		}
		if size >= 200 {
			q.tag, q.modified = `W/"v"`, ""
		}
		for name, value := range map[string]string{"If-Match": ifMatch, "If-Unmodified-Since": ifUnmodifiedSince, "If-None-Match": ifNoneMatch,
			"If-Modified-Since": ifModifiedSince, "Range": rangeValue, "If-Range": ifRange} {
			if value = strings.Trim(value, " \t\r\n"); value != "" { // net/http lets no other value through
				q.request.Set(name, value)
			}
		}
		if value := q.request.Get("Range"); value != "" && strings.HasPrefix(strings.ToLower(value), "bytes=") && !plainRange.MatchString(value) {
			return
		}
		if opaque, ok := strings.CutPrefix(q.request.Get("If-Range"), `"`); ok {
			if _, after, _ := strings.Cut(opaque, `"`); after != "" {
				return // ServeContent looks at a tag and not at what follows it; RFC 9110 §13.1.5 has only one tag
			}
		}
		q.compare(t)
	})
}

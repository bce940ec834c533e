package message_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/message"
)

const ticket = "00001764000000000001"

func TestAnEntryIsALineOfJSONAndTheBody(t *testing.T) {
	for _, test := range []struct {
		name  string
		entry *message.Entry
		want  string
	}{
		{"a page", &message.Entry{Ticket: ticket, Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<h1>\n")},
			`{"ticket":"00001764000000000001","status":200,"header":{"Content-Type":["text/html"]},"size":5}` + "\n<h1>\n"},
		{"no header, no body", &message.Entry{Ticket: ticket, Status: 204, Header: http.Header{}},
			`{"ticket":"00001764000000000001","status":204,"header":{},"size":0}` + "\n"},
		{"a ticket to be filled in", &message.Entry{Status: 200},
			`{"ticket":"00000000000000000000","status":200,"header":{},"size":0}` + "\n"},
		{"pushed", &message.Entry{Ticket: ticket, Status: 200, PushOnly: true},
			`{"ticket":"00001764000000000001","pushOnly":true,"status":200,"header":{},"size":0}` + "\n"},
		{"a tombstone", &message.Entry{Ticket: ticket, Gone: true},
			`{"ticket":"00001764000000000001","gone":true}` + "\n"},
		{"where it comes from", &message.Entry{Ticket: ticket, Status: 200, Job: "2fc3", Why: `group "a"` + "\n"},
			`{"ticket":"00001764000000000001","status":200,"header":{},"size":0,"job":"2fc3","why":"group \"a\"?"}` + "\n"},
		{"codings", &message.Entry{Ticket: ticket, Status: 200, Body: []byte("body"), Codings: []message.Coding{{Name: "br", Body: []byte("b")}, {Name: "gzip", Body: []byte("zip")}}, Why: "fill"},
			`{"ticket":"00001764000000000001","status":200,"header":{},"size":4,"codings":[["br",1],["gzip",3]],"why":"fill"}` + "\nbodybzip"},
		{"a tombstone that says why", &message.Entry{Ticket: ticket, Gone: true, Why: "fill", Refusal: "Set-Cookie"},
			`{"ticket":"00001764000000000001","gone":true,"why":"fill","refusal":"Set-Cookie"}` + "\n"},
		{"fields", &message.Entry{Ticket: ticket, Status: 200, Header: http.Header{"Link": {"<b>", " <a>"}, "Etag": {`"v\"`}, "A": {"\t", "\x80\xff", "x\ty"}, "None": nil}},
			`{"ticket":"00001764000000000001","status":200,"header":{"A":["","` + "\u0080\u00ff" + `","x\ty"],"Etag":["\"v\\\""],"Link":["<b>","<a>"]},"size":0}` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := message.AppendEntry([]byte("before "), test.entry)
			if string(got) != "before "+test.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
			line, _, _ := strings.Cut(test.want, "\n")
			if !json.Valid([]byte(line)) || test.want[message.TicketOffset:][:message.TicketWidth] != message.EntryTicket(test.want) {
				t.Errorf("%s is not JSON with the ticket at its place", line)
			}
		})
	}
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	var all []byte
	for b := range 256 {
		if b == '\t' || b >= ' ' && b != 0x7F {
			all = append(all, byte(b))
		}
	}
	for name, want := range map[string]*message.Entry{
		"minimal":             {Ticket: ticket, Status: 200, Header: http.Header{}},
		"tombstone":           {Ticket: ticket, Gone: true},
		"where it comes from": {Ticket: ticket, Status: 200, Header: http.Header{}, Job: "2fc3", Why: `group "\`, Body: []byte("x")},
		"a tombstone with it": {Ticket: ticket, Gone: true, Job: "2fc3", Why: "target", Refusal: "Vary: Cookie"},
		"codings": {Ticket: ticket, Status: 200, Header: http.Header{}, Body: []byte("x"), Why: "fill",
			Codings: []message.Coding{{Name: "zstd", Body: []byte("\x00\n")}, {Name: "empty"}, {Name: "gzip", Body: []byte("{}")}}},
		"pushed":                  {Ticket: ticket, Status: 410, Header: http.Header{}, PushOnly: true},
		"binary body":             {Ticket: ticket, Status: 200, Header: http.Header{}, Body: []byte("\n\x00\xff{}")},
		"every byte there can be": {Ticket: ticket, Status: 200, Header: http.Header{"A": {"x" + string(all) + "x"}}},
		"many fields":             {Ticket: ticket, Status: 999, Header: manyFields(60)},
		"what looks like JSON":    {Ticket: ticket, Status: 200, Header: http.Header{"A": {`":["`, `"],"B":["`, `\`, `\u0041`}, "B": {"", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := message.AppendEntry(nil, want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := message.ParseEntry(string(text))
			if err != nil || !sameEntry(got, want) {
				t.Errorf("%q is read as %+v, %v; want %+v", text, got, err, want)
			}
			for n := range len(text) {
				if cut, err := message.ParseEntry(string(text[:n])); !errors.Is(err, message.ErrMalformed) {
					t.Fatalf("cut to %d of %d bytes it is read as %+v, %v", n, len(text), cut, err)
				}
			}
		})
	}
}

func TestEntriesOfOtherPrograms(t *testing.T) {
	want := &message.Entry{Ticket: ticket, Status: 200, Header: http.Header{"Content-Type": {"text/html"}, "X-A": {"ü\t\x80", "b"}}, Body: []byte("body")}
	latin1 := "\xfc\t\x80"
	want.Header["X-A"][0] = latin1
	for name, line := range map[string]string{
		"white space and another order": `{"ticket":"` + ticket + `", "size": 4, "header": {"X-A": ["ü\t\u0080", "b"], "Content-Type": ["text/html"]}, "status": 200}`,
		"names in lower case":           `{"ticket":"` + ticket + `","status":200,"header":{"x-a":["\u00fc\t\u0080","b"],"content-type":["text/html"]},"size":4}`,
		"members of a later version":    `{"ticket":"` + ticket + `","status":200,"groups":["a",{"b":1}],"header":{"Content-Type":["text/html"],"X-A":["ü\t\u0080","b"]},"size":4,"x":null}`,
		"false, stated":                 `{"ticket":"` + ticket + `","gone":false,"pushOnly":false,"status":200,"header":{"Content-Type":["text/html"],"X-A":["ü\u0009\u0080","b"]},"size":4}`,
		"no codings, stated":            `{"ticket":"` + ticket + `","status":200,"header":{"Content-Type":["text/html"],"X-A":["ü\t\u0080","b"]},"size":4,"codings":[]}`,
		"names without values":          `{"ticket":"` + ticket + `","status":200,"header":{"A":[],"B":null,"Content-Type":["\u0074ext/html"],"X-A":["ü\t\u0080"," b"]},"size":4}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := message.ParseEntry(line + "\nbody"); err != nil || !sameEntry(got, want) {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestMalformedEntriesAreRefused(t *testing.T) {
	const head = `{"ticket":"` + ticket + `"`
	for name, text := range map[string]string{
		"empty":                          "",
		"no line":                        head + `,"status":200,"header":{},"size":0}`,
		"not JSON":                       head + `,"status":200,"header":{},"size":0` + "\n",
		"more than JSON":                 head + `,"status":200,"header":{},"size":0}}` + "\n",
		"no ticket":                      `{"status":200,"header":{},"size":0}` + "\n",
		"a ticket at another place":      `{"status":200,"header":{},"size":0,"ticket":"` + ticket + `"}` + "\n",
		"a space before the ticket":      `{ "ticket":"` + ticket + `","status":200,"header":{},"size":0}` + "\n",
		"a short ticket":                 `{"ticket":"1","status":200,"header":{},"size":0}` + "\n",
		"a long ticket":                  `{"ticket":"0` + ticket + `","status":200,"header":{},"size":0}` + "\n",
		"a ticket that is not digits":    `{"ticket":"0000176400000000000x","status":200,"header":{},"size":0}` + "\n",
		"two tickets":                    head + `,"status":200,"header":{},"size":0,"ticket":"00001764000000000002"}` + "\n",
		"no status":                      head + `,"header":{},"size":0}` + "\n",
		"a status that is not final":     head + `,"status":103,"header":{},"size":0}` + "\n",
		"a status that is no number":     head + `,"status":"200","header":{},"size":0}` + "\n",
		"no size":                        head + `,"status":200,"header":{}}` + "\n",
		"a cut body":                     head + `,"status":200,"header":{},"size":5}` + "\nbody",
		"a longer body":                  head + `,"status":200,"header":{},"size":3}` + "\nbody",
		"a negative size":                head + `,"status":200,"header":{},"size":-1}` + "\n",
		"a huge size":                    head + `,"status":200,"header":{},"size":99999999999999999999}` + "\n",
		"a cut coding":                   head + `,"status":200,"header":{},"size":4,"codings":[["br",2]]}` + "\nbodyb",
		"a negative size of a coding":    head + `,"status":200,"header":{},"size":4,"codings":[["br",-2],["gzip",2]]}` + "\nbody",
		"sizes that are huge together":   head + `,"status":200,"header":{},"size":9223372036854775807,"codings":[["br",9223372036854775807],["gzip",2]]}` + "\n",
		"a coding twice":                 head + `,"status":200,"header":{},"size":4,"codings":[["br",0],["br",0]]}` + "\nbody",
		"a coding without a size":        head + `,"status":200,"header":{},"size":4,"codings":[["br"]]}` + "\nbody",
		"a coding that is no token":      head + `,"status":200,"header":{},"size":4,"codings":[["b r",0]]}` + "\nbody",
		"a tombstone with codings":       head + `,"gone":true,"codings":[["br",0]]}` + "\n",
		"a tombstone with a body":        head + `,"gone":true}` + "\nbody",
		"a tombstone with a status":      head + `,"gone":true,"status":200}` + "\n",
		"a tombstone with a header":      head + `,"gone":true,"header":{"A":["b"]}}` + "\n",
		"a code point that is no byte":   head + `,"status":200,"header":{"A":["ā"]},"size":0}` + "\n",
		"an escaped one":                 head + `,"status":200,"header":{"A":["\u0100"]},"size":0}` + "\n",
		"half of a code point":           head + `,"status":200,"header":{"A":["\ud800"]},"size":0}` + "\n",
		"bytes that are no UTF-8":        head + `,"status":200,"header":{"A":["` + "\xff" + `"]},"size":0}` + "\n",
		"a code point in too many bytes": head + `,"status":200,"header":{"A":["` + "\xc1\x80" + `"]},"size":0}` + "\n",
		"a line feed in a value":         head + `,"status":200,"header":{"A":["a\nb"]},"size":0}` + "\n",
		"DEL in a value":                 head + `,"status":200,"header":{"A":["` + "\x7f" + `"]},"size":0}` + "\n",
		"a raw tab in a value":           head + `,"status":200,"header":{"A":["a` + "\t" + `b"]},"size":0}` + "\n",
		"a name that is no token":        head + `,"status":200,"header":{"A b":["c"]},"size":0}` + "\n",
		"no name":                        head + `,"status":200,"header":{"":["c"]},"size":0}` + "\n",
		"two spellings of a name":        head + `,"status":200,"header":{"a":["b"],"A":["c"]},"size":0}` + "\n",
		"a value that is no list":        head + `,"status":200,"header":{"A":"b"},"size":0}` + "\n",
		"metadata over the limit":        head + `,"status":200,"header":{"A":["` + strings.Repeat("b", message.MaxHead) + `"]},"size":0}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := message.ParseEntry(text); !errors.Is(err, message.ErrMalformed) || e != nil {
				t.Errorf("got %+v, %v; want ErrMalformed", e, err)
			}
		})
	}
}

func TestEntriesThatMakeNoSenseAreNotWritten(t *testing.T) {
	for name, e := range map[string]*message.Entry{
		"a short ticket":              {Ticket: "1", Status: 200},
		"a ticket that is not digits": {Ticket: "0000176400000000000\"", Status: 200},
		"no status":                   {Ticket: ticket},
		"a status that is not final":  {Ticket: ticket, Status: 103},
		"a coding in upper case":      {Ticket: ticket, Status: 200, Codings: []message.Coding{{Name: "BR"}}},
		"a coding twice":              {Ticket: ticket, Status: 200, Codings: []message.Coding{{Name: "br"}, {Name: "br"}}},
		"identity as a coding":        {Ticket: ticket, Status: 200, Codings: []message.Coding{{Name: "identity"}}},
		"too many codings":            {Ticket: ticket, Status: 200, Codings: make([]message.Coding, 17)},
		"a tombstone with a coding":   {Ticket: ticket, Gone: true, Codings: []message.Coding{{Name: "br"}}},
		"a tombstone with a body":     {Ticket: ticket, Gone: true, Body: []byte("x")},
		"a tombstone with a status":   {Ticket: ticket, Gone: true, Status: 200},
		"a tombstone with a header":   {Ticket: ticket, Gone: true, Header: http.Header{"A": {"b"}}},
	} {
		if got, err := message.AppendEntry([]byte("before"), e); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
			t.Errorf("%s: %q, %v; want ErrInvalid", name, got, err)
		}
	}
}

func TestTheTicketOfAnEntryCanBeReadAlone(t *testing.T) {
	for s, want := range map[string]string{
		`{"ticket":"` + ticket + `"`:           ticket,
		`{"ticket":"` + ticket + `","gone":`:   ticket,
		`{"ticket":"` + ticket:                 "",
		`{"ticket":"` + ticket + `0"`:          "",
		`{"ticket":"0000176400000000000x"}`:    "",
		`{"Ticket":"` + ticket + `"}`:          "",
		"":                                     "",
		`{"status":200,"ticket":"` + ticket:    "",
		`{"ticket":"` + ticket[:19] + `","a":`: "",
	} {
		if got := message.EntryTicket(s); got != want {
			t.Errorf("EntryTicket(%q) = %q, want %q", s, got, want)
		}
	}
}

func sameEntry(a, b *message.Entry) bool {
	return a.Ticket == b.Ticket && a.Status == b.Status && a.Gone == b.Gone && a.PushOnly == b.PushOnly &&
		a.Job == b.Job && a.Why == b.Why && a.Refusal == b.Refusal &&
		reflect.DeepEqual(a.Header, b.Header) && bytes.Equal(a.Body, b.Body) &&
		slices.EqualFunc(a.Codings, b.Codings, func(a, b message.Coding) bool { return a.Name == b.Name && bytes.Equal(a.Body, b.Body) }) &&
		reflect.DeepEqual(a.Vary, b.Vary) && slices.EqualFunc(a.Variants, b.Variants, func(a, b *message.Entry) bool {
		return a == b || a != nil && b != nil && sameEntry(a, b)
	})
}

func TestTheFloorOfAnEntryCanBeReadAlone(t *testing.T) {
	const ticket, floor = "00000000000000000042", "00000000000000000007"
	for s, want := range map[string]string{
		`{"ticket":"` + ticket + `","status":200`:                                        ticket,
		`{"ticket":"` + ticket + `","pushOnly":true,"status":200`:                        ticket,
		`{"ticket":"` + ticket + `","floor":"` + floor + `","status":200`:                floor,
		`{"ticket":"` + ticket + `","floor":"` + floor + `","gone":true}`:                floor,
		`{"ticket":"` + ticket + `","floor":"7","status":200,"header":{},"size":0,"a":1`: ticket,
		`{"ticket":"` + ticket + `","floor":"` + floor:                                   ticket,
		`{"ticket":"42","floor":"` + floor + `"`:                                         "",
		"":                                                                               "",
	} {
		if got := message.EntryFloor(s); got != want {
			t.Errorf("EntryFloor(%q) = %q, want %q", s, got, want)
		}
	}
}

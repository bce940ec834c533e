package message_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/variant"
)

var inLanguages = variant.Fields{{Name: "Accept-Language", Values: []string{"en", "de", "fr"}}}

func TestAnEntryWithVariants(t *testing.T) {
	entry := &message.Entry{
		Ticket: ticket, Why: "fill", Job: "2fc3", Vary: inLanguages,
		Variants: []*message.Entry{
			{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("tea"), Codings: []message.Coding{{Name: "br", Body: []byte("t")}}},
			nil,
			{Status: 204},
		},
	}
	english := `{"ticket":"00000000000000000000","status":200,"header":{"Content-Type":["text/plain"]},"size":3,"codings":[["br",1]]}` + "\nteat"
	french := `{"ticket":"00000000000000000000","status":204,"header":{},"size":0}` + "\n"
	want := `{"ticket":"00001764000000000001","vary":[["Accept-Language","en","de","fr"]],"variants":[` +
		strconv.Itoa(len(english)) + ",0," + strconv.Itoa(len(french)) + `],"job":"2fc3","why":"fill"}` + "\n" + english + french
	text, err := message.AppendEntry([]byte("before "), entry)
	if err != nil || string(text) != "before "+want {
		t.Fatalf("got %q, %v; want %q", text, err, want)
	}
	got, err := message.ParseEntry(want)
	if err != nil {
		t.Fatal(err)
	}
	entry.Variants[2].Header = http.Header{}
	if !sameEntry(got, entry) {
		t.Errorf("got %+v, want %+v", got, entry)
	}
	if all := got.Representations(); len(all) != 2 || all[0] != got.Variants[0] || all[1] != got.Variants[2] {
		t.Errorf("its representations are %v", all)
	}
	for _, plain := range []*message.Entry{{Status: 200}, {Gone: true}} {
		if all := plain.Representations(); plain.Gone && len(all) > 0 || !plain.Gone && (len(all) != 1 || all[0] != plain) {
			t.Errorf("the representations of %+v are %v", plain, all)
		}
	}
}

func TestVariantsThatMakeNoSense(t *testing.T) {
	three := func() []*message.Entry { return []*message.Entry{{Status: 200}, nil, {Status: 204}} }
	for name, e := range map[string]*message.Entry{
		"none of them exists":      {Vary: inLanguages, Variants: make([]*message.Entry, 3)},
		"too few":                  {Vary: inLanguages, Variants: three()[:1]},
		"no fields":                {Variants: three()[:1]},
		"a field that is refused":  {Vary: variant.Fields{{Name: "Cookie", Values: []string{"a"}}}, Variants: three()[:1]},
		"a tombstone":              {Vary: inLanguages, Variants: three(), Gone: true},
		"push-only":                {Vary: inLanguages, Variants: three(), PushOnly: true},
		"a status":                 {Vary: inLanguages, Variants: three(), Status: 200},
		"a body":                   {Vary: inLanguages, Variants: three(), Body: []byte("x")},
		"a variant with variants":  {Vary: inLanguages, Variants: []*message.Entry{{Vary: inLanguages, Variants: three()}, nil, nil}},
		"a variant that is gone":   {Vary: inLanguages, Variants: []*message.Entry{{Gone: true}, nil, nil}},
		"a variant with a ticket":  {Vary: inLanguages, Variants: []*message.Entry{{Status: 200, Ticket: ticket}, nil, nil}},
		"a variant with no status": {Vary: inLanguages, Variants: []*message.Entry{{}, nil, nil}},
	} {
		if got, err := message.AppendEntry([]byte("before"), e); !errors.Is(err, message.ErrInvalid) || string(got) != "before" {
			t.Errorf("%s: %q, %v; want ErrInvalid", name, got, err)
		}
	}

	const head, part = `{"ticket":"` + ticket + `"`, `{"ticket":"00000000000000000000","status":204,"header":{},"size":0}` + "\n"
	vary, size := `,"vary":[["X-Device","","phone"]]`, strconv.Itoa(len(part))
	if _, err := message.ParseEntry(head + vary + `,"variants":[` + size + `,0]}` + "\n" + part); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no sizes":                head + vary + "}\n" + part,
		"too few":                 head + vary + `,"variants":[` + size + "]}\n" + part,
		"too many":                head + vary + `,"variants":[` + size + ",0,0]}\n" + part,
		"none exists":             head + vary + `,"variants":[0,0]}` + "\n",
		"negative":                head + vary + `,"variants":[` + size + ",-1]}\n" + part,
		"too long":                head + vary + `,"variants":[0,1000]}` + "\n" + part,
		"too short":               head + vary + `,"variants":[0,` + strconv.Itoa(len(part)-1) + "]}\n" + part,
		"more":                    head + vary + `,"variants":[` + size + ",0]}\n" + part + "x",
		"no fields":               head + `,"variants":[` + size + "]}\n" + part,
		"a field without a name":  head + `,"vary":[[]],"variants":[` + size + "]}\n" + part,
		"a field of one client":   head + `,"vary":[["Cookie","a"]],"variants":[` + size + "]}\n" + part,
		"no bytes":                head + `,"vary":[["X","ā"]],"variants":[` + size + "]}\n" + part,
		"with a status":           head + `,"status":200` + vary + `,"variants":[` + size + ",0]}\n" + part,
		"a tombstone":             head + `,"gone":true` + vary + `,"variants":[` + size + ",0]}\n" + part,
		"a variant that is gone":  head + vary + `,"variants":[45,0]}` + "\n" + `{"ticket":"00000000000000000000","gone":true}` + "\n",
		"a variant with a ticket": head + vary + `,"variants":[` + size + ",0]}\n" + strings.Replace(part, "00000000000000000000", ticket, 1),
	} {
		if e, err := message.ParseEntry(text); !errors.Is(err, message.ErrMalformed) || e != nil {
			t.Errorf("%s: %+v, %v; want ErrMalformed", name, e, err)
		}
	}
	nested := head + vary + `,"variants":[` + size + ",0]}\n" + part
	if _, err := message.ParseEntry(head + vary + `,"variants":[` + strconv.Itoa(len(nested)) + ",0]}\n" + nested); !errors.Is(err, message.ErrMalformed) {
		t.Errorf("a variant with variants: %v", err)
	}
}

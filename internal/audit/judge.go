package audit

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/itscales/scales/internal/coding"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/render"
)

// judge compares what the cache had with what the application answered.
func (o *observation) judge() Finding {
	stored, err := message.ParseEntry(o.status.Value)
	entry := o.status.Exists && (err != nil || !stored.Gone)
	f := Finding{Answer: o.answer.Value}
	if o.result.State == render.Failed {
		f.Answer = ""
	}
	if err == nil {
		f.Written = partition.Microseconds(stored.Ticket)
	}
	finding := func(kind Kind, format string, args ...any) Finding {
		f.Kind, f.Reason = kind, fmt.Sprintf(format, args...)
		return f
	}
	switch {
	case entry && err == nil && stored.PushOnly:
		return finding(Pushed, "")
	case o.result.State == render.Failed:
		return finding(Unrenderable, "%s", o.result.Reason)
	case o.result.State == render.Refused && entry:
		return finding(Orphaned, "the application's answer must not be stored: %s", o.result.Reason)
	case o.result.State == render.Refused:
		return finding(NotStorable, "%s", o.result.Reason)
	case o.result.State == render.Destroyed && (entry || o.status.Lost):
		return finding(Orphaned, "the application has no such resource")
	case o.result.State == render.Destroyed:
		return finding(Current, "")
	case o.status.Lost:
		return finding(Missing, "the entry was lost")
	case !entry:
		return finding(Missing, "there is no entry")
	case err != nil:
		return finding(Stale, "the entry cannot be decoded: %v", err)
	case !o.status.Indexed:
		return finding(Stale, "the entry is not in the index")
	}
	if difference := o.differs(stored); difference != "" {
		return finding(Stale, "%s", difference)
	}
	return finding(Current, "")
}

// differs says how an entry differs from what the application answered; "" if it does not.
func (o *observation) differs(stored *message.Entry) string {
	asked, err := message.ParseEntry(o.answer.Value)
	switch {
	case err != nil:
		return err.Error() // a render could not store it either
	case !reflect.DeepEqual(asked.Vary, stored.Vary):
		return fmt.Sprintf("variants by %v, the application has them by %v", stored.Vary, asked.Vary)
	case len(asked.Vary) == 0:
		if difference := differ(stored, asked); difference != "" {
			return difference
		}
	}
	for i := range asked.Variants {
		if difference := differ(stored.Variants[i], asked.Variants[i]); difference != "" {
			return difference + " (" + asked.Vary.String(i) + ")"
		}
	}
	switch {
	case !slices.Equal(slices.Sorted(slices.Values(o.answer.Groups)), slices.Sorted(slices.Values(o.status.Groups))):
		return fmt.Sprintf("it is in the groups %q, the application says %q", o.status.Groups, o.answer.Groups)
	case o.status.Listed != len(o.status.Groups):
		return fmt.Sprintf("%d of its groups %q have it among their members", o.status.Listed, o.status.Groups)
	}
	return ""
}

// differ says how a stored representation differs from the one that the application answers with; "" if it does not. Of
// variants either may be missing.
func differ(stored, asked *message.Entry) string {
	switch {
	case stored == nil && asked == nil:
		return ""
	case stored == nil:
		return "a variant is missing"
	case asked == nil:
		return "a variant that the application does not have"
	case asked.Status != stored.Status:
		return fmt.Sprintf("status %d, the application answers %d", stored.Status, asked.Status)
	case !bytes.Equal(asked.Body, stored.Body):
		return "the body differs"
	}
	for _, c := range stored.Codings {
		if plain, err := coding.Decode(c.Name, c.Body, len(stored.Body)); err != nil || !bytes.Equal(plain, stored.Body) {
			return "its coding " + c.Name + " is not that of the body"
		}
	}
	for name := range asked.Header {
		if !reflect.DeepEqual(asked.Header[name], stored.Header[name]) {
			return fmt.Sprintf("%s: %q, the application answers %q", name,
				strings.Join(stored.Header[name], ", "), strings.Join(asked.Header[name], ", "))
		}
	}
	for name := range stored.Header {
		if _, ok := asked.Header[name]; !ok {
			return fmt.Sprintf("%s: %q, which the application does not send", name, strings.Join(stored.Header[name], ", "))
		}
	}
	return ""
}

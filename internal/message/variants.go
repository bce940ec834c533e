package message

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/itscales/scales/internal/variant"
)

// appendVariants is AppendEntry for an entry with variants.
func appendVariants(dst []byte, e *Entry, ticket string) ([]byte, error) {
	start := len(dst)
	if e.Gone || e.PushOnly || e.Status != 0 || e.Refusal != "" || len(e.Header)+len(e.Body)+len(e.Codings) > 0 {
		return dst, fmt.Errorf("%w: an entry with variants and with what only a variant has", ErrInvalid)
	}
	if err := checkVary(e.Vary, len(e.Variants)); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var (
		bodies []byte
		sizes  = make([]int, len(e.Variants))
	)
	for i, v := range e.Variants {
		if v == nil {
			continue
		}
		if err := v.checkVariant(); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		before := len(bodies)
		var err error
		if bodies, err = AppendEntry(bodies, v); err != nil {
			return dst, err
		}
		sizes[i] = len(bodies) - before
	}
	if len(bodies) == 0 {
		return dst, fmt.Errorf("%w: none of its variants exists", ErrInvalid)
	}
	dst = slices.Grow(dst, len(bodies)+256)
	dst = append(dst, ticketMember...)
	dst = append(dst, ticket...)
	dst = append(dst, `","vary":[`...)
	for i, f := range e.Vary {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		dst = appendJSONString(dst, f.Name)
		for _, value := range f.Values {
			dst = appendJSONString(append(dst, ','), value)
		}
		dst = append(dst, ']')
	}
	dst = append(dst, `],"variants":[`...)
	for i, size := range sizes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(size), 10)
	}
	dst = append(appendOrigin(append(dst, ']'), e), "}\n"...)
	if len(dst)-start > MaxHead {
		return dst[:start], fmt.Errorf("%w: metadata of %d bytes, the limit is %d", ErrInvalid, len(dst)-start, MaxHead)
	}
	return append(dst, bodies...), nil
}

// checkVary checks what tells the variants apart, and how many they are.
func checkVary(fields variant.Fields, variants int) error {
	if err := fields.CheckForm(); err != nil {
		return err
	}
	if len(fields) == 0 || fields.Count() != variants {
		return fmt.Errorf("%d variants by fields that make %d", variants, fields.Count())
	}
	return nil
}

// checkVariant checks that an entry can be a variant.
func (e *Entry) checkVariant() error {
	if e.Gone || e.PushOnly || e.Job != "" || e.Why != "" || len(e.Vary) > 0 || e.Ticket != "" && e.Ticket != noTicket {
		return errors.New("a variant that is more than a representation")
	}
	return nil
}

// setVary reads the members vary and variants of decoded metadata.
func (e *Entry) setVary(vary [][]string, variants []int64) error {
	for _, f := range vary {
		if len(f) == 0 {
			return fmt.Errorf("%w: a field without a name in vary", ErrMalformed)
		}
		values := make([]string, len(f))
		for i, value := range f {
			var ok bool
			if values[i], ok = bytesOf(value); !ok {
				return fmt.Errorf("%w: vary has %q, which is not bytes", ErrMalformed, excerpt(value))
			}
		}
		e.Vary = append(e.Vary, variant.Field{Name: values[0], Values: values[1:]})
	}
	if err := checkVary(e.Vary, len(variants)); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// cutVariants cuts what follows the metadata into the variants of an entry.
func (e *Entry) cutVariants(sizes []int64, parts string) error {
	e.Variants = make([]*Entry, len(sizes))
	exists := false
	for i, size := range sizes {
		if size == 0 {
			continue
		}
		if size < 0 || size > int64(len(parts)) {
			return fmt.Errorf("%w: variant %d should have %d bytes, and %d are left", ErrMalformed, i, size, len(parts))
		}
		v, err := parseEntry(parts[:size], false)
		if err != nil {
			return fmt.Errorf("variant %d: %w", i, err)
		}
		if err := v.checkVariant(); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		v.Ticket = ""
		e.Variants[i], parts, exists = v, parts[size:], true
	}
	if len(parts) > 0 || !exists {
		return fmt.Errorf("%w: %d bytes follow the variants %v", ErrMalformed, len(parts), sizes)
	}
	return nil
}

package field

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/dunglas/httpsfv"
)

// What a Cache-Groups or Cache-Group-Invalidation field may name. RFC 9875
// asks for at least 32 groups of 32 characters.
const (
	MaxGroups      = 128
	MaxGroupLength = 128
)

// The fields of RFC 9875.
const (
	CacheGroups            = "Cache-Groups"
	CacheGroupInvalidation = "Cache-Group-Invalidation"
)

// Groups returns the groups that a field names, CacheGroups or
// CacheGroupInvalidation, sorted and each once. The field is a List of Strings
// (RFC 9875 §2, §3; RFC 9651 §3.1); parameters mean nothing. A field that is
// malformed, has members of another type, or is over the limits is ignored as a
// whole (RFC 9651 §4.2): the error says why, and there are no groups.
func Groups(h http.Header, name string) ([]string, error) {
	values := valuesOf(h, name)
	if len(values) == 0 {
		return nil, nil
	}
	list, err := httpsfv.UnmarshalList(values)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	if len(list) > MaxGroups {
		return nil, fmt.Errorf("%w: %s has %d members, at most %d count", ErrInvalid, name, len(list), MaxGroups)
	}
	groups := make([]string, len(list))
	for i, member := range list {
		item, _ := member.(httpsfv.Item)
		group, ok := item.Value.(string)
		if !ok {
			return nil, fmt.Errorf("%w: %s: member %d is not a String", ErrInvalid, name, i+1)
		}
		if err := ValidGroup(group); err != nil {
			return nil, fmt.Errorf("%w: %s: member %d: %w", ErrInvalid, name, i+1, err)
		}
		groups[i] = group
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// ValidGroup checks that a group can be named in a field: printable ASCII (RFC
// 9651 §3.3.3), within MaxGroupLength. The error wraps [ErrInvalid].
func ValidGroup(group string) error {
	if len(group) > MaxGroupLength {
		return fmt.Errorf("%w: a group of %d characters, at most %d count", ErrInvalid, len(group), MaxGroupLength)
	}
	for i := range len(group) {
		if b := group[i]; b < ' ' || b > '~' {
			return fmt.Errorf("%w: group %q has a character that is not printable ASCII", ErrInvalid, group)
		}
	}
	return nil
}

// FormatGroups returns the value of a field that names the groups. The error
// wraps [ErrInvalid]: a group is not valid.
func FormatGroups(groups ...string) (string, error) {
	list := make(httpsfv.List, len(groups))
	for i, group := range groups {
		if err := ValidGroup(group); err != nil {
			return "", err
		}
		list[i] = httpsfv.NewItem(group)
	}
	return httpsfv.Marshal(list)
}

package partition

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/itscales/scales/internal/canonical"
)

// A Reach says how far the change logs of partitions have come: the id of a record, by the number of the partition.
type Reach map[int]string

// Reach returns how far the change logs of the partitions of keys have come, of all partitions where none is named: as far as
// this process has been told by now. What it has committed, or has been told is committed, is not behind that.
func (s *Store) Reach(keys ...string) Reach {
	reach := make(Reach)
	add := func(p *Partition) {
		if _, id := p.memory.newest(); id != "" {
			reach[p.Number] = id
		}
	}
	for _, key := range keys {
		if number := canonical.Partition(key, len(s.partitions)); reach[number] == "" {
			add(s.partitions[number])
		}
	}
	if len(keys) == 0 {
		for _, p := range s.partitions {
			add(p)
		}
	}
	return reach
}

// String returns the reach as it is in replies: "0:1764000000000-0 3:1764000000001-2", "" if it is empty.
func (r Reach) String() string {
	var b strings.Builder
	for _, number := range slices.Sorted(maps.Keys(r)) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(number))
		b.WriteByte(':')
		b.WriteString(r[number])
	}
	return b.String()
}

// ParseReach reads what String has written. What is not that is left out.
func ParseReach(text string) Reach {
	reach := make(Reach)
	for place := range strings.FieldsSeq(text) {
		name, id, _ := strings.Cut(place, ":")
		if number, err := strconv.Atoi(name); err == nil && id != "" {
			reach[number] = id
		}
	}
	return reach
}

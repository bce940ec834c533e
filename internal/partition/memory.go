package partition

import (
	"sync"
	"time"

	"github.com/itscales/scales/internal/streamid"
)

// What a process remembers of its writes, for the case that Redis loses some: those of about the last second in a crash
// with appendfsync everysec, somewhat more in a failover.
const (
	maxRemembered = 20_000 // keys and groups
	rememberFor   = time.Minute
)

// A memory is what a process knows of the change log of a partition: a record that was there, and what it has written
// itself lately. It is safe for concurrent use.
type memory struct {
	mu          sync.Mutex
	incarnation string
	last        string // the highest id that was in the log; "" if none is known
	writes      []written
	size        int // of writes, in keys and groups
}

// written is a commit, or a change of groups, of this process: the last record in the log was at after it.
type written struct {
	at     string
	when   time.Time
	keys   []string
	groups []string
}

func (w *written) size() int { return 1 + len(w.keys) + len(w.groups) }

// newest returns the highest id that was in the log, and the incarnation at that time.
func (m *memory) newest() (incarnation, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.incarnation, m.last
}

// note takes note of the last id of the log. afresh says that the log has lost what was known before.
func (m *memory) note(incarnation, id string, afresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(incarnation, id)
	if afresh {
		m.last, m.writes, m.size = id, nil, 0
	}
}

// learn takes note of an id. The caller holds mu. Of another incarnation it cannot say whether it is the later one, but
// for a process that comes with the wrong one nothing is lost.
func (m *memory) learn(incarnation, id string) {
	if m.incarnation != incarnation {
		m.incarnation, m.last, m.writes, m.size = incarnation, "", nil, 0
	}
	if id != "" && id != "0-0" && streamid.Less(m.last, id) {
		m.last = id
	}
}

// write takes note of what this process has written, after which the last id of the log was this one.
func (m *memory) write(incarnation, id string, w written) {
	w.at, w.when = id, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(incarnation, id)
	m.writes = append(m.writes, w)
	m.size += w.size()
	for len(m.writes) > 1 && (m.size > maxRemembered || w.when.Sub(m.writes[0].when) > rememberFor) {
		m.size -= m.writes[0].size()
		m.writes[0] = written{}
		m.writes = m.writes[1:]
	}
}

// after returns the keys and groups that this process has written behind a place in the log, each once. What left no
// record of its own may have been written there, too.
func (m *memory) after(id string) (keys, groups []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen, seenGroups := make(map[string]bool), make(map[string]bool)
	for _, w := range m.writes {
		if streamid.Less(w.at, id) {
			continue
		}
		keys = appendNew(keys, seen, w.keys)
		groups = appendNew(groups, seenGroups, w.groups)
	}
	return keys, groups
}

// appendNew appends the names that were not seen.
func appendNew(names []string, seen map[string]bool, more []string) []string {
	for _, name := range more {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

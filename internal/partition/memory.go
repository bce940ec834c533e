package partition

import (
	"sync"

	"github.com/itscales/scales/internal/streamid"
)

// maxRemembered is how many commits a process remembers, for the case that Redis loses some: those of about the last
// second in a crash with appendfsync everysec, somewhat more in a failover.
const maxRemembered = 4096

// A memory is what a process knows of the change log of a partition: a record that was there, and what it has written
// itself lately. It is safe for concurrent use.
type memory struct {
	mu          sync.Mutex
	incarnation string
	last        string // the highest id that was in the log; "" if none is known
	writes      []written
}

// written is a commit of this process: its last record in the log is at.
type written struct {
	at   string
	keys []string
}

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
		m.last, m.writes = id, nil
	}
}

// learn takes note of an id. The caller holds mu. Of another incarnation it cannot say whether it is the later one, but
// for a process that comes with the wrong one nothing is lost.
func (m *memory) learn(incarnation, id string) {
	if m.incarnation != incarnation {
		m.incarnation, m.last, m.writes = incarnation, "", nil
	}
	if id != "" && id != "0-0" && streamid.Less(m.last, id) {
		m.last = id
	}
}

// write takes note of commits of this process, after which the last id of the log was this one.
func (m *memory) write(incarnation, id string, groups [][]Operation) {
	w := written{at: id}
	for _, group := range groups {
		for _, op := range group {
			w.keys = append(w.keys, op.Key)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(incarnation, id)
	if len(m.writes) == maxRemembered {
		m.writes = append(m.writes[:0], m.writes[maxRemembered/2:]...)
	}
	m.writes = append(m.writes, w)
}

// after returns the keys that this process has written behind a place in the log, each once.
func (m *memory) after(id string) (keys []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[string]bool)
	for _, w := range m.writes {
		if !streamid.Less(id, w.at) {
			continue
		}
		for _, key := range w.keys {
			if !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys
}

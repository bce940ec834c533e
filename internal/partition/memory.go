package partition

import (
	"slices"
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

// maxTrail is how many ids of the log a process has looked for at once.
const maxTrail = 128

// A memory is what a process knows of the change log of a partition: a record that was there, and what it has written
// itself lately. It is safe for concurrent use.
type memory struct {
	mu          sync.Mutex
	incarnation string
	last        string // the highest id that was in the log; "" if none is known

	// trail are ids that were in the log, ascending: the last one that nextScript has confirmed, and some that were learnt
	// since, every one of stride. The highest alone would not do:
	//
	//	we: commit; the last record is 7-0
	//	Redis: crashes, and comes back with 5-0 as the last record
	//	we: commit; the last record is 9-0. That is in the log, and nobody asks for 7-0
	trail          []string
	stride, passed int

	writes []written
	size   int // of writes, in keys and groups
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

// known returns ids that were in the log, ascending, and the incarnation at that time.
func (m *memory) known() (incarnation string, ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids = slices.Clone(m.trail)
	if m.last != "" && (len(ids) == 0 || ids[len(ids)-1] != m.last) {
		ids = append(ids, m.last)
	}
	return m.incarnation, ids
}

// note takes note of the last id of the log.
func (m *memory) note(incarnation, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(incarnation, id)
}

// confirm takes note of an answer that has looked for ids: those that are not in the log were trimmed, unless afresh says that
// the log has lost what was known before.
func (m *memory) confirm(incarnation, id string, ids []string, afresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(incarnation, id)
	switch {
	case afresh:
		m.last, m.writes, m.size = id, nil, 0
		m.forget()
	case m.incarnation == incarnation && len(ids) > 0:
		last := ids[len(ids)-1] // it may be lost yet
		since := slices.DeleteFunc(m.trail, func(one string) bool { return !streamid.Less(last, one) })
		m.trail, m.stride, m.passed = slices.Insert(since, 0, last), 1, 0
	}
}

// forget forgets the trail. The caller holds mu.
func (m *memory) forget() { m.trail, m.stride, m.passed = nil, 1, 0 }

// learn takes note of an id. The caller holds mu. Of another incarnation it cannot say whether it is the later one, but
// for a process that comes with the wrong one nothing is lost.
func (m *memory) learn(incarnation, id string) {
	if m.incarnation != incarnation {
		m.incarnation, m.last, m.writes, m.size = incarnation, "", nil, 0
		m.forget()
	}
	if id != "" && id != "0-0" && streamid.Less(m.last, id) {
		m.last = id
		m.follow(id)
	}
}

// follow adds an id to the trail. A long trail has gaps, all of the same number of ids: what is lost between two of them is
// not noticed, but Redis is never back as fast. The caller holds mu.
func (m *memory) follow(id string) {
	if m.passed++; m.passed < m.stride {
		return
	}
	m.passed = 0
	if len(m.trail) >= maxTrail {
		for i := range maxTrail / 2 {
			m.trail[i] = m.trail[2*i]
		}
		m.trail, m.stride = m.trail[:maxTrail/2], 2*max(m.stride, 1)
	}
	m.trail = append(m.trail, id)
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

// Package localcopy keeps a copy of entries in the memory of a process, current by the change log of each partition.
//
// What the copy has is never older than what its log has said. There are three ways to break that, and for each a rule:
//
//   - An entry is fetched, it changes, the log says so, and only then the answer of the fetch arrives. So a fetch is known
//     before it is sent, and one whose key has changed meanwhile is not kept. (Part.Fetch)
//   - The log has lost records: it was trimmed, flushed or rolled back. Each record names the one before it, so that shows,
//     and nothing is kept from before. (partition.Follow, Part.Lost) Records that were lost before they were read show in
//     no other way than that a fetch has seen them; so what is fetched is kept when the record has been read that was the
//     last one at that time. (Part.hasRead)
//   - A replica is behind the log that was read. So a fetch says up to where the log was read before it was sent, and who
//     answers from a place before that has not answered. (Part.Fetch)
package localcopy

import (
	"sync/atomic"
)

// tables is how many tables a copy has at least, so that those who change it seldom wait for each other.
const tables = 64

// overhead is what an item needs besides its key and value, in bytes: the item, its slot in a table that is between three
// and six eighths full, and what the allocator rounds up.
const overhead = 88

// A Copy has entries of all partitions, within one limit of memory. It is safe for concurrent use.
type Copy[V any] struct {
	limit  int64
	used   atomic.Int64
	early  atomic.Int64 // of that, what is held for flights that have landed early
	parts  []*Part[V]
	all    []*table[V]
	hand   atomic.Uint32 // counts the tables that something was to be evicted from
	guards Guards
}

// Guards switches single safeguards off. Only tests do that, to see the violation that the safeguard prevents.
type Guards struct {
	// NoRaceCheck keeps what was fetched although its key has changed meanwhile.
	NoRaceCheck bool

	// NoReplicaCheck lets a fetch bring what is older than the log that was read.
	NoReplicaCheck bool

	// NoRecordCheck keeps what was fetched although the log that is followed may never have said so.
	NoRecordCheck bool
}

// New returns an empty copy of a cache with so many partitions, which holds up to limit bytes.
func New[V any](partitions int, limit int64, guards Guards) *Copy[V] {
	c := &Copy[V]{limit: limit, guards: guards}
	each := 1
	for each*partitions < tables {
		each *= 2
	}
	for range partitions {
		p := newPart(c, each)
		c.parts = append(c.parts, p)
		for i := range p.tables {
			c.all = append(c.all, &p.tables[i])
		}
	}
	return c
}

// Part returns the part of the copy that belongs to a partition.
func (c *Copy[V]) Part(number int) *Part[V] { return c.parts[number] }

// Used returns how many bytes the copy holds, about.
func (c *Copy[V]) Used() int64 { return c.used.Load() }

// Limit returns how many bytes the copy may hold.
func (c *Copy[V]) Limit() int64 { return c.limit }

// Len returns how many entries the copy has.
func (c *Copy[V]) Len() (n int) {
	for _, t := range c.all {
		t.mu.Lock()
		n += t.live
		t.mu.Unlock()
	}
	return n
}

// Close empties the copy for good. Fetches still get what they are asked for.
func (c *Copy[V]) Close() {
	for _, p := range c.parts {
		p.close()
	}
}

// reserve counts bytes that are held beside the tables. They may be a sixteenth of the limit: nobody can evict them.
func (c *Copy[V]) reserve(size int) bool {
	if c.early.Add(int64(size)) > c.limit/16 {
		c.early.Add(-int64(size))
		return false
	}
	c.used.Add(int64(size))
	return true
}

// release takes back what reserve has counted.
func (c *Copy[V]) release(size int) {
	c.early.Add(-int64(size))
	c.used.Add(-int64(size))
}

// makeRoom evicts until the copy is within its limit.
func (c *Copy[V]) makeRoom() {
	for empty := 0; c.used.Load() > c.limit && empty < len(c.all); {
		t := c.all[c.hand.Add(1)%uint32(len(c.all))]
		t.mu.Lock()
		it := t.evict()
		t.mu.Unlock()
		if it == nil {
			empty++
			continue
		}
		empty = 0
		c.used.Add(-int64(it.size))
	}
}

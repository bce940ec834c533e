package step

import (
	"errors"
	"fmt"
	"sync"

	"github.com/itscales/scales/internal/partition"
)

// What one job may name and push.
const (
	MaxChanges = 10_000   // keys and groups
	MaxBytes   = 64 << 20 // of pushed entries
)

// What a buffer refuses.
var (
	ErrFinished = errors.New("the handler has returned")
	ErrTooMany  = fmt.Errorf("a job names more than %d keys and groups", MaxChanges)
	ErrTooLarge = fmt.Errorf("a job pushes more than %d bytes", MaxBytes)
)

// A Buffer collects what a handler wants changed until it returns. It is safe for concurrent use.
type Buffer struct {
	mu       sync.Mutex
	finished bool
	updates  []string
	groups   []string
	writes   []partition.Operation
	bytes    int            // pushed so far, replaced ones too
	at       map[string]int // index in writes by key
}

// Update adds keys to be rendered.
func (b *Buffer) Update(keys ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(len(keys)); err != nil {
		return err
	}
	b.updates = append(b.updates, keys...)
	return nil
}

// UpdateGroups adds groups whose members are to be rendered.
func (b *Buffer) UpdateGroups(groups ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(len(groups)); err != nil {
		return err
	}
	b.groups = append(b.groups, groups...)
	return nil
}

// Write adds changes; a later one to the same key replaces an earlier one.
func (b *Buffer) Write(operations ...partition.Operation) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(len(operations)); err != nil {
		return err
	}
	for _, op := range operations {
		b.bytes += len(op.Value)
	}
	if b.bytes > MaxBytes {
		for _, op := range operations {
			b.bytes -= len(op.Value)
		}
		return ErrTooLarge
	}
	if b.at == nil {
		b.at = make(map[string]int)
	}
	for _, op := range operations {
		if i, ok := b.at[op.Key]; ok {
			b.writes[i] = op
			continue
		}
		b.at[op.Key] = len(b.writes)
		b.writes = append(b.writes, op)
	}
	return nil
}

func (b *Buffer) room(n int) error {
	if b.finished {
		return ErrFinished
	}
	if len(b.updates)+len(b.groups)+len(b.writes)+n > MaxChanges {
		return ErrTooMany
	}
	return nil
}

// Finished reports whether the buffer takes nothing any more.
func (b *Buffer) Finished() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.finished
}

// Take ends the buffer and returns what it holds.
func (b *Buffer) Take() (updates, groups []string, writes []partition.Operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	return b.updates, b.groups, b.writes
}

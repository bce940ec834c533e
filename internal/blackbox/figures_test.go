package blackbox_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// figures are what a load has measured.
type figures struct {
	mu    sync.Mutex
	kinds map[string]*measured
	began time.Time
	took  time.Duration
}

// measured is about the requests of one kind.
type measured struct {
	statuses map[int]int
	times    []time.Duration
}

func newFigures() *figures { return &figures{kinds: map[string]*measured{}} }

func (f *figures) add(kind string, status int, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.kinds[kind]
	if m == nil {
		m = &measured{statuses: map[int]int{}}
		f.kinds[kind] = m
	}
	m.statuses[status]++
	m.times = append(m.times, took)
}

// report logs the counts, rates and times of a run.
func (l *load) report(t *testing.T) {
	t.Helper()
	built := ""
	if *raceBuild {
		built = ", processes with the race detector"
	}
	t.Logf("%.1f s, %d clients, %d servers, %d workers%s\n%s",
		l.figures.took.Seconds(), loadClients, len(l.site.servers), len(l.site.workers), built, l.figures.table())
}

// table lists the counts, rates and times of the requests of each kind, and of all writes.
func (f *figures) table() string {
	var text strings.Builder
	written := 0
	for _, kind := range slices.Sorted(maps.Keys(f.kinds)) {
		m := f.kinds[kind]
		slices.Sort(m.times)
		if kind != "GET" {
			written += len(m.times)
		}
		fmt.Fprintf(&text, "%-8s %7d requests %8.1f /s   p50 %v, p99 %v, longest %v  ",
			kind, len(m.times), float64(len(m.times))/f.took.Seconds(), m.quantile(50), m.quantile(99), m.quantile(100))
		for _, status := range slices.Sorted(maps.Keys(m.statuses)) {
			fmt.Fprintf(&text, " %d: %d", status, m.statuses[status])
		}
		text.WriteByte('\n')
	}
	fmt.Fprintf(&text, "%-8s %7d requests %8.1f /s", "writes", written, float64(written)/f.took.Seconds())
	return text.String()
}

// quantile returns the time that that many per cent of the requests did not exceed. The times are sorted.
func (m *measured) quantile(percent int) time.Duration {
	at := (len(m.times)*percent+99)/100 - 1
	return m.times[max(at, 0)].Round(100 * time.Microsecond)
}

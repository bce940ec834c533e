package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// benchMemory says what an entry needs beyond its key and its value, in Redis and in a local copy.
func benchMemory(ctx context.Context, s settings) error {
	server, err := redistest.Launch() // its memory is measured, so nobody else uses it
	if err != nil {
		return fmt.Errorf("start a redis-server: %w", err)
	}
	defer server.Stop()
	url := "redis://" + server.Addr()
	version, err := versionOf(ctx, url)
	if err != nil {
		return err
	}
	rdb, err := clientWith(url, 1) // what Redis keeps for connections is not what is measured
	if err != nil {
		return err
	}
	defer rdb.Close()
	m := &memory{settings: s, rdb: rdb, url: url, namespace: "bench"}
	fmt.Fprintf(s.out, "memory: %d entries with a body of %d bytes, no codings, each in one group, %d in each group; %s, %s\n\n",
		s.entries, entryBody, groupShare, version, runtime.Version())
	for _, step := range []func(context.Context) error{m.inRedis, m.inCopy, m.parts, m.plain} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.out, "\nfigure memory_redis_overhead %.0f (goal at most 600)\n", m.overhead)
	fmt.Fprintf(s.out, "figure memory_local_overhead %.0f (goal at most 250)\n", m.copied)
	fmt.Fprintf(s.out, "figure memory_local_overhead_beyond_body %.0f\n", m.beyondBody)
	return nil
}

type memory struct {
	settings
	rdb       *redis.Client
	url       string
	namespace string

	value      string  // of one entry; all have the same length
	overhead   float64 // bytes for each entry beyond its key and its value, in Redis
	copied     float64 // the same in a local copy
	beyondBody float64 // in a local copy, beyond key and body: it has the metadata in another form
}

// used returns how much memory Redis has allocated.
func (m *memory) used(ctx context.Context) (float64, error) {
	info, err := m.rdb.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(info["Memory"]["used_memory"], 64)
}

// each returns how many bytes that is for each entry.
func (m *memory) each(bytes float64) float64 { return bytes / float64(m.entries) }

// grown returns by how many bytes for each entry Redis has grown while do ran.
func (m *memory) grown(ctx context.Context, do func() error) (float64, error) {
	before, err := m.used(ctx)
	if err == nil {
		err = do()
	}
	if err != nil {
		return 0, err
	}
	after, err := m.used(ctx)
	return m.each(after - before), err
}

// content is the length of a key and of a value: the line of metadata and the body.
func (m *memory) content() float64 { return float64(len(entryKey(0)) + len(m.value)) }

// inRedis stores all entries. The first is filled as an application would fill it: the others have to be like it.
func (m *memory) inRedis(ctx context.Context) error {
	writer, err := clientOf(m.url)
	if err != nil {
		return err
	}
	defer writer.Close()
	if _, err := fillEntries(ctx, writer, m.namespace, 1); err != nil {
		return err
	}
	filled, err := m.rdb.Get(ctx, entryName(m.namespace, 0)).Result()
	if err != nil {
		return err
	}
	began := time.Now()
	grown, err := m.grown(ctx, func() error {
		if err := storeEntries(ctx, writer, m.namespace, m.entries); err != nil {
			return err
		}
		return writer.Close()
	})
	took := time.Since(began)
	if err != nil {
		return err
	}
	for _, i := range []int{0, m.entries - 1} {
		if m.value, err = m.rdb.Get(ctx, entryName(m.namespace, i)).Result(); err != nil {
			return err
		}
		if len(m.value) != len(filled) || i == 0 && withoutTicket(m.value) != withoutTicket(filled) {
			return fmt.Errorf("stored was %q, filled %q", m.value, filled)
		}
	}
	m.overhead = grown - m.content()
	fmt.Fprintf(m.out, "in Redis   %7.1f bytes for each entry: key %d, metadata %d, body %d, and %.1f besides; stored in %.1f s\n",
		grown, len(entryKey(0)), len(m.value)-entryBody, entryBody, m.overhead, took.Seconds())
	return nil
}

func withoutTicket(value string) string { return value[message.TicketOffset+message.TicketWidth:] }

// inCopy has a process of its own keep a copy of everything.
func (m *memory) inCopy(ctx context.Context) error {
	o := readOrder{Kind: oursCopied, Redis: m.url, Namespace: m.namespace, Limit: 64<<20 + 4*int64(m.entries)*entryBody}
	c, err := startChild(ctx, holderArgument, o)
	if err != nil {
		return err
	}
	var h holding
	err = c.replies.Decode(&h)
	if err = errors.Join(err, c.close()); err != nil {
		return fmt.Errorf("memory of a copy: %w", err)
	}
	grown := m.each(h.After - h.Before)
	if grown < entryBody {
		return fmt.Errorf("the copy has %.0f bytes for each entry: some are missing", grown)
	}
	m.copied, m.beyondBody = grown-m.content(), grown-float64(len(entryKey(0))+entryBody)
	fmt.Fprintf(m.out, "in a copy  %7.1f bytes for each entry: key %d, metadata %d, body %d, and %.1f besides; the metadata is there in another form\n",
		grown, len(entryKey(0)), len(m.value)-entryBody, entryBody, m.copied)
	fmt.Fprintf(m.out, "           the process has %.0f MiB of heap in use, and %.0f MiB from the system; warm after %.1f s\n",
		h.After/(1<<20), h.System/(1<<20), h.Seconds)
	return nil
}

// parts removes what is there besides the entries, and says how much memory each has held.
func (m *memory) parts(ctx context.Context) error {
	prefix := partition.Prefix(m.namespace, 0)
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"index", []string{"index"}}, {"groups", []string{"groups", "memberships"}}, {"log", []string{"log"}},
		{"the rest", []string{"meta", "pending", "running", "claims", "failing", "wanted", "marks", "walks"}},
	} {
		names := make([]string, len(part.names))
		for i, name := range part.names {
			names[i] = prefix + name
		}
		grown, err := m.grown(ctx, func() error { return m.rdb.Del(ctx, names...).Err() })
		if err != nil {
			return err
		}
		fmt.Fprintf(m.out, "  %-9s %6.1f  (%s)\n", part.what, -grown, strings.Join(part.names, ", "))
	}
	return nil
}

// plain stores the same values under the same names, and nothing else.
func (m *memory) plain(ctx context.Context) error {
	if err := m.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	grown, err := m.grown(ctx, func() error {
		name := func(i int) string { return entryName(m.namespace, i) }
		return setPlain(ctx, m.rdb, m.entries, 1, name, m.value)
	})
	if err != nil {
		return err
	}
	floor := grown - m.content()
	fmt.Fprintf(m.out, "  SET       %6.1f  of the same names and values in the same Redis: names have %d bytes before the key\n",
		floor, len(entryName(m.namespace, 0))-len(entryKey(0)))
	fmt.Fprintf(m.out, "  %.1f bytes for each entry are ours\n", m.overhead-floor)
	return nil
}

// holderArgument is the only argument of a process that says how large its copy is.
const holderArgument = "holder"

// A holding is how many bytes of heap a process had in use before it had a copy, and after that.
type holding struct {
	Before, After float64
	System        float64 // bytes that it has from the system
	Seconds       float64 // until it had the copy
}

// runHolder is a process that says how large its copy is.
func runHolder(ctx context.Context, in io.Reader, out io.Writer) error {
	var o readOrder
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("the order of a holding process: %w", err)
	}
	var h holding
	h.Before, _ = heap()
	began := time.Now()
	handler, end, err := o.handler(ctx)
	if err != nil {
		return err
	}
	defer end()
	h.Seconds = time.Since(began).Seconds()
	h.After, h.System = heap()
	runtime.KeepAlive(handler)
	return json.NewEncoder(out).Encode(h)
}

// heap returns how many bytes of heap are in use after a collection, and how many the system has given.
func heap() (used, system float64) {
	runtime.GC()
	runtime.GC() // what pools held has gone
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapInuse), float64(stats.Sys - stats.HeapReleased)
}

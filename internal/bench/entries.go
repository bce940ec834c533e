package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/message"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/representation"
)

// The entries of memory and fill: all of the same length, each in one group, which a hundred are in.
const (
	entryBody  = 1 << 10
	groupShare = 100
)

func entryKey(i int) string { return fmt.Sprintf("/p/%07d", i) }

func entryKeys(n int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range n {
			if !yield(entryKey(i), nil) {
				return
			}
		}
	}
}

// trivial is an application that answers at once.
func trivial() http.Handler {
	body := trivialBody()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", trivialType)
		h.Set("Cache-Groups", `"`+entryGroup(r.URL.Path)+`"`)
		_, _ = w.Write(body)
	})
}

const trivialType = "text/html; charset=utf-8"

func trivialBody() []byte {
	const line = "<p>Nina Simone</p>\n"
	return []byte(strings.Repeat(line, entryBody/len(line)+1)[:entryBody])
}

// entryGroup returns the group of a key: the number in it, divided by a hundred.
func entryGroup(key string) string { return "artist-" + key[len("/p/"):len("/p/")+5] }

// storeEntries stores what fillEntries does, byte for byte but for tickets, a thousand entries in one step of Redis.
func storeEntries(ctx context.Context, rdb *redis.Client, namespace string, n int) error {
	const together = 1000
	store := newStore(rdb, namespace)
	defer store.Close()
	p, body := store.All()[0], trivialBody()
	for from := 0; from < n; from += together {
		position, err := p.Ticket(ctx)
		if err != nil {
			return err
		}
		var operations []partition.Operation
		for i := from; i < min(from+together, n); i++ {
			key := entryKey(i)
			group := entryGroup(key)
			entry := message.Entry{
				Status: http.StatusOK, Header: http.Header{"Content-Type": {trivialType}, "Cache-Groups": {`"` + group + `"`}},
				Body: body, Why: "fill",
			}
			representation.Complete(&entry, nil)
			value, err := message.AppendEntry(nil, &entry)
			if err != nil {
				return err
			}
			operations = append(operations, partition.Operation{
				Kind: partition.OpStore, Key: key, Position: position, Value: string(value), Groups: []string{group},
			})
		}
		commit, err := p.Commit(ctx, operations)
		if err != nil {
			return err
		}
		for i, outcome := range commit.Outcomes {
			if outcome != partition.Stored {
				return fmt.Errorf("%s was %s", operations[i].Key, outcome)
			}
		}
	}
	return nil
}

// newStore returns the one partition of a cache, with the defaults of the library.
func newStore(rdb *redis.Client, namespace string) *partition.Store {
	return partition.New(partition.Config{
		Client: rdb, Namespace: namespace, Partitions: 1, TombstoneLife: 10 * time.Minute, ClaimLease: 5 * time.Second,
		LogLength: 100_000, MaxEntries: 10_000_000, Timeout: time.Second,
	})
}

// fillEntries has a worker of its own, with the defaults, render n entries of the trivial application.
func fillEntries(ctx context.Context, rdb *redis.Client, namespace string, n int) (took time.Duration, err error) {
	cache, err := scales.NewCache(rdb, scales.Namespace(namespace), scales.Codings())
	if err != nil {
		return 0, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, cache.Close(ending))
	}()
	worker, err := scales.NewWorker(cache, trivial())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	report, err := worker.Fill(ctx, entryKeys(n))
	if err == nil && report.Stored != n {
		err = fmt.Errorf("a fill of %d entries has stored %d", n, report.Stored)
	}
	return time.Since(began), err
}

// entryName is the name of an entry in Redis.
func entryName(namespace string, i int) string {
	return partition.Prefix(namespace, 0) + "e:" + entryKey(i)
}

// setPlain stores n values under names of their own, through so many connections, each of which sends a thousand at once.
func setPlain(ctx context.Context, rdb *redis.Client, n, connections int, name func(i int) string, value string) error {
	const together = 1000
	var group sync.WaitGroup
	problems := make([]error, connections)
	for c := range connections {
		group.Go(func() {
			for from := c * together; from < n && problems[c] == nil; from += connections * together {
				_, problems[c] = rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
					for i := from; i < min(from+together, n); i++ {
						pipe.Set(ctx, name(i), value, 0)
					}
					return nil
				})
			}
		})
	}
	group.Wait()
	return errors.Join(problems...)
}

// Package jobqueue carries jobs from servers to workers and replies back, over Redis streams.
//
// A Producer is a server's end, a Consumer a worker's. A job is a record in one stream with a consumer group; its owner
// is the consumer that the group names, and every step the owner takes is checked against that in the script. Replies go
// to a stream of the server that waits. Calls of one kind share round trips (package batch).
package jobqueue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/outage"
)

// What became of a job that has no reply.
var (
	// ErrUnavailable means that Redis could not be asked; nothing was enqueued.
	ErrUnavailable = errors.New("the queue cannot be reached")
	// ErrNoWorker means that no worker is alive; nothing was enqueued.
	ErrNoWorker = errors.New("no worker is alive")
	// ErrFull means that the queue is full; nothing was enqueued.
	ErrFull = errors.New("the queue is full")
	// ErrBusy means that as many jobs wait as can surely be finished in time; nothing was enqueued.
	ErrBusy = errors.New("no worker would be in time")
	// ErrOrderFull means that as many jobs of its order wait as may; nothing was enqueued.
	ErrOrderFull = errors.New("too many jobs of its order wait")
	// ErrWithdrawn means that no worker had begun the job at its deadline, and none ever will.
	ErrWithdrawn = errors.New("the job was withdrawn before a worker took it")
	// ErrUnknown means that the job may have run, may run, or may be lost.
	ErrUnknown = errors.New("the outcome of the job is not known")
	// ErrRunning means that a worker had the job at its deadline.
	ErrRunning = errors.New("the job was running at its deadline")
	// ErrClosed means that the producer was closed; nothing was enqueued.
	ErrClosed = errors.New("the queue was closed")
)

// Config shapes both ends. Every field but Guards is required.
type Config struct {
	Client    redis.UniversalClient
	Prefix    string // of all keys; holds the hash tag of the queue's slot
	Meta      string // name of the meta hash in that slot
	Timeout   time.Duration
	MaxQueue  int           // producers: the longest queue
	MaxKept   Limit         // producers: of tracked jobs; none may be tracked where it is zero
	MaxDead   int           // consumers: how many dead letters are kept
	Retention time.Duration // consumers: how long replies that nobody reads are kept
	Logger    *slog.Logger
	Reading   *outage.Log // producers: of calls to Redis
	Writing   *outage.Log // producers
	Guards    Guards
}

// A Job is one request on its way to a worker.
type Job struct {
	ID       string
	Scheme   string
	Remote   string
	Request  string // the encoded request, see package message
	Deadline int64  // in µs of Redis's clock; set by the producer
	Tracking Tracking
	Order    string // of all jobs with the same, one runs after the other; at most 64 characters other than ":{}/" and blanks; "" for none

	most int64 // how many may be in the queue before it; set by the producer
}

// A Reply is the answer to a job. In Redis it is a line with Log, then Text.
type Reply struct {
	Log  string // how far the change logs have come that the job has written to, see partition.Reach; "" if it has written nothing
	Text string // the encoded response, see package message

	// Job is whose reply this is: that of the caller, or one of the same scope. Stored means that it was there before it was asked for.
	Job    string
	Stored bool
}

func (r Reply) record() string { return r.Log + "\n" + r.Text }

// parseReply reads the record of a reply. One without a line of its own has no text, which is no response.
func parseReply(record string) Reply {
	log, text, _ := strings.Cut(record, "\n")
	return Reply{Log: log, Text: text}
}

type keys struct {
	jobs, held, owed, dead, replayed, statistics, samples, workers, left, servers, withdrawn, replies, seen string
	tracked, scopes, kept, lives, waiters, lanes                                                            string
}

func newKeys(prefix string) keys {
	q := prefix + "q:"
	return keys{
		jobs: q + "jobs", held: q + "held", owed: q + "owed", dead: q + "dead", replayed: q + "replayed", statistics: q + "statistics",
		samples: q + "samples", workers: q + "workers", left: q + "left", servers: q + "servers", withdrawn: q + "withdrawn", replies: q + "replies:", seen: q + "seen:",
		tracked: q + "tracked", scopes: q + "scopes", kept: q + "kept", lives: q + "lives", waiters: q + "waiters", lanes: q + "lanes",
	}
}

// NewID returns an identifier that cannot be guessed: 32 hexadecimal digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func number(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}

// run calls a script that replies with a list.
func run(ctx context.Context, client redis.UniversalClient, script *redis.Script, keys []string, args []any) ([]any, error) {
	reply, err := script.Run(ctx, client, keys, args...).Result()
	if err != nil {
		return nil, err
	}
	if list, ok := reply.([]any); ok {
		return list, nil
	}
	return []any{reply}, nil
}

func expect(reply []any, n int, script string) error {
	if len(reply) != n {
		return fmt.Errorf("%s script: %d values, not %d", script, len(reply), n)
	}
	return nil
}

// Span returns the ids of the oldest and the newest job in the queue, "" if there is none.
func Span(ctx context.Context, client redis.UniversalClient, prefix string) (oldest, newest string, err error) {
	return span(ctx, client, newKeys(prefix).jobs)
}

// span returns the ids of the oldest and the newest entry of a stream, "" if there is none.
func span(ctx context.Context, client redis.UniversalClient, stream string) (oldest, newest string, err error) {
	reply, err := run(ctx, client, spanOfStream, []string{stream}, nil)
	if err != nil {
		return "", "", err
	}
	if err := expect(reply, 2, "span"); err != nil {
		return "", "", err
	}
	return text(reply[0]), text(reply[1]), nil
}

// spanOfStream returns the ids of the oldest and the newest entry, without their content, which may be large.
//
//	KEYS[1] the stream
var spanOfStream = redis.NewScript(`
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {first and first[1] or '', last and last[1] or ''}
`)

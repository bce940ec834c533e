package partition

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/streamid"
)

const (
	followBlock = 500 * time.Millisecond
	followCount = 1000
	followRetry = 100 * time.Millisecond
)

// A Follower is told what the change log of a partition says. Its methods are called one after another.
type Follower interface {
	// Begin says that the log is followed from an id on. What was known before is void.
	Begin(id string)

	// Changed says which records were read, and which entries have changed by them. There is at least one record.
	Changed(keys, ids []string)

	// Answered says that Redis has answered; end, that there is nothing in the log that was not read.
	Answered(end bool)

	// Lost says that the log does not go on where it was read: it was trimmed, flushed, or taken back to an earlier state.
	Lost()
}

// Follow follows the change log until ctx ends, however often Redis is away. It needs a connection for itself.
//
// Each record names the one before it. Where that is not the one that was read last, something is missing between them.
// Where nothing comes for a while, the last record of the log has to be the one that was read.
func (p *Partition) Follow(ctx context.Context, follower Follower) {
	at := ""
	for ctx.Err() == nil {
		next, err := p.follow(ctx, follower, at)
		if err == nil {
			at = next
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(followRetry):
		}
	}
}

// follow reads a piece of the log behind at, "" if it is to be begun. It returns the id up to which the log was read, "" if it
// does not go on there.
func (p *Partition) follow(ctx context.Context, follower Follower, at string) (next string, err error) {
	if at == "" {
		end, err := p.end(ctx)
		if err != nil {
			return "", err
		}
		follower.Begin(end)
		return end, nil
	}
	records, err := p.readLog(ctx, at)
	if err != nil {
		return "", err
	}
	if len(records) == 0 {
		end, err := p.end(ctx)
		switch {
		case err != nil:
			return "", err
		case streamid.Less(end, at):
			follower.Lost()
			return "", nil
		}
		follower.Answered(end == at)
		return at, nil
	}
	keys, ids := make([]string, 0, len(records)), make([]string, 0, len(records))
	for _, record := range records {
		if text(record.Values["prev"]) != at && !p.store.config.Guards.NoPredecessors {
			follower.Lost()
			return "", nil
		}
		at = record.ID
		ids = append(ids, at)
		switch text(record.Values["op"]) {
		case "store", "destroy":
			keys = append(keys, text(record.Values["key"]))
		}
	}
	follower.Changed(keys, ids)
	follower.Answered(len(records) < followCount)
	return at, nil
}

// readLog waits for records behind at, and returns none if there are none for a while.
func (p *Partition) readLog(ctx context.Context, at string) ([]redis.XMessage, error) {
	// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
	ctx, cancel := context.WithTimeout(ctx, followBlock+p.store.config.Timeout)
	defer cancel()
	streams, err := p.store.config.Client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{p.names.log, at}, Count: followCount, Block: followBlock,
	}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

// end returns the id of the last record of the log, "0-0" if there is none.
func (p *Partition) end(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.store.config.Timeout)
	defer cancel()
	last, err := p.store.config.Client.XRevRangeN(ctx, p.names.log, "+", "-", 1).Result()
	return endOf(last), err
}

// endOf returns the id of the last record of a log, of which it is given at most that record.
func endOf(last []redis.XMessage) string {
	if len(last) == 0 {
		return "0-0"
	}
	return last[0].ID
}

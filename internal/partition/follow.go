package partition

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/itscales/scales/internal/streamid"
)

const (
	followBlock = 500 * time.Millisecond
	followCount = 1000
	followRetry = 100 * time.Millisecond

	// followPatience bounds the time in which an answer to the blocking call may come, so that a connection that is dead is
	// noticed before the logs count as unreachable.
	followPatience = time.Second
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

// Follow follows the change logs of all partitions until ctx ends, however often Redis is away; there is a follower for each. It
// takes a connection for itself; with Redis Cluster, where one call cannot read what different slots have, one for each
// partition. They are not those of the pool of the client, but for Sentinel, whose client alone knows of a failover.
//
// Each record names the one before it. Where that is not the one that was read last, something is missing between them.
// Where nothing comes for a while, the last record of the log has to be the one that was read.
func (s *Store) Follow(ctx context.Context, followers []Follower) {
	client, release := s.ownClient()
	defer release()
	defer context.AfterFunc(ctx, release)() // it ends what blocks in Redis
	var group sync.WaitGroup
	defer group.Wait()
	_, scattered := client.(*redis.ClusterClient)
	together := following{client: client}
	for i, p := range s.partitions {
		if scattered {
			group.Go(func() {
				(&following{client: client, logs: []*followed{{Partition: p, follower: followers[i]}}}).run(ctx)
			})
			continue
		}
		together.logs = append(together.logs, &followed{Partition: p, follower: followers[i]})
	}
	if !scattered {
		together.run(ctx)
	}
}

// ownClient returns a client for the blocking calls of Follow, with the options of the store's, and what closes it. It goes
// without notifications of maintenance: the store's client changes their configuration, and has handlers for them, while it
// opens connections, and whoever follows a log goes on anyway where a connection ends.
func (s *Store) ownClient() (client redis.UniversalClient, release func()) {
	switch shared := s.config.Client.(type) {
	case *redis.Client:
		options := *shared.Options()
		if options.Addr == sentinelAddr {
			break
		}
		options.PoolSize, options.MinIdleConns, options.MaxActiveConns = 1, 0, 0
		options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		client = redis.NewClient(&options)
	case *redis.ClusterClient:
		options := *shared.Options()
		options.PoolSize, options.MinIdleConns, options.MaxActiveConns = len(s.partitions), 0, 0
		options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		client = redis.NewClusterClient(&options)
	}
	if client == nil {
		return s.config.Client, func() {}
	}
	return client, sync.OnceFunc(func() { _ = client.Close() }) // an error would say that it is closed
}

// sentinelAddr is what go-redis says is the address of a client that asks Sentinel for the primary.
const sentinelAddr = "FailoverClient"

// following is change logs that are read with one call.
type following struct {
	client  redis.UniversalClient
	logs    []*followed
	checked time.Time // when the ends of the logs were looked at; zero after a failure
}

// followed is a change log that is followed.
type followed struct {
	*Partition
	follower Follower
	at       string // the id up to which it was read, "" if it is to be begun
}

func (f *following) run(ctx context.Context) {
	for ctx.Err() == nil {
		if f.step(ctx) == nil {
			continue
		}
		f.checked = time.Time{}
		select {
		case <-ctx.Done():
		case <-time.After(followRetry):
		}
	}
}

// step begins logs, and then looks at their ends, if it has not done so for a while, or waits for records. After a failure it
// looks first: Redis may be back, and is not to be waited for to have news.
func (f *following) step(ctx context.Context) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	if time.Since(f.checked) >= followBlock {
		return f.check(ctx)
	}
	records, err := f.read(ctx)
	if err != nil {
		return err
	}
	for _, log := range f.logs {
		if len(records[log.names.log]) > 0 {
			log.take(records[log.names.log])
		} else {
			log.follower.Answered(false) // it may have been taken back, which check finds out
		}
	}
	return nil
}

// begin begins the logs that are not followed.
func (f *following) begin(ctx context.Context) error {
	var begun []*followed
	for _, log := range f.logs {
		if log.at == "" {
			begun = append(begun, log)
		}
	}
	ends, err := f.ends(ctx, begun)
	for i, log := range begun[:len(ends)] {
		log.at = ends[i]
		log.follower.Begin(ends[i])
	}
	return err
}

// check looks at the ends of the logs.
func (f *following) check(ctx context.Context) error {
	ends, err := f.ends(ctx, f.logs)
	if err != nil {
		return err
	}
	f.checked = time.Now()
	for i, log := range f.logs {
		if streamid.Less(ends[i], log.at) {
			log.lose()
			continue
		}
		log.follower.Answered(ends[i] == log.at)
	}
	return nil
}

// ends returns the id of the last record of each log.
func (f *following) ends(ctx context.Context, logs []*followed) ([]string, error) {
	if len(logs) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, logs[0].store.config.Timeout)
	defer cancel()
	last := make([]*redis.XMessageSliceCmd, len(logs))
	_, err := f.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, log := range logs {
			last[i] = pipe.XRevRangeN(ctx, log.names.log, "+", "-", 1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ends := make([]string, len(logs))
	for i := range logs {
		ends[i] = endOf(last[i].Val())
	}
	return ends, nil
}

// read waits for records behind those that were read, and returns none if there are none for a while.
func (f *following) read(ctx context.Context) (map[string][]redis.XMessage, error) {
	var names, ids []string
	for _, log := range f.logs {
		names, ids = append(names, log.names.log), append(ids, log.at)
	}
	// go-redis waits for the answer to a blocking call for ten seconds longer than that may take.
	ctx, cancel := context.WithTimeout(ctx, followBlock+min(f.logs[0].store.config.Timeout, followPatience))
	defer cancel()
	streams, err := f.client.XRead(ctx, &redis.XReadArgs{
		Streams: append(names, ids...), Count: followCount, Block: followBlock,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	records := make(map[string][]redis.XMessage, len(streams))
	for _, stream := range streams {
		records[stream.Stream] = stream.Messages
	}
	return records, nil
}

// take tells the follower what records say.
func (f *followed) take(records []redis.XMessage) {
	keys, ids := make([]string, 0, len(records)), make([]string, 0, len(records))
	at := f.at
	for _, record := range records {
		if text(record.Values["prev"]) != at && !f.store.config.Guards.NoPredecessors {
			f.lose()
			return
		}
		at = record.ID
		ids = append(ids, at)
		switch text(record.Values["op"]) {
		case "store", "destroy":
			keys = append(keys, text(record.Values["key"]))
		}
	}
	f.at = at
	f.follower.Changed(keys, ids)
	f.follower.Answered(len(records) < followCount)
}

func (f *followed) lose() {
	f.at = ""
	f.follower.Lost()
}

// endOf returns the id of the last record of a log, of which it is given at most that record.
func endOf(last []redis.XMessage) string {
	if len(last) == 0 {
		return "0-0"
	}
	return last[0].ID
}

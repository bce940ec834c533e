package partition

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/batch"
)

// A Replica reads the cache from a replica of Redis. It is safe for concurrent use.
type Replica struct {
	store  *Store
	client redis.UniversalClient
	reads  []*batch.Batcher[string, Found] // by partition
}

// Replica returns a reader of a replica, or of several that a client chooses from.
func (s *Store) Replica(client redis.UniversalClient) *Replica {
	r := &Replica{store: s, client: client}
	for _, p := range s.partitions {
		r.reads = append(r.reads, batch.New(batch.Config[string, Found]{
			Send:    func(keys []string) ([]Found, error) { return r.send(p, keys) },
			Flights: 2, Patience: s.config.Timeout,
		}))
	}
	return r
}

// Read returns what the replica has under a key, and how old that may be, in one atomic step. It is for the caller to say
// whether that is enough.
func (r *Replica) Read(ctx context.Context, key string) (Found, error) {
	return r.reads[r.store.Of(key).Number].Do(ctx, key)
}

func (r *Replica) send(p *Partition, keys []string) ([]Found, error) {
	ctx, cancel := p.background()
	defer cancel()
	names := []string{p.names.meta, p.names.index, p.names.log}
	args := []any{Version, r.store.config.Partitions, ""}
	for _, key := range keys {
		names = append(names, p.entry(key))
		args = append(args, key)
	}
	reply, err := r.store.scripts.read.RunRO(ctx, r.client, names, args...).Slice()
	if err != nil {
		return nil, translate(err)
	}
	return parseFound(reply, len(keys))
}

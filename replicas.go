package scales

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/itscales/scales/internal/outage"
	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/streamid"
)

// A replica is one that reads may go to.
type replica struct {
	*partition.Replica
	away *outage.Log
	next atomic.Int64 // when it is asked again after a failure, in ns; 0 while it answers
}

// awayOf returns the log of the replica with that number.
func awayOf(logger *slog.Logger, number int) *outage.Log {
	name := "Redis replica " + strconv.Itoa(number)
	return outage.New(logger, name+" is away", name+" is back")
}

// replicaPause is how long a replica is left alone that has failed.
const replicaPause = time.Second

// askReplica asks one of the replicas, each in its turn. It is not ok if that cannot be asked, or is behind, or knows no
// answer but that the cache is not as it should be: it may be a replica that has not got everything yet.
func (rd *reader) askReplica(ctx context.Context, key, since string) (found partition.Found, ok bool) {
	if len(rd.replicas) == 0 {
		return found, false
	}
	r := rd.replicas[int(rd.turn.Add(1)%uint32(len(rd.replicas)))]
	if !r.mayBeAsked() {
		return found, false
	}
	ctx, cancel := context.WithTimeout(ctx, rd.cache.config.timeout)
	defer cancel()
	found, err := r.Read(ctx, key)
	r.note(err)
	return found, err == nil && !streamid.Less(found.At, since) && (found.Exists || found.Filled && !found.Lost)
}

// mayBeAsked reports whether a read may go to the replica. Of one that has failed only a single read finds out whether it
// is back; the others do not wait for that.
func (r *replica) mayBeAsked() bool {
	next, now := r.next.Load(), time.Now().UnixNano()
	return next == 0 || now >= next && r.next.CompareAndSwap(next, now+int64(replicaPause))
}

// note takes note of what came of asking the replica.
func (r *replica) note(err error) {
	r.away.Note(context.Background(), err) // reads go on when their client has left
	switch {
	case err != nil:
		r.next.Store(time.Now().Add(replicaPause).UnixNano())
	case r.next.Load() != 0:
		r.next.Store(0)
	}
}

package partition_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/partition"
	"github.com/itscales/scales/internal/redistest"
)

// deaf is a follower that hears nothing.
type deaf struct{}

func (deaf) Begin(string)               {}
func (deaf) Changed(keys, ids []string) {}
func (deaf) Answered(bool)              {}
func (deaf) Lost()                      {}

// A client of Redis changes its own options while it opens a connection. The race detector tells if following looks at them.
func TestFollowingSharesNothingWithAClientThatConnects(t *testing.T) {
	redistest.Require(t)
	for range 20 {
		client := redis.NewClient(&redis.Options{Addr: redistest.Shared(t).Options().Addr})
		store := newStore(t, client, 1)
		ctx, stop := context.WithCancel(t.Context())
		var both sync.WaitGroup
		for later := range 10 { // at some time while it connects
			both.Go(func() {
				for range 20 * later {
					runtime.Gosched()
				}
				store.Follow(ctx, []partition.Follower{deaf{}})
			})
		}
		both.Go(func() {
			if err := client.Ping(ctx).Err(); err != nil {
				t.Error(err)
			}
			stop()
		})
		both.Wait()
		_ = client.Close()
	}
}

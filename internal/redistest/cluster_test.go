package redistest_test

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

func TestClusterIsWholeWhenStartedAndAgainAfterARestart(t *testing.T) {
	t.Parallel() // most of the time is Redis's start-up delay
	cluster := redistest.StartCluster(t, 3)
	whole := func() {
		t.Helper()
		for _, node := range cluster.Nodes() {
			shards, err := node.Client(t).ClusterShards(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			slots, owners := 0, make(map[string]bool)
			for _, shard := range shards {
				owner := shard.Nodes[0]
				owners[net.JoinHostPort(owner.Endpoint, strconv.FormatInt(owner.Port, 10))] = true
				for _, r := range shard.Slots {
					slots += int(r.End - r.Start + 1)
				}
			}
			if slots != 16384 {
				t.Errorf("%s knows the owners of %d slots", node.Addr(), slots)
			}
			for _, address := range cluster.Addrs() {
				if !owners[address] {
					t.Errorf("%s thinks that %s owns nothing", node.Addr(), address)
				}
			}
		}
		client := cluster.Client(t)
		for _, tag := range []string{"a", "b", "c", "d", "e", "f"} {
			if err := client.Incr(t.Context(), "{"+tag+"}").Err(); err != nil {
				t.Errorf("write {%s}: %v", tag, err)
			}
		}
	}
	whole()
	node := cluster.Nodes()[1]
	node.Kill()
	if !refuses(t, node.Addr()) {
		t.Error("a killed node accepts connections")
	}
	node.Restart()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cluster.Await(ctx); err != nil {
		t.Fatal(err)
	}
	whole()
}

func TestClusterWithAKilledNodeIsNotWhole(t *testing.T) {
	t.Parallel() // most of the time is Redis's start-up delay
	cluster := redistest.StartCluster(t, 1)
	cluster.Nodes()[0].Kill()
	if err := cluster.Await(t.Context()); err == nil {
		t.Error("a cluster without a node counts as whole")
	}
}

func TestClusterNeedsANode(t *testing.T) {
	if _, err := redistest.LaunchCluster(0); err == nil {
		t.Error("a cluster of no nodes was started")
	}
}

func TestClusterIsGoneWhenTheTestEnds(t *testing.T) {
	t.Parallel() // most of the time is Redis's start-up delay
	var addresses []string
	t.Run("test", func(t *testing.T) { addresses = redistest.StartCluster(t, 2).Addrs() })
	for _, address := range addresses {
		if !refuses(t, address) {
			t.Errorf("%s still listens", address)
		}
	}
}

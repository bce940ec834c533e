package redistest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const slots = 16384

// Cluster is a Redis Cluster of masters without replicas, which share the hash
// slots evenly.
type Cluster struct {
	nodes []*Server
}

// StartCluster starts a Redis Cluster for a test and returns when every node
// knows the owner of every slot; with Redis's own start-up delay this takes
// more than two seconds. It is stopped when the test ends.
func StartCluster(t testing.TB, nodes int) *Cluster {
	t.Helper()
	Require(t)
	c, err := LaunchCluster(nodes)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	for _, node := range c.nodes {
		node.fail = t.Fatalf
	}
	t.Cleanup(c.Stop)
	return c
}

// LaunchCluster is [StartCluster] without a test: the caller calls
// [Cluster.Stop].
func LaunchCluster(nodes int) (*Cluster, error) {
	if nodes < 1 || nodes > slots {
		return nil, fmt.Errorf("a cluster of %d nodes: want 1 to %d", nodes, slots)
	}
	c := &Cluster{}
	for range nodes {
		node, err := launch(true, nil)
		if err != nil {
			c.Stop()
			return nil, err
		}
		c.nodes = append(c.nodes, node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := c.form(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	if err := c.Await(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// Nodes returns the nodes in the order of their slots. They may be killed,
// restarted and paused; then [Cluster.Await] tells when the cluster has
// recovered.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// Addrs returns host:port of each node.
func (c *Cluster) Addrs() []string {
	var addresses []string
	for _, node := range c.nodes {
		addresses = append(addresses, node.Addr())
	}
	return addresses
}

// Client returns a client of the cluster that heeds the deadlines of contexts.
// It is closed when the test ends.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true})
	closeWhenDone(t, client)
	return client
}

// Stop stops every node.
func (c *Cluster) Stop() {
	for _, node := range c.nodes {
		node.Stop()
	}
}

// Await returns when every node says that the cluster is whole: its state is
// ok, and it knows all nodes and a reachable owner for every slot.
func (c *Cluster) Await(ctx context.Context) error {
	wanted := []string{
		"cluster_state:ok",
		fmt.Sprintf("cluster_slots_ok:%d", slots),
		fmt.Sprintf("cluster_known_nodes:%d", len(c.nodes)),
	}
	for _, node := range c.nodes {
		client := node.control()
		err := await(ctx, node.ended(), func(ctx context.Context) error {
			if err := node.listens(ctx); err != nil {
				return err
			}
			info, err := client.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			for _, line := range wanted {
				if !strings.Contains(info, line+"\r\n") {
					return fmt.Errorf("want %s in\n%s", line, info)
				}
			}
			return nil
		})
		client.Close()
		if err != nil {
			return fmt.Errorf("cluster node %s: %w", node.Addr(), err)
		}
	}
	return nil
}

// form joins the nodes to a cluster. Each gets its slots and an epoch of its
// own before it meets the others, so that the first messages they exchange say
// it all; they all meet directly. Otherwise gossip would take seconds.
func (c *Cluster) form(ctx context.Context) error {
	for i, node := range c.nodes {
		first, next := i*slots/len(c.nodes), (i+1)*slots/len(c.nodes)
		commands := [][]any{
			{"CLUSTER", "SET-CONFIG-EPOCH", i + 1},
			{"CLUSTER", "ADDSLOTSRANGE", first, next - 1},
		}
		if err := node.do(ctx, commands); err != nil {
			return err
		}
	}
	for i, node := range c.nodes {
		var commands [][]any
		for _, other := range c.nodes[i+1:] {
			commands = append(commands, []any{"CLUSTER", "MEET", host, other.port, other.busPort})
		}
		if err := node.do(ctx, commands); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) do(ctx context.Context, commands [][]any) error {
	client := s.control()
	defer client.Close()
	for _, command := range commands {
		if err := client.Do(ctx, command...).Err(); err != nil {
			return fmt.Errorf("%v on %s: %w", command, s.Addr(), err)
		}
	}
	return nil
}

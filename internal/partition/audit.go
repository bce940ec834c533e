package partition

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// What is read here is read page by page, for an audit: what changes meanwhile may or may not be seen.

// Strays calls found for entries that the index does not have: no commit leaves such, so somebody has interfered. Servers
// answer with them. All partitions of the cache are looked at. An error of found ends it.
func (s *Store) Strays(ctx context.Context, found func(key string) error) error {
	pattern := "{" + s.config.Namespace + ":*}:e:*"
	if cluster, ok := s.config.Client.(*redis.ClusterClient); ok {
		var (
			mu    sync.Mutex
			nodes []*redis.Client
		)
		err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes = append(nodes, node)
			return nil
		})
		if err != nil {
			return err
		}
		for _, node := range nodes {
			if err := s.scan(ctx, node, pattern, found); err != nil {
				return err
			}
		}
		return nil
	}
	return s.scan(ctx, s.config.Client, pattern, found)
}

// scan looks through the keys of one Redis.
func (s *Store) scan(ctx context.Context, node redis.Cmdable, pattern string, found func(key string) error) error {
	for cursor := uint64(0); ; {
		names, next, err := node.Scan(ctx, cursor, pattern, 1000).Result()
		if err != nil {
			return err
		}
		var keys []string
		for _, name := range names {
			_, key, _ := strings.Cut(name, "}:e:")
			if p := s.Of(key); name == p.entry(key) { // else it is of another number of partitions
				keys = append(keys, key)
			}
		}
		missing, err := s.unlisted(ctx, keys)
		if err != nil {
			return err
		}
		for _, key := range missing {
			if err := found(key); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// unlisted returns the keys that have an entry, not a tombstone, and are not in the index.
func (s *Store) unlisted(ctx context.Context, keys []string) (missing []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	scores, heads := make([]*redis.FloatCmd, len(keys)), make([]*redis.StringCmd, len(keys))
	_, err = s.config.Client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			p := s.Of(key)
			scores[i] = pipe.ZScore(ctx, p.names.index, key)
			heads[i] = pipe.GetRange(ctx, p.entry(key), 0, 127)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) && !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		return nil, err
	}
	for i, key := range keys {
		gone := strings.Contains(heads[i].Val(), `,"gone":true`)
		if errors.Is(scores[i].Err(), redis.Nil) && heads[i].Val() != "" && !gone {
			missing = append(missing, key)
		}
	}
	return missing, nil
}

// Misfiled calls found for keys that a group has among its members although their memberships do not have the group: no
// commit leaves such.
func (p *Partition) Misfiled(ctx context.Context, found func(key, group string) error) error {
	client := p.store.config.Client
	for cursor := uint64(0); ; {
		members, next, err := client.ZScan(ctx, p.names.groups, cursor, "", 1000).Result()
		if err != nil {
			return err
		}
		var keys, groups []string
		for i := 0; i+1 < len(members); i += 2 {
			if group, key, ok := strings.Cut(members[i], "\t"); ok {
				keys, groups = append(keys, key), append(groups, group)
			}
		}
		if len(keys) > 0 {
			memberships, err := client.HMGet(ctx, p.names.memberships, keys...).Result()
			if err != nil {
				return err
			}
			for i, key := range keys {
				if strings.Contains("\t"+text(memberships[i]), "\t"+groups[i]+"\t") {
					continue
				}
				// It may have left the group between the two commands.
				wrong, err := p.run(ctx, p.store.scripts.misfiled, []string{p.names.groups, p.names.memberships}, key, groups[i])
				if err == nil && wrong[0] == int64(1) {
					err = found(key, groups[i])
				}
				if err != nil {
					return err
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// misfiledScript tells whether a group has a key among its members although the memberships of the key do not have the
// group.
//
//	KEYS[2] groups   KEYS[3] memberships   ARGV[4] the key   ARGV[5] the group
//	returns 1 or 0
const misfiledScript = `
local memberships = '\t' .. (redis.call('HGET', KEYS[3], ARGV[4]) or '')
if string.find(memberships, '\t' .. ARGV[5] .. '\t', 1, true) then return 0 end
if redis.call('ZSCORE', KEYS[2], ARGV[5] .. '\t' .. ARGV[4]) then return 1 end
return 0
`

// refileScript makes the members of groups agree with the memberships of keys.
//
//	KEYS[2] groups   KEYS[3] memberships
//	ARGV[4] the key   ARGV[5…] groups that may have it among their members although it is not in them
const refileScript = `
local key = ARGV[4]
local memberships = '\t' .. (redis.call('HGET', KEYS[3], key) or '')
for a = 5, #ARGV do
  if not string.find(memberships, '\t' .. ARGV[a] .. '\t', 1, true) then redis.call('ZREM', KEYS[2], ARGV[a] .. '\t' .. key) end
end
for group in string.gmatch(string.sub(memberships, 2), '([^\t]*)\t') do redis.call('ZADD', KEYS[2], 0, group .. '\t' .. key) end
return 1
`

// Refile makes the members of groups agree with the memberships of a key; wrong are groups that may have it among their
// members although it is not in them.
func (p *Partition) Refile(ctx context.Context, key string, wrong ...string) error {
	args := []any{key}
	for _, group := range wrong {
		args = append(args, group)
	}
	_, err := p.run(ctx, p.store.scripts.refile, []string{p.names.groups, p.names.memberships}, args...)
	return err
}

package blackbox_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales/internal/await"
)

const (
	// replyLife is how long replies are kept that nobody reads, and how long the calls of a time span are remembered.
	replyLife = time.Minute
	// mostSpans is how many time spans of ten seconds there are in replyLife, with the one that has begun.
	mostSpans = 7
	// mostSamples is how often the numbers of jobs are noted, the latest.
	mostSamples = 16
	// mostLeft is how many workers that have left are remembered, of those that did since a worker said that it takes jobs.
	mostLeft = 20
	// mostWithdrawn is how many withdrawn jobs are remembered.
	mostWithdrawn = 10_000
)

// remains expects Redis to have no key but those that the protocol names and a site at rest has, none of which grows with
// what was done to it.
func (c *campaign) remains(t *testing.T, letters int) {
	t.Helper()
	var problems []string
	defer func() {
		for _, problem := range problems {
			t.Errorf("seed %d: %s", c.seed, problem)
		}
	}()
	// What has died is forgotten by the heartbeats of those who live, in their own time.
	await.Within(t, settleTimeout, "Redis holds what a site at rest needs, and no more", func() bool {
		problems = c.leftovers(t, int64(letters))
		return len(problems) == 0
	})
}

// leftovers returns what is wrong with the keys in Redis.
func (c *campaign) leftovers(t *testing.T, letters int64) (problems []string) {
	t.Helper()
	wrong := func(holds bool, format string, arguments ...any) {
		if !holds {
			problems = append(problems, fmt.Sprintf(format, arguments...))
		}
	}
	s := c.site
	entries, spans := int64(0), 0
	for name, life := range s.lives(t) {
		partitioned, queued := strings.CutPrefix(name, "q:")
		kind, _, _ := strings.Cut(partitioned, ":")
		expires := life > 0 && life <= replyLife
		switch {
		case !queued && kind == "e":
			if life < 0 { // a tombstone expires
				entries++
			}
		case !queued && slices.Contains([]string{"meta", "index", "groups", "memberships", "marks", "log"}, kind):
			wrong(life < 0, "%s expires, in %v", name, life)
		case queued && kind == "replies":
			wrong(expires, "%s expires in %v, which is not within %v", name, life, replyLife)
		case queued && kind == "seen":
			spans++
			wrong(expires, "%s expires in %v, which is not within %v", name, life, replyLife)
		case queued && slices.Contains([]string{"jobs", "workers", "left", "servers", "dead", "statistics", "samples", "withdrawn"}, kind):
		default:
			wrong(false, "there is %s, with a life of %v", name, life)
		}
	}
	wrong(spans <= mostSpans, "the calls of %d time spans are remembered", spans)
	indexed := s.sum(t, "index", zcard)
	wrong(entries == indexed, "there are %d entries, and %d in the index", entries, indexed)
	return append(problems, s.queueLeftovers(t, letters, len(c.workers.complete(t)))...)
}

// queueLeftovers returns what is wrong with the queue of a site at rest.
func (s *site) queueLeftovers(t *testing.T, letters int64, workers int) (problems []string) {
	t.Helper()
	ctx := t.Context()
	var (
		pending    *redis.XPendingCmd
		consumers  *redis.XInfoConsumersCmd
		known      *redis.MapStringStringCmd
		statistics *redis.MapStringStringCmd
		withdrawn  *redis.IntCmd
		samples    *redis.IntCmd
		now        *redis.TimeCmd
		servers    *redis.ZSliceCmd
		left       *redis.IntCmd
	)
	_, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pending = pipe.XPending(ctx, s.queueKey("jobs"), "workers")
		consumers = pipe.XInfoConsumers(ctx, s.queueKey("jobs"), "workers")
		known = pipe.HGetAll(ctx, s.queueKey("workers"))
		statistics = pipe.HGetAll(ctx, s.queueKey("statistics"))
		withdrawn = pipe.ZCard(ctx, s.queueKey("withdrawn"))
		samples = pipe.LLen(ctx, s.queueKey("samples"))
		now = pipe.Time(ctx)
		left = pipe.HLen(ctx, s.queueKey("left"))
		servers = pipe.ZRangeWithScores(ctx, s.queueKey("servers"), 0, -1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(holds bool, format string, arguments ...any) {
		if !holds {
			problems = append(problems, fmt.Sprintf(format, arguments...))
		}
	}
	wrong(s.length(t, "jobs") == 0, "%d jobs are in the queue", s.length(t, "jobs"))
	wrong(pending.Val().Count == 0, "%d jobs are delivered and not acknowledged", pending.Val().Count)
	wrong(len(known.Val()) == workers, "%d workers are known, %d are there", len(known.Val()), workers)
	for _, consumer := range consumers.Val() {
		_, alive := known.Val()[consumer.Name]
		wrong(alive, "a consumer is left of a worker that has gone: %+v", consumer)
	}
	wrong(s.length(t, "dead") == letters, "there are %d dead letters, and were %d", s.length(t, "dead"), letters)
	dead := statistics.Val()["dead"]
	wrong(dead == fmt.Sprint(letters) || dead == "" && letters == 0, "%q dead letters are counted, want %d", dead, letters)
	kept := statistics.Val()["kept"]
	wrong(kept == "" || kept == "0", "%s bytes of replies are counted", kept)
	wrong(withdrawn.Val() <= mostWithdrawn, "%d withdrawn jobs are remembered", withdrawn.Val())
	wrong(samples.Val() <= mostSamples, "the numbers of jobs are noted %d times", samples.Val())
	wrong(left.Val() <= mostLeft, "%d workers that have left are remembered", left.Val())
	for _, server := range servers.Val() {
		age := now.Val().Sub(time.UnixMicro(int64(server.Score)))
		wrong(age < replyLife+settleTimeout, "server %v was heard of %v ago", server.Member, age)
	}
	return problems
}

// lives returns the keys of a site with one partition, without what they begin with, and how long each will live: below zero
// if it does not expire.
func (s *site) lives(t *testing.T) map[string]time.Duration {
	t.Helper()
	ctx, prefix := t.Context(), fmt.Sprintf("{%s:0}:", s.namespace)
	var keys []string
	all := s.client.Scan(ctx, 0, fmt.Sprintf("{%s:*", s.namespace), 1000).Iterator()
	for all.Next(ctx) {
		keys = append(keys, all.Val())
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	lives := map[string]time.Duration{}
	for part := range slices.Chunk(keys, 1000) {
		answers, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range part {
				pipe.PTTL(ctx, key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range part {
			// -2: it has gone meanwhile.
			if life := answers[i].(*redis.DurationCmd).Val(); life != -2 {
				lives[strings.TrimPrefix(key, prefix)] = life
			}
		}
	}
	return lives
}

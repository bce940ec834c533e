package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// redisDialTimeout and redisTimeout bound a connection attempt and an answer of Redis. A client waits while a page
	// is fetched from Redis, so it should learn of an outage soon.
	redisDialTimeout = time.Second
	redisTimeout     = 2 * time.Second
	// redisConnections is the size of the pool, for each node.
	redisConnections = 64
	// redisPingTimeout is how long a process that needs Redis waits for it at its start.
	redisPingTimeout = 5 * time.Second
	// embeddedTick is how often keys of the embedded Redis grow older.
	embeddedTick = 100 * time.Millisecond
)

// connectRedis makes a client of the Redis that the flags name, or of one inside this process if they name none.
// close ends both.
func (s settings) connectRedis() (client redis.UniversalClient, closeRedis func() error, err error) {
	switch {
	case s.redisCluster != "":
		client = redis.NewClusterClient(&redis.ClusterOptions{
			Addrs:                    strings.Split(s.redisCluster, ","),
			DialTimeout:              redisDialTimeout,
			DialerRetries:            1,
			ReadTimeout:              redisTimeout,
			WriteTimeout:             redisTimeout,
			ContextTimeoutEnabled:    true,
			PoolSize:                 redisConnections,
			MaintNotificationsConfig: unannounced(),
		})
	case s.redisSentinel != "":
		client = redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName:            s.redisMaster,
			SentinelAddrs:         strings.Split(s.redisSentinel, ","),
			DialTimeout:           redisDialTimeout,
			DialerRetries:         1,
			ReadTimeout:           redisTimeout,
			WriteTimeout:          redisTimeout,
			ContextTimeoutEnabled: true,
			PoolSize:              redisConnections,
		})
	case s.redisURL != "":
		options, err := redis.ParseURL(s.redisURL)
		if err != nil {
			return nil, nil, &usageError{fmt.Errorf("-redis: %w", err)}
		}
		client = newClient(options)
	default:
		embedded, closeEmbedded, err := startEmbeddedRedis()
		if err != nil {
			return nil, nil, err
		}
		client = newClient(&redis.Options{Addr: embedded.Addr()})
		return client, func() error {
			defer closeEmbedded()
			return client.Close()
		}, nil
	}
	return client, client.Close, nil
}

// unannounced turns something off: planned maintenance of hosted Redis is announced in a way that other Redis servers do not
// know.
func unannounced() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// connectReplicas makes a client of each replica that the flags name. Whoever gets them closes them.
func (s settings) connectReplicas() (clients []redis.UniversalClient, err error) {
	if s.redisReplicas == "" {
		return nil, nil
	}
	for _, one := range strings.Split(s.redisReplicas, ",") {
		options, err := redis.ParseURL(one)
		if err != nil {
			return nil, errors.Join(&usageError{fmt.Errorf("-redis-replicas: %w", err)}, closeAll(clients))
		}
		clients = append(clients, newClient(options))
	}
	return clients, nil
}

func closeAll(clients []redis.UniversalClient) (err error) {
	for _, client := range clients {
		err = errors.Join(err, client.Close())
	}
	return err
}

// startEmbeddedRedis starts a Redis inside this process, and the clock by which its keys expire.
func startEmbeddedRedis() (embedded *miniredis.Miniredis, closeEmbedded func(), err error) {
	embedded = miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	ticker := time.NewTicker(embeddedTick)
	stop := make(chan struct{})
	clock := begin(func() error {
		last := time.Now()
		for {
			select {
			case <-stop:
				return nil
			case now := <-ticker.C:
				// Its own way to follow the clock, ClockTTL, goes through all keys with every command.
				embedded.FastForward(now.Sub(last))
				last = now
			}
		}
	})
	return embedded, func() {
		ticker.Stop()
		close(stop)
		<-clock.done
		embedded.Close()
	}, nil
}

// newClient makes a client of one Redis. What a URL has set in options stays.
func newClient(options *redis.Options) *redis.Client {
	setDefault(&options.DialTimeout, redisDialTimeout)
	setDefault(&options.DialerRetries, 1)
	setDefault(&options.ReadTimeout, redisTimeout)
	setDefault(&options.WriteTimeout, redisTimeout)
	setDefault(&options.PoolSize, redisConnections)
	options.ContextTimeoutEnabled = true
	options.MaintNotificationsConfig = unannounced()
	return redis.NewClient(options)
}

// setDefault sets what has no value yet.
func setDefault[T comparable](field *T, value T) {
	var none T
	if *field == none {
		*field = value
	}
}

// ping returns an error unless Redis answers.
func ping(ctx context.Context, client redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, redisPingTimeout)
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("reaching Redis: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/jobqueue"
	"github.com/itscales/scales/internal/partition"
)

// siteWorkers is how many worker processes the sites of the storm and of the group have.
const siteWorkers = 2

// A layout says what processes a site has.
type layout struct {
	workers int
	server  *serverOrder          // the server is in a process of its own; nil for one in this process
	options []scales.ServerOption // of one in this process
}

// A serverOrder is what a process is told that is the server of a site.
type serverOrder struct {
	heap    int    // MiB that it holds besides
	profile string // where its CPU profile goes; "" for none
}

// A site is what clients hit: a cache, a server of it, reached over HTTP, and worker processes. All options are the library's
// defaults, but for those that an order names.
type site struct {
	order   order
	layout  layout
	url     string // of the server
	cache   *scales.Cache
	rdb     *redis.Client
	running string // the Redis key that holds what is being rendered
	workers []*workerProcess
	server  *readerProcess                // nil if it is in this process
	closers []func(context.Context) error // the last comes first
}

// clientOf returns a client with the options that are in the URL, and defaults, that heeds the deadlines of contexts.
func clientOf(url string) (*redis.Client, error) { return clientWith(url, 0) }

// clientWith is clientOf with a pool of that many connections, unless it is 0.
func clientWith(url string, pool int) (*redis.Client, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("%w: -redis: %w", errUsage, err)
	}
	options.ContextTimeoutEnabled = true
	if pool > 0 {
		options.PoolSize = pool
	}
	return redis.NewClient(options), nil
}

// startSite returns when the cache is filled and all workers take jobs. What it has started is killed when ctx ends.
// The order gets a namespace of its own.
func startSite(ctx context.Context, o order, l layout, keys ...string) (*site, error) {
	o.Namespace = "bench-" + jobqueue.NewID()
	s := &site{order: o, layout: l}
	if err := s.start(ctx, o, keys); err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *site) start(ctx context.Context, o order, keys []string) (err error) {
	if s.rdb, err = clientOf(o.Redis); err != nil {
		return err
	}
	s.closeLater(func(context.Context) error { return s.rdb.Close() })
	app, options := o.application(s.rdb)
	prefix := partition.Prefix(o.Namespace, 0)
	s.running = prefix + "running"
	s.closeLater(func(ctx context.Context) error {
		return errors.Join(removeAll(ctx, s.rdb, prefix), removeAll(ctx, s.rdb, o.state()))
	})
	if s.cache, err = scales.NewCache(s.rdb, scales.Namespace(o.Namespace)); err != nil {
		return err
	}
	s.closeLater(s.cache.Close)
	filler, err := scales.NewWorker(s.cache, app, options...)
	if err != nil {
		return err
	}
	if _, err = filler.Fill(ctx, scales.Keys(keys...)); err != nil {
		return err
	}
	s.closeLater(func(context.Context) error { return s.closeWorkers() })
	for range s.layout.workers {
		worker, err := startWorker(ctx, o)
		if err != nil {
			return err
		}
		s.workers = append(s.workers, worker)
	}
	if s.layout.server == nil {
		err = s.serve()
	} else {
		err = s.startServer(ctx)
	}
	if err != nil {
		return err
	}
	return s.await(ctx, func(stats scales.QueueStats, _ int64) bool { return stats.Workers == s.layout.workers })
}

func (s *site) closeLater(f func(context.Context) error) { s.closers = append(s.closers, f) }

// startServer has a process of its own answer HTTP, with all processors.
func (s *site) startServer(ctx context.Context) (err error) {
	s.server, err = startReader(ctx, readOrder{
		Kind: oursCopied, Redis: s.order.Redis, Namespace: s.order.Namespace, Procs: runtime.NumCPU(),
		Heap: s.layout.server.heap, Profile: s.layout.server.profile,
	})
	if err != nil {
		return err
	}
	s.url = "http://" + s.server.addr
	s.closeLater(func(context.Context) error { return s.server.close() })
	return nil
}

// serve begins to answer HTTP.
func (s *site) serve() error {
	server, err := scales.NewServer(s.cache, s.layout.options...)
	if err != nil {
		return err
	}
	s.closeLater(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + listener.Addr().String()
	front := &http.Server{Handler: server}
	served := make(chan error, 1)
	go func() { served <- front.Serve(listener) }()
	s.closeLater(func(ctx context.Context) error {
		err := front.Shutdown(ctx)
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	})
	return nil
}

// await looks at the queue, and at how many keys are being rendered, until the condition holds or ctx ends.
func (s *site) await(ctx context.Context, condition func(stats scales.QueueStats, running int64) bool) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		stats, err := s.cache.Queue().Stats(ctx)
		if err != nil {
			return err
		}
		running, err := s.rdb.ZCard(ctx, s.running).Result()
		if err != nil {
			return err
		}
		if condition(stats, running) {
			return nil
		}
		for _, worker := range s.workers {
			if err := worker.died(); err != nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the queue has %+v, %d keys are being rendered", context.Cause(ctx), stats, running)
		}
	}
}

// A census is what all processes have done so far.
type census struct {
	tally        // of the workers together
	others usage // processor time of this process and of Redis
}

// settle takes a census when there is nothing left to do: renders that nobody waits for count too.
func (s *site) settle(ctx context.Context) (c census, err error) {
	err = s.await(ctx, func(stats scales.QueueStats, running int64) bool {
		return stats.Jobs == 0 && stats.Pending == 0 && running == 0
	})
	if err != nil {
		return c, err
	}
	c.others, err = usageAt(ctx, s.rdb, time.Now())
	t, tallyErr := s.tally()
	c.tally = t
	return c, errors.Join(err, tallyErr)
}

// tally returns what the workers have done so far, together.
func (s *site) tally() (sum tally, err error) {
	for _, worker := range s.workers {
		t, tallyErr := worker.tally()
		sum, err = sum.plus(t), errors.Join(err, tallyErr)
	}
	return sum, err
}

// closeWorkers ends all workers at the same time, as each drains for as long as a fetch takes.
func (s *site) closeWorkers() error {
	var group sync.WaitGroup
	problems := make([]error, len(s.workers))
	for i, worker := range s.workers {
		group.Go(func() { problems[i] = worker.close() })
	}
	group.Wait()
	return errors.Join(problems...)
}

// close ends everything that the site has started and removes its keys.
func (s *site) close(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, f := range slices.Backward(s.closers) {
		err = errors.Join(err, f(ctx))
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
)

const (
	// headerTimeout and idleTimeout keep slow and silent connections from piling up.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// drainMargin is what requests in progress get beyond the deadline of a write, when the process is told to stop.
	drainMargin = 15 * time.Second
	// repeatMargin is what the store adds to the deadline of a write: after both, no request is run again.
	repeatMargin = time.Minute
)

// roles returns what each role does. A role ends without an error when ctx is done.
func (p *program) roles() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"all": p.runAll, "server": p.runServer, "worker": p.runWorker, "fill": p.runFill, "verify": p.runVerify, "explain": p.runExplain,
		"stats": p.runStats, "app": p.runApp,
	}
}

// runApp serves the application without a cache.
func (p *program) runApp(ctx context.Context) (err error) {
	s, app, err := p.openApplication(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	listener, err := p.openListener()
	if err != nil {
		return err
	}
	if err := p.ready(listener); err != nil {
		return errors.Join(err, listener.Close())
	}
	return p.serve(ctx, listener, app, func() {})
}

// runServer serves pages from the cache and hands everything else to the workers.
func (p *program) runServer(ctx context.Context) (err error) {
	c, err := p.openCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, c.close)) }()
	server, err := p.newServer(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, server.Close)) }()
	if err := p.warmUp(ctx, c, server); err != nil {
		return err
	}
	listener, err := p.openListener()
	if err != nil {
		return err
	}
	if err := p.ready(listener); err != nil {
		return errors.Join(err, listener.Close())
	}
	return p.serve(ctx, listener, server, server.Drain)
}

// runWorker runs the application for the servers.
func (p *program) runWorker(ctx context.Context) error {
	return p.withWorker(ctx, func(worker *scales.Worker, _ *store) error {
		return worker.Run(ctx)
	})
}

// runFill renders every page once.
func (p *program) runFill(ctx context.Context) error {
	return p.withWorker(ctx, func(worker *scales.Worker, s *store) error {
		report, err := p.fillCache(ctx, worker, s)
		return errors.Join(err, p.writeSummary(report))
	})
}

// withWorker calls do with a worker, after making sure that Redis is there.
func (p *program) withWorker(ctx context.Context, do func(*scales.Worker, *store) error) (err error) {
	c, err := p.openCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, c.close)) }()
	worker, s, err := p.openWorker(ctx, c.cache)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := ping(ctx, c.client); err != nil {
		return err
	}
	if err := p.ready(nil); err != nil {
		return err
	}
	return do(worker, s)
}

// runAll is a server, a worker and a fill in one process.
func (p *program) runAll(ctx context.Context) (err error) {
	c, err := p.openCache()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.drain(ctx, c.close)) }()
	worker, s, err := p.openWorker(ctx, c.cache)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	server, err := p.newServer(c)
	if err != nil {
		return err
	}
	listener, err := p.openListener()
	if err != nil {
		return errors.Join(err, p.drain(ctx, server.Close))
	}

	// The worker goes on until the server has had its last reply.
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	worked := begin(func() error { return worker.Run(working) })
	serving, stopServing := context.WithCancel(ctx)
	served := begin(func() error { return p.serve(serving, listener, server, server.Drain) })
	defer func() {
		stopServing()
		err = errors.Join(err, served.wait(), p.drain(ctx, server.Close))
		stopWorking()
		err = errors.Join(err, worked.wait())
	}()

	_, err = p.fillCache(ctx, worker, s)
	if ctx.Err() != nil {
		return nil // told to stop while filling, which is no failure here: it has nothing to finish
	}
	if err != nil {
		return err
	}
	if err := p.warmUp(ctx, c, server); err != nil {
		return err
	}
	if err := p.ready(listener); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-served.done:
	case <-worked.done:
	}
	return nil
}

// activity is a function that runs beside its caller.
type activity struct {
	done chan struct{}
	err  error
}

// begin runs f beside the caller.
func begin(f func() error) *activity {
	a := &activity{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.err = f()
	}()
	return a
}

// wait returns what the function returned, once it did.
func (a *activity) wait() error {
	<-a.done
	return a.err
}

// connectedCache is the cache with its connections to Redis.
type connectedCache struct {
	cache    *scales.Cache
	client   redis.UniversalClient
	replicas []redis.UniversalClient
	// closeClient ends the connection.
	closeClient func() error
}

func (c *connectedCache) close(ctx context.Context) error {
	return errors.Join(c.cache.Close(ctx), c.closeClient(), closeAll(c.replicas))
}

func (p *program) openCache() (*connectedCache, error) {
	client, closeClient, err := p.connectRedis()
	if err != nil {
		return nil, err
	}
	cache, err := scales.NewCache(client,
		scales.Namespace(p.namespace),
		scales.Partitions(p.partitions),
		scales.Codings(strings.FieldsFunc(p.codings, func(r rune) bool { return r == ',' })...),
		scales.Origin(p.origin),
		scales.QueryParameters(), // no page depends on one
		scales.ClaimLease(p.lease),
		scales.Logger(p.logger),
	)
	if err != nil {
		return nil, errors.Join(&usageError{err}, closeClient())
	}
	replicas, err := p.connectReplicas()
	if err != nil {
		return nil, errors.Join(err, closeClient())
	}
	return &connectedCache{cache: cache, client: client, replicas: replicas, closeClient: closeClient}, nil
}

func (p *program) newServer(c *connectedCache) (*scales.Server, error) {
	options := []scales.ServerOption{scales.Deadline(p.deadline), scales.MaxBody(p.maxBody), scales.Replicas(c.replicas...)}
	if p.localCopy != nil {
		options = append(options, scales.LocalCopy(*p.localCopy))
	}
	server, err := scales.NewServer(c.cache, options...)
	if err != nil {
		return nil, &usageError{err}
	}
	return server, nil
}

// warmUp has a server read the cache into its copy, if the flags say so. A server that is to be warm needs Redis at its start.
func (p *program) warmUp(ctx context.Context, c *connectedCache, server *scales.Server) error {
	if !p.warm {
		return nil
	}
	if err := ping(ctx, c.client); err != nil {
		return err
	}
	if err := server.Warm(ctx); err != nil {
		return fmt.Errorf("warming the server: %w", err)
	}
	return nil
}

func (p *program) openApplication(ctx context.Context) (*store, http.Handler, error) {
	s, err := openStore(ctx, p.database, p.deadline+repeatMargin)
	if err != nil {
		return nil, nil, err
	}
	app, err := newApplication(s, applicationOptions{
		maxBody: p.maxBody, workDelay: p.workDelay, renderDelay: p.renderDelay, logger: p.logger,
	})
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, app, nil
}

func (p *program) openWorker(ctx context.Context, cache *scales.Cache) (*scales.Worker, *store, error) {
	s, app, err := p.openApplication(ctx)
	if err != nil {
		return nil, nil, err
	}
	worker, err := scales.NewWorker(cache, app,
		scales.Concurrency(p.concurrency),
		scales.RenderConcurrency(p.concurrency),
		scales.GroupLimit(p.groupLimit),
		scales.Lease(p.lease),
	)
	if err != nil {
		return nil, nil, errors.Join(&usageError{err}, s.close())
	}
	return worker, s, nil
}

func (p *program) openListener() (net.Listener, error) {
	listener, err := net.Listen("tcp", p.listen)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return listener, nil
}

// drain calls stop with a context for what is to be done after ctx. It ends when every write has been answered or given
// up.
func (p *program) drain(ctx context.Context, stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.deadline+drainMargin)
	defer cancel()
	return stop(ctx)
}

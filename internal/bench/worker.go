package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/render"
)

// workerSlots is how many handlers, and how many renders, a worker process runs at once, unless -slots says otherwise: the
// defaults of the library.
const workerSlots = 16

// An application is what a benchmark runs in its worker processes. Its state is in Redis, so it is the same for all.
type application interface {
	http.Handler

	// tally returns what this one has been called for, without the processor time.
	tally() tally
}

// counts are the calls of an application.
type counts struct{ writes, renders atomic.Int64 }

func (c *counts) tally() tally {
	return tally{Writes: c.writes.Load(), Renders: c.renders.Load()}
}

// workerArgument is the only argument of a worker process. The rest it learns from its standard input.
const workerArgument = "worker"

// An order tells a worker process what it works for. It is the first value on its standard input, as JSON. Each further
// value asks for its tally, which is written to its standard output. The process ends when its input does.
type order struct {
	Redis     string // URL
	Namespace string
	Slots     int         // how many handlers, and how many renders, run at once
	Alone     bool        // every need is rendered by itself
	Heap      int         // MiB that the process holds besides, so that the collector runs as often as in others
	Group     *groupOrder // the application is that of the group
	Echo      *echoOrder  // the application is an echo; if both are nil, it is that of the storm
}

// state returns what the names of everything begin with that the application has in Redis.
func (o order) state() string { return o.Namespace + ":" }

// executions is the hash that counts how often each body was posted.
func (o order) executions() string { return o.state() + "executions" }

// application returns the one that the order is about, and the options that its worker has besides.
func (o order) application(rdb *redis.Client) (application, []scales.WorkerOption) {
	switch {
	case o.Group != nil:
		return newGroupPages(rdb, o.state(), o.Group.RenderTime), []scales.WorkerOption{scales.GroupLimit(o.Group.Limit)}
	case o.Echo != nil:
		app := &echo{wait: o.Echo.Wait}
		if o.Echo.Count {
			app.count = func(ctx context.Context, body string) error { return rdb.HIncrBy(ctx, o.executions(), body, 1).Err() }
		}
		return app, nil
	default:
		return newListPage(rdb, o.state()), nil
	}
}

// A tally is how often a worker process has called the application, and what time that and the process have taken.
type tally struct {
	Writes, Renders int64
	Busy            time.Duration // in the handler of writes, of an application that says so
	CPU             time.Duration // of the process
}

// plus returns the sum of two tallies.
func (t tally) plus(other tally) tally {
	return tally{t.Writes + other.Writes, t.Renders + other.Renders, t.Busy + other.Busy, t.CPU + other.CPU}
}

// closeTimeout is how long a worker process may take to end when its worker has drained.
const closeTimeout = 5 * time.Second

// runWorker is a worker process.
func runWorker(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	input := json.NewDecoder(in)
	var o order
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("the order of a worker process: %w", err)
	}
	ballast := make([]byte, o.Heap<<20)
	defer runtime.KeepAlive(ballast)
	rdb, err := clientOf(o.Redis)
	if err != nil {
		return err
	}
	defer rdb.Close()
	cache, err := scales.NewCache(rdb, scales.Namespace(o.Namespace))
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, cache.Close(ending))
	}()
	app, options := o.application(rdb)
	guarded := render.Guarded{Handler: app, Guards: render.Guards{NoSharing: o.Alone}}
	options = append(options, scales.Concurrency(o.Slots), scales.RenderConcurrency(o.Slots))
	worker, err := scales.NewWorker(cache, guarded, options...)
	if err != nil {
		return err
	}
	working, stop := context.WithCancelCause(ctx)
	go func() { stop(reportTallies(input, json.NewEncoder(out), app)) }()
	if err := worker.Run(working); err != nil {
		return err
	}
	if cause := context.Cause(working); !errors.Is(cause, io.EOF) {
		return cause
	}
	return nil
}

// reportTallies returns io.EOF when the input has ended.
func reportTallies(input *json.Decoder, output *json.Encoder, app application) error {
	for {
		var question struct{}
		if err := input.Decode(&question); err != nil {
			return err
		}
		cpu, err := ownUsage()
		if err != nil {
			return err
		}
		t := app.tally()
		t.CPU = cpu
		if err := output.Encode(t); err != nil {
			return err
		}
	}
}

// A workerProcess is this program, started once more to work.
type workerProcess struct{ *child }

// startWorker starts a worker process, which is killed when ctx ends.
func startWorker(ctx context.Context, o order) (*workerProcess, error) {
	c, err := startChild(ctx, workerArgument, o)
	return &workerProcess{c}, err
}

// tally asks the process how often it has called the application.
func (p *workerProcess) tally() (t tally, err error) {
	if err = p.orders.Encode(struct{}{}); err == nil {
		err = p.replies.Decode(&t)
	}
	if err != nil {
		return t, fmt.Errorf("tally of a worker process: %w", err)
	}
	return t, nil
}

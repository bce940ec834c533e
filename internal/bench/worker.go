package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

	// tally returns how many writes and how many renders this one has been called for.
	tally() (writes, renders int64)
}

// counts are the calls of an application.
type counts struct{ writes, renders atomic.Int64 }

func (c *counts) tally() (writes, renders int64) { return c.writes.Load(), c.renders.Load() }

// workerArgument is the only argument of a worker process. The rest it learns from its standard input.
const workerArgument = "worker"

// An order tells a worker process what it works for. It is the first value on its standard input, as JSON. Each further
// value asks for its tally, which is written to its standard output. The process ends when its input does.
type order struct {
	Redis     string // URL
	Namespace string
	Slots     int         // how many handlers, and how many renders, run at once
	Alone     bool        // every need is rendered by itself
	Group     *groupOrder // the application is that of the group; nil for that of the storm
}

// state returns what the names of everything begin with that the application has in Redis.
func (o order) state() string { return o.Namespace + ":" }

// application returns the one that the order is about, and the options that its worker has besides.
func (o order) application(rdb *redis.Client) (application, []scales.WorkerOption) {
	if o.Group == nil {
		return newListPage(rdb, o.state()), nil
	}
	return newGroupPages(rdb, o.state(), o.Group.RenderTime), []scales.WorkerOption{scales.GroupLimit(o.Group.Limit)}
}

// A tally is how often a worker process has called the application, and what processor time it has taken.
type tally struct {
	Writes, Renders int64
	CPU             time.Duration
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
		writes, renders := app.tally()
		if err := output.Encode(tally{writes, renders, cpu}); err != nil {
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

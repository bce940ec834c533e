package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/render"
)

// renderTime is how long the application takes to render the list.
const renderTime = 20 * time.Millisecond

// workerSlots is how many handlers, and how many renders, a worker process runs at once: the defaults of the library.
const workerSlots = 16

// listKey is the resource that the application has.
const listKey = "/list"

// listPage is the application of the storm: a POST adds an item to the list, a GET shows how many there are. The list is
// in Redis, so it is the same for all processes.
type listPage struct {
	rdb    *redis.Client
	items  string // the Redis key of the number of items
	counts struct{ writes, renders atomic.Int64 }
}

func newListPage(rdb *redis.Client, namespace string) *listPage {
	return &listPage{rdb: rdb, items: namespace + ":items"}
}

func (p *listPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != listKey:
		http.NotFound(w, r)
	case r.Method == http.MethodPost:
		p.counts.writes.Add(1)
		if err := p.rdb.Incr(r.Context(), p.items).Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		p.counts.renders.Add(1)
		p.show(w, r)
	}
}

// show looks at the list first and is slow after that, so that what it answers is as old as it can be.
func (p *listPage) show(w http.ResponseWriter, r *http.Request) {
	items, err := p.rdb.Get(r.Context(), p.items).Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	timer := time.NewTimer(renderTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		_, _ = fmt.Fprint(w, items)
	case <-r.Context().Done():
	}
}

// workerArgument is the only argument of a worker process. The rest it learns from its standard input.
const workerArgument = "storm-worker"

// An order tells a worker process what it works for. It is the first value on its standard input, as JSON. Each further
// value asks for its tally, which is written to its standard output. The process ends when its input does.
type order struct {
	Redis     string // URL
	Namespace string
	Alone     bool // every need is rendered by itself
}

// A tally is how often a worker process has called the application, and what processor time it has taken.
type tally struct {
	Writes, Renders int64
	CPU             time.Duration
}

// closeTimeout is how long a worker process may take to end when its worker has drained.
const closeTimeout = 5 * time.Second

// runStormWorker is a worker process.
func runStormWorker(ctx context.Context, in io.Reader, out io.Writer) (err error) {
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
	page := newListPage(rdb, o.Namespace)
	guarded := render.Guarded{Handler: page, Guards: render.Guards{NoSharing: o.Alone}}
	worker, err := scales.NewWorker(cache, guarded, scales.Concurrency(workerSlots), scales.RenderConcurrency(workerSlots))
	if err != nil {
		return err
	}
	working, stop := context.WithCancelCause(ctx)
	go func() { stop(reportTallies(input, json.NewEncoder(out), page)) }()
	if err := worker.Run(working); err != nil {
		return err
	}
	if cause := context.Cause(working); !errors.Is(cause, io.EOF) {
		return cause
	}
	return nil
}

// reportTallies returns io.EOF when the input has ended.
func reportTallies(input *json.Decoder, output *json.Encoder, page *listPage) error {
	for {
		var question struct{}
		if err := input.Decode(&question); err != nil {
			return err
		}
		cpu, err := ownUsage()
		if err != nil {
			return err
		}
		if err := output.Encode(tally{page.counts.writes.Load(), page.counts.renders.Load(), cpu}); err != nil {
			return err
		}
	}
}

// A workerProcess is this program, started once more.
type workerProcess struct {
	command *exec.Cmd
	input   io.WriteCloser
	orders  *json.Encoder
	replies *json.Decoder
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
}

// startWorker starts a worker process, which is killed when ctx ends.
func startWorker(ctx context.Context, o order) (*workerProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &workerProcess{command: exec.CommandContext(ctx, program, workerArgument), ended: make(chan struct{})}
	p.command.Stderr = os.Stderr
	p.command.SysProcAttr = diesWithParent()
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	p.orders, p.replies = json.NewEncoder(p.input), json.NewDecoder(output)
	started := make(chan error)
	go func() {
		// On Linux the child dies with the thread that started it, so that thread stays ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := p.command.Start()
		started <- err
		if err == nil {
			p.err = p.command.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a worker process: %w", err)
	}
	if err := p.orders.Encode(o); err != nil {
		return nil, errors.Join(fmt.Errorf("order of a worker process: %w", err), p.close())
	}
	return p, nil
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

// died says how the process has ended, or nil.
func (p *workerProcess) died() error {
	select {
	case <-p.ended:
		return fmt.Errorf("a worker process has ended: %v", p.err)
	default:
		return nil
	}
}

// close lets the process finish and waits until it has ended, for longer than a worker drains.
func (p *workerProcess) close() error {
	const patience = 40 * time.Second
	_ = p.input.Close() // an error says that the process has gone
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		_ = p.command.Process.Kill() // an error says that it has ended
		<-p.ended
		return fmt.Errorf("a worker process had to be killed %v after its input had ended", patience)
	}
	if p.err != nil {
		return fmt.Errorf("a worker process has ended: %w", p.err)
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/itscales/scales"
	"github.com/itscales/scales/internal/partition"
)

// readerArgument is the only argument of a process that answers reads. The rest it learns from its standard input, as
// worker processes do.
const readerArgument = "reader"

// What answers reads.
const (
	oursCopied = "ours, local copy" // a Server
	oursRedis  = "ours, Redis"      // a Server without a local copy
	bare       = "bare handler"     // a handler that writes the same fields and bytes from its memory
	plainGet   = "GET per request"  // a handler that does one GET of go-redis for each request and writes what it gets
)

// A readOrder tells a process what answers reads in it.
type readOrder struct {
	Kind      string
	Redis     string // URL
	Namespace string
	Keys      []string // with oursCopied: what is read before the process is ready

	// What the handlers write that are not ours.
	Header http.Header
	Body   []byte
}

// A ready process says where it listens. After that it answers each value on its standard input with the processor time
// that it has taken.
type ready struct{ Addr string }

// runReader is a process that answers reads.
func runReader(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	runtime.GOMAXPROCS(1) // the other processor is for the clients
	input, output := json.NewDecoder(in), json.NewEncoder(out)
	var o readOrder
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("the order of a reading process: %w", err)
	}
	handler, end, err := o.handler(ctx)
	if err != nil {
		return err
	}
	defer end()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	front := &http.Server{Handler: handler}
	defer front.Close()
	go func() { _ = front.Serve(listener) }() // clients notice when it ends
	if err := output.Encode(ready{listener.Addr().String()}); err != nil {
		return err
	}
	for {
		var question struct{}
		if err := input.Decode(&question); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		cpu, err := ownUsage()
		if err == nil {
			err = output.Encode(cpu)
		}
		if err != nil {
			return err
		}
	}
}

// handler returns what answers.
func (o readOrder) handler(ctx context.Context) (h http.Handler, end func(), err error) {
	if o.Kind == bare {
		return bareHandler(o.Header, o.Body), func() {}, nil
	}
	rdb, err := clientOf(o.Redis)
	if err != nil {
		return nil, nil, err
	}
	if o.Kind == plainGet {
		return getHandler(rdb, o.Namespace, o.Header), func() { _ = rdb.Close() }, nil
	}
	cache, err := scales.NewCache(rdb, scales.Namespace(o.Namespace))
	if err != nil {
		return nil, nil, err
	}
	var options []scales.ServerOption
	if o.Kind == oursRedis {
		options = append(options, scales.LocalCopy(0))
	}
	server, err := scales.NewServer(cache, options...)
	if err != nil {
		return nil, nil, err
	}
	if o.Kind == oursCopied {
		err = server.Warm(ctx)
	}
	return server, func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = server.Close(ending) // it ends with the process
		_ = cache.Close(ending)
		_ = rdb.Close()
	}, err
}

// bareHandler writes what it is given, in the cheapest way there is in net/http: no map is looked up, and no field made,
// but those of the answer.
func bareHandler(header http.Header, body []byte) http.Handler {
	type prepared struct {
		name   string
		values []string
	}
	var fields []prepared
	for name, values := range header {
		fields = append(fields, prepared{name, values})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for i := range fields {
			h[fields[i].name] = fields[i].values
		}
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body)
	})
}

// getHandler asks Redis for the entry of the path. What it gets it writes as a body of its own would be: the line of
// metadata is cut off, and its fields are known.
func getHandler(rdb *redis.Client, namespace string, header http.Header) http.Handler {
	prefix := partition.Prefix(namespace, 0) + "e:"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := rdb.Get(r.Context(), prefix+r.URL.Path).Bytes()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		length, err := strconv.Atoi(header.Get("Content-Length"))
		if err != nil || length > len(value) {
			http.Error(w, "an entry of another length", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		for name, values := range header {
			h[name] = values
		}
		_, _ = w.Write(value[len(value)-length:])
	})
}

// A readerProcess is this program, started once more to answer reads.
type readerProcess struct {
	*child
	addr string
}

func startReader(ctx context.Context, o readOrder) (*readerProcess, error) {
	c, err := startChild(ctx, readerArgument, o)
	if err != nil {
		return nil, err
	}
	p := &readerProcess{child: c}
	var r ready
	if err := c.replies.Decode(&r); err != nil {
		return nil, errors.Join(fmt.Errorf("a reading process is not ready: %w", err), c.close())
	}
	p.addr = r.Addr
	return p, nil
}

// cpu returns the processor time that the process has taken.
func (p *readerProcess) cpu() (d time.Duration, err error) {
	if err = p.orders.Encode(struct{}{}); err == nil {
		err = p.replies.Decode(&d)
	}
	if err != nil {
		return 0, fmt.Errorf("processor time of a reading process: %w", err)
	}
	return d, nil
}

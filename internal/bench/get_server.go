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
	bare304    = "bare handler 304" // one that compares If-None-Match with the tag that it has, and writes the same fields
	bareEcho   = "bare echo"        // an echo, as net/http calls it without us
	plainGet   = "GET per request"  // a handler that does one GET of go-redis for each request and writes what it gets
)

// A readOrder tells a process what answers reads in it.
type readOrder struct {
	Kind      string
	Redis     string // URL
	Namespace string
	Limit     int64  // of the local copy in bytes; 0 for the default
	Pool      int    // connections of the client of Redis; 0 for the default
	Procs     int    // GOMAXPROCS; 0 for 1, because the other processor is for the clients
	Heap      int    // MiB that the process holds besides, so that the collector runs as often on both sides
	Profile   string // where a CPU profile goes; "" for none

	// What the handlers write that are not ours.
	Header http.Header
	Body   []byte
	Tag    string // with bare304
}

// A ready process says where it listens. After that it answers each value on its standard input with the processor time
// that it has taken.
type ready struct{ Addr string }

// runReader is a process that answers reads.
func runReader(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	input, output := json.NewDecoder(in), json.NewEncoder(out)
	var o readOrder
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("the order of a reading process: %w", err)
	}
	runtime.GOMAXPROCS(max(o.Procs, 1))
	ballast := make([]byte, o.Heap<<20)
	defer runtime.KeepAlive(ballast)
	stopProfile, err := profileTo(o.Profile)
	if err != nil {
		return err
	}
	defer stopProfile()
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
	switch o.Kind {
	case bare:
		return bareHandler(o.Header, o.Body), func() {}, nil
	case bare304:
		return bare304Handler(o.Header, o.Tag), func() {}, nil
	case bareEcho:
		return new(echo), func() {}, nil
	}
	rdb, err := clientWith(o.Redis, o.Pool)
	if err != nil {
		return nil, nil, err
	}
	if o.Kind == plainGet {
		h, err := getHandler(rdb, o.Namespace, o.Header)
		return h, func() { _ = rdb.Close() }, err
	}
	cache, err := scales.NewCache(rdb, scales.Namespace(o.Namespace))
	if err != nil {
		return nil, nil, err
	}
	var options []scales.ServerOption
	if o.Kind == oursRedis {
		options = append(options, scales.LocalCopy(0))
	} else if o.Limit > 0 {
		options = append(options, scales.LocalCopy(o.Limit))
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

// fields are those of an answer, ready to be put into the header of a response.
type fields []struct {
	name   string
	values []string
}

func fieldsOf(header http.Header) (all fields) {
	for name, values := range header {
		all = append(all, struct {
			name   string
			values []string
		}{name, values})
	}
	return all
}

func (all fields) put(h http.Header) {
	for i := range all {
		h[all[i].name] = all[i].values
	}
}

// bareHandler writes what it is given, in the cheapest way there is in net/http: it looks at nothing of the request, and makes
// nothing but the entries of the header.
func bareHandler(header http.Header, body []byte) http.Handler {
	fields := fieldsOf(header)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fields.put(w.Header())
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body)
	})
}

// bare304Handler answers those who have the tag.
func bare304Handler(header http.Header, tag string) http.Handler {
	fields := fieldsOf(header)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if values := r.Header["If-None-Match"]; len(values) != 1 || values[0] != tag {
			http.Error(w, "another tag", http.StatusInternalServerError)
			return
		}
		fields.put(w.Header())
		w.WriteHeader(http.StatusNotModified)
	})
}

// getHandler asks Redis for the entry of the path. What it gets it writes as a body of its own would be: the line of
// metadata is cut off, and its fields are known.
func getHandler(rdb *redis.Client, namespace string, header http.Header) (http.Handler, error) {
	fields, prefix := fieldsOf(header), partition.Prefix(namespace, 0)+"e:"
	length, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := rdb.Get(r.Context(), prefix+r.URL.Path).Bytes()
		if err == nil && length > len(value) {
			err = errors.New("an entry of another length")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fields.put(w.Header())
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(value[len(value)-length:])
	}), nil
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

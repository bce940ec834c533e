package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// loaderArgument is the only argument of a process that reads at a steady rate.
const loaderArgument = "loader"

// A loadOrder tells a process what to read, and how often.
type loadOrder struct {
	Addr        string
	Paths       []string // read in turn; all responses are as long as that of the first
	Rate        int      // reads per second, of all connections together
	Connections int
}

// A load is how many reads were answered so far.
type load struct{ Reads int64 }

// runLoader is a process that reads at a steady rate until its standard input ends. It answers each value on it with what was
// read so far.
func runLoader(ctx context.Context, in io.Reader, out io.Writer) error {
	input, output := json.NewDecoder(in), json.NewEncoder(out)
	var o loadOrder
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("the order of a loading process: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		reads atomic.Int64
		group sync.WaitGroup
	)
	for i := range o.Connections {
		group.Go(func() {
			if err := o.readSteadily(ctx, i, &reads); err != nil {
				stop(err)
			}
		})
	}
	go func() {
		for ctx.Err() == nil {
			var question struct{}
			err := input.Decode(&question)
			if err == nil {
				err = output.Encode(load{reads.Load()})
			}
			if err != nil {
				stop(err)
			}
		}
	}()
	group.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, io.EOF) {
		return cause
	}
	return nil
}

// readSteadily makes reads over one connection, each when it is due. If one is late, those behind it follow at once.
func (o loadOrder) readSteadily(ctx context.Context, number int, reads *atomic.Int64) error {
	var samples []*sample
	for i := number; len(samples) == 0 || i < len(o.Paths); i += o.Connections {
		s, err := sampleOf(ctx, o.Addr, o.Paths[i%len(o.Paths)], nil)
		if err != nil {
			return err
		}
		samples = append(samples, s)
	}
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })()
	pause := time.Second * time.Duration(o.Connections) / time.Duration(o.Rate)
	due := time.Now().Add(pause * time.Duration(number) / time.Duration(o.Connections))
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return nil
		}
		if err := samples[n%len(samples)].exchange(connection); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		reads.Add(1)
		due = due.Add(pause)
	}
}

// A loaderProcess is this program, started once more to read.
type loaderProcess struct{ *child }

// startLoader returns when the process has begun to read.
func startLoader(ctx context.Context, o loadOrder) (*loaderProcess, error) {
	c, err := startChild(ctx, loaderArgument, o)
	if err != nil {
		return nil, err
	}
	p := &loaderProcess{c}
	for began := time.Now(); ; {
		reads, err := p.reads()
		switch {
		case err == nil && reads >= int64(o.Connections):
			return p, nil
		case err == nil && time.Since(began) > 10*time.Second:
			err = errors.New("it does not read")
		case err == nil:
			time.Sleep(10 * time.Millisecond)
			continue
		}
		return nil, errors.Join(err, c.close())
	}
}

// reads returns how many reads were answered so far.
func (p *loaderProcess) reads() (int64, error) {
	err := p.orders.Encode(struct{}{})
	var l load
	if err == nil {
		err = p.replies.Decode(&l)
	}
	if err != nil {
		return 0, fmt.Errorf("a loading process: %w", err)
	}
	return l.Reads, nil
}

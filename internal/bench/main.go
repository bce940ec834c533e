// Command bench measures Scales against what a Go team would write by hand, or against itself without one of its mechanisms,
// both in one run on one Redis, and prints the ratio. See README.md beside it for what is counted and what is not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/itscales/scales/internal/redistest"
)

// settings are what all benchmarks understand.
type settings struct {
	redis   string        // URL; "" starts a redis-server
	window  time.Duration // of one measurement
	rounds  int           // pairs of measurements
	writes  int           // of one storm
	heap    int           // MiB that the process holds besides
	profile string        // where the CPU profile goes; "" for none
	out     io.Writer
}

// errUsage marks what the caller did wrong.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	execute := run
	if slices.Equal(os.Args[1:], []string{workerArgument}) {
		execute = func(ctx context.Context, _ []string, out io.Writer) error { return runStormWorker(ctx, os.Stdin, out) }
	}
	switch err := execute(ctx, os.Args[1:], os.Stdout); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	benchmarks := map[string]func(context.Context, settings) error{"queue": benchQueue, "storm": benchStorm}
	names := strings.Join(slices.Sorted(maps.Keys(benchmarks)), ", ")

	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	name := flags.String("run", "", "which benchmark to run: "+names)
	url := flags.String("redis", "", "redis:// URL of the Redis to use; by default a redis-server is started")
	seconds := flags.Float64("seconds", 2, "queue: length of one measurement")
	rounds := flags.Int("rounds", 5, "pairs of measurements, with queue at each number of callers")
	writes := flags.Int("writes", 2000, "storm: how many writes are sent at once")
	heap := flags.Int("heap", 64, "queue: MiB of memory that the process holds besides, so that the collector is not what is measured")
	profile := flags.String("profile", "", "file for a CPU profile; the label side tells whose a sample is")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	benchmark, ok := benchmarks[*name]
	switch {
	case !ok:
		return fmt.Errorf("%w: -run %q names no benchmark; there are: %s", errUsage, *name, names)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	case *seconds < 0.1 || *seconds > 60:
		return fmt.Errorf("%w: -seconds %v is not between 0.1 and 60", errUsage, *seconds)
	case *rounds < 1 || *rounds > 100:
		return fmt.Errorf("%w: -rounds %d is not between 1 and 100", errUsage, *rounds)
	case *writes < 1 || *writes > 5000:
		return fmt.Errorf("%w: -writes %d is not between 1 and 5000", errUsage, *writes)
	case *heap < 0 || *heap > 4096:
		return fmt.Errorf("%w: -heap %d is not between 0 and 4096", errUsage, *heap)
	}
	return benchmark(ctx, settings{
		redis: *url, window: time.Duration(*seconds * float64(time.Second)), rounds: *rounds, writes: *writes, heap: *heap,
		profile: *profile, out: out,
	})
}

// server returns the URL of the Redis to use, and what ends the redis-server if one was started.
func (s settings) server() (url string, stop func(), err error) {
	if s.redis != "" {
		return s.redis, func() {}, nil
	}
	server, err := redistest.Launch()
	if err != nil {
		return "", nil, fmt.Errorf("start a redis-server (or name one with -redis): %w", err)
	}
	return "redis://" + server.Addr(), server.Stop, nil
}

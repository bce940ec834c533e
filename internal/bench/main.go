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
	redis  string        // URL; "" starts a redis-server
	window time.Duration // of one measurement; with group it may be longer
	rounds int           // pairs of measurements
	writes int           // of one storm
	slots  int           // of each worker process, for handlers and for renders

	memberCount int           // of the group
	rate        int           // writes per second while the group changes
	groupLimit  int           // option GroupLimit
	renderTime  time.Duration // of a page of the group, besides

	entries int // of memory and fill
	reads   int // per second, of propagate and peers

	heap    int    // MiB that the process holds besides
	profile string // where the CPU profile goes; "" for none
	out     io.Writer
}

// errUsage marks what the caller did wrong.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	execute := run
	if child := children[strings.Join(os.Args[1:], " ")]; child != nil {
		execute = func(ctx context.Context, _ []string, out io.Writer) error { return child(ctx, os.Stdin, out) }
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

// children are what this program does when it has started itself.
var children = map[string]func(ctx context.Context, in io.Reader, out io.Writer) error{
	workerArgument: runWorker,
	readerArgument: runReader,
	holderArgument: runHolder,
	loaderArgument: runLoader,
}

// A benchmark is what -run names.
type benchmark struct {
	run    func(context.Context, settings) error
	window time.Duration // unless -seconds says otherwise

	entries  int  // unless -entries says otherwise
	ownRedis bool // -redis is not heard
}

var benchmarks = map[string]benchmark{
	"fill":      {run: benchFill, entries: 100_000},
	"get":       {run: benchGet, window: 2 * time.Second},
	"get304":    {run: benchGet304, window: 2 * time.Second},
	"getredis":  {run: benchGetRedis, window: 2 * time.Second},
	"group":     {run: benchGroup, window: 5 * time.Second},
	"propagate": {run: benchPropagate, window: 10 * time.Second},
	"overload":  {run: benchOverload, window: time.Minute},
	"memory":    {run: benchMemory, entries: 1_000_000, ownRedis: true},
	"peers":     {run: benchPeers, window: 3 * time.Second, ownRedis: true},
	"post":      {run: benchPost, window: 2 * time.Second},
	"queue":     {run: benchQueue, window: 2 * time.Second},
	"storm":     {run: benchStorm},
	"workers":   {run: benchWorkers, window: 3 * time.Second},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	names := strings.Join(slices.Sorted(maps.Keys(benchmarks)), ", ")
	s := settings{out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	name := flags.String("run", "", "which benchmark to run: "+names)
	flags.StringVar(&s.redis, "redis", "", "redis:// URL of the Redis to use; by default a redis-server is started")
	seconds := flags.Float64("seconds", 0, "length of one measurement, by default 2; peers, workers: 3; propagate: 10; overload: 60; group: least length of one, by default 5")
	flags.IntVar(&s.rounds, "rounds", 5, "pairs of measurements, with queue at each number of callers")
	flags.IntVar(&s.writes, "writes", 2000, "storm: how many writes are sent at once")
	flags.IntVar(&s.slots, "slots", workerSlots, "storm, group, post: how many handlers, and how many renders, each worker process runs at once")
	flags.IntVar(&s.memberCount, "members", 10_000, "group: how many members it has")
	flags.IntVar(&s.rate, "rate", 200, "group: how many writes are due in a second")
	flags.IntVar(&s.groupLimit, "grouplimit", 256, "group: how many members are rendered before the change is answered")
	flags.DurationVar(&s.renderTime, "rendertime", 0, "group: how long a render takes besides the work that it is")
	flags.IntVar(&s.entries, "entries", 0, "memory, fill: how many entries there are, by default 1,000,000 and 100,000")
	flags.IntVar(&s.reads, "reads", 10_000, "propagate, peers: how many reads are due in a second")
	flags.IntVar(&s.heap, "heap", 64, "queue, get, post: MiB of memory that a process holds besides, so that the collector is not what is measured")
	flags.StringVar(&s.profile, "profile", "", "file for a CPU profile: of this process, where the label side tells whose a sample is; with get and post, of the process of our server, with get one for each page")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	b, ok := benchmarks[*name]
	switch {
	case !ok:
		return fmt.Errorf("%w: -run %q names no benchmark; there are: %s", errUsage, *name, names)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	s.window = b.window
	if *seconds != 0 {
		s.window = time.Duration(*seconds * float64(time.Second))
	}
	if s.entries == 0 {
		s.entries = b.entries
	}
	if err := s.check(b); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return b.run(ctx, s)
}

// check returns an error that names a setting which makes no sense.
func (s settings) check(b benchmark) error {
	switch {
	case b.window > 0 && (s.window < 100*time.Millisecond || s.window > time.Minute):
		return fmt.Errorf("-seconds %v is not between 0.1 and 60", s.window.Seconds())
	case s.rounds < 1 || s.rounds > 100:
		return fmt.Errorf("-rounds %d is not between 1 and 100", s.rounds)
	case s.slots < 1 || s.slots > 1000:
		return fmt.Errorf("-slots %d is not between 1 and 1000", s.slots)
	case s.writes < 1 || s.writes > 5000:
		return fmt.Errorf("-writes %d is not between 1 and 5000", s.writes)
	case s.memberCount < 1 || s.memberCount > 90_000:
		return fmt.Errorf("-members %d is not between 1 and 90000", s.memberCount)
	case s.rate < 1 || s.rate > 10_000:
		return fmt.Errorf("-rate %d is not between 1 and 10000", s.rate)
	case s.groupLimit < 0:
		return fmt.Errorf("-grouplimit %d is negative", s.groupLimit)
	case s.renderTime < 0 || s.renderTime > time.Second:
		return fmt.Errorf("-rendertime %v is not between 0 and 1s", s.renderTime)
	case b.entries > 0 && (s.entries < 1 || s.entries > 5_000_000):
		return fmt.Errorf("-entries %d is not between 1 and 5000000", s.entries)
	case b.ownRedis && s.redis != "":
		return errors.New("-redis: this benchmark starts a redis-server of its own")
	case s.reads < 1 || s.reads > 100_000:
		return fmt.Errorf("-reads %d is not between 1 and 100000", s.reads)
	case s.heap < 0 || s.heap > 4096:
		return fmt.Errorf("-heap %d is not between 0 and 4096", s.heap)
	}
	return nil
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

// begin returns the Redis to use, its version, and what ends it, and the profile of this process if one was asked for.
func (s settings) begin(ctx context.Context) (url, version string, stop func(), err error) {
	url, stopRedis, err := s.server()
	if err != nil {
		return "", "", nil, err
	}
	stopProfile, err := profileTo(s.profile)
	if err != nil {
		stopRedis()
		return "", "", nil, err
	}
	stop = func() {
		stopProfile()
		stopRedis()
	}
	if version, err = versionOf(ctx, url); err != nil {
		stop()
		return "", "", nil, err
	}
	return url, version, stop, nil
}

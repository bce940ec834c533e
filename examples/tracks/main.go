// Command tracks is a small web application about music tracks behind Scales: pages, forms and JSON documents of tracks
// and artists, made with chi, html/template and SQLite.
//
//	go run ./examples/tracks
//
// runs everything in one process, with a Redis of its own inside. To run the modules apart, give each process a role and
// the same Redis and database:
//
//	tracks -role worker -redis redis://127.0.0.1:6379 -db tracks.db
//	tracks -role server -redis redis://127.0.0.1:6379 -listen 127.0.0.1:8080
//	tracks -role fill   -redis redis://127.0.0.1:6379 -db tracks.db
//
// There may be any number of servers and workers. A server keeps a copy of what is read in its own memory: -local-copy says
// how much, -warm has it read everything before it is ready, and -redis-replicas names replicas of Redis from which it may
// get what it has not got. -role verify compares the cache with the application, and with -repair
// renders again what differs; -role explain /tracks/7 shows what the cache knows of a page. -role app serves the bare application, without a cache, to compare.
//
// A line "ready <role>" on standard output says that the process is at work, with the address if it listens; fill and
// verify end with a JSON object that counts what they did, and explain is nothing but one. Everything else goes to standard error. SIGINT and SIGTERM let a process
// finish what it has begun. The exit status is 0 if all is done, 1 if something failed or has drifted and 2 if the flags make no sense.
//
// Where to start reading: application.go has the routes, handlers.go the writes of tracks, and writes.go says which pages they
// change. artists.go has the writes of artists, which name groups of pages (groups.go) in their responses and leave the
// rest to the cache. Only handlers.go, roles.go and fill.go know of Scales.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// Each failure of Redis is an error to somebody, who logs it; the client need not log it as well.
	redis.SetLogger(&logging.VoidLogger{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal drains; a second one finds the default again and ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit status. It drains and returns when ctx is done.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	settings, err := parseSettings(arguments, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage
	}
	p := &program{
		settings: settings,
		logger:   slog.New(slog.NewTextHandler(stderr, nil)),
		stdout:   stdout,
		stderr:   stderr,
	}
	err = p.roles()[settings.role](ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && p.role != "fill" {
		err = nil // told to stop before it was ready; only a fill has something to finish
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "tracks: %v\n", err)
		return exitUsage
	}
	if err != nil {
		p.logger.Error("the "+settings.role+" failed", "error", err)
		return exitFailed
	}
	return exitDone
}

// program is one process in its role.
type program struct {
	settings
	logger *slog.Logger
	stdout io.Writer
	stderr io.Writer
}

// usageError is an error in the flags that shows only when they are used.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// ready says on standard output that the process is at work. listener is nil if it does not listen.
func (p *program) ready(listener net.Listener) error {
	line := "ready " + p.role
	if listener != nil {
		line += " http://" + listener.Addr().String()
	}
	if _, err := fmt.Fprintln(p.stdout, line); err != nil {
		return fmt.Errorf("writing to standard output: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"os"
	"strconv"
	"fmt"
)

func benchQueue(ctx context.Context, s settings) error {
	options, stop, err := s.connect()
	if err != nil { return err }
	defer stop()
	_ = options
	return explore(ctx, s, options.Addr)
}

func env(name string, d int) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil { return d }
	return n
}
var _ = fmt.Sprint

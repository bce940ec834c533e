package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"runtime/pprof"

	"github.com/redis/go-redis/v9"
)

func ints(s string) (r []int) {
	for _, f := range strings.Split(s, ",") {
		var n int
		fmt.Sscan(f, &n)
		r = append(r, n)
	}
	return
}

func explore(ctx context.Context, s settings, addr string) error {
	if s.profile != "" {
		f, err := os.Create(s.profile)
		if err != nil { return err }
		pprof.StartCPUProfile(f)
		defer f.Close()
		defer pprof.StopCPUProfile()
	}
	for range s.rounds {
	for _, pool := range ints(os.Getenv("POOLS")) {
		for _, side := range strings.Split(os.Getenv("SIDES"), ",") {
			for _, n := range ints(os.Getenv("NS")) {
				for _, callers := range ints(os.Getenv("CALLERS")) {
					rdb := redis.NewClient(&redis.Options{Addr: addr, PoolSize: pool, ContextTimeoutEnabled: true})
					var sd interface{ do(context.Context, string) (string, error); close(context.Context) error }
					var err error
					if side == "list" {
						sd, err = newList(ctx, rdb, n)
					} else {
						sd, err = newOurs(ctx, rdb, n)
					}
					if err != nil { return err }
					m, err := measure(ctx, rdb, sd, callers, s.window)
					if err != nil { return err }
					fmt.Printf("%-5s callers %3d n %3d pool %3d  %s\n", side, callers, n, pool, m)
					if err := sd.close(ctx); err != nil { return err }
					rdb.Close()
				}
			}
		}
	}
	}
	return nil
}

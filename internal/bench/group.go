package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// benchGroup compares writes at a steady rate while a group of many members changes with the same while it does not.
func benchGroup(ctx context.Context, s settings) error {
	url, version, stop, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer stop()
	state := fmt.Sprintf("a group of %d members, %v to render besides, %d writes/s, %d worker processes of %d handlers and %d renders each, "+
		"GroupLimit %d, 1 server in the process of the clients", s.memberCount, s.renderTime, s.rate, siteWorkers, s.slots, s.slots, s.groupLimit)
	fmt.Fprintf(s.out, "group: %s; %d rounds, phases of %v at least\n", state, s.rounds, s.window)
	fmt.Fprintf(s.out, "%d processors, %s\n\n", runtime.NumCPU(), version)

	limit := groupTimeout * time.Duration(1+3*s.rounds)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the benchmark took longer than %v", limit))
	defer cancel()
	g := &groupSite{settings: s}
	err = g.start(ctx, url)
	if err == nil {
		err = g.compare(ctx)
	}
	if err = errors.Join(err, g.close(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "with %s\n", state)
	return nil
}

// Ways to change the group. The last two end in the same members, but the first of them renders some before it is answered.
const (
	quiet      = iota // not at all
	byResponse        // a request whose response says so
	byProgram         // a program that calls Cache.UpdateGroups
	groupWays
)

// compare makes all rounds and prints what came of them.
func (g *groupSite) compare(ctx context.Context) error {
	names := [groupWays]string{"quiet", "response", "program"}
	var phases [groupWays][]phase
	var ratios, behind, program, seconds []float64
	for round := range g.rounds {
		ways := []int{quiet, byResponse, byProgram}
		if round%2 == 1 { // a machine that grows slower or faster favours none
			slices.Reverse(ways)
		}
		for _, way := range ways {
			p, err := g.phase(ctx, way)
			if err != nil {
				return fmt.Errorf("phase %s: %w", names[way], err)
			}
			phases[way] = append(phases[way], p)
		}
		without, with, other := phases[quiet][round], phases[byResponse][round], phases[byProgram][round]
		ratios = append(ratios, float64(with.p99)/float64(without.p99))
		behind = append(behind, float64(with.behind)/float64(without.p99))
		program = append(program, float64(other.p99)/float64(without.p99))
		seconds = append(seconds, with.current.Seconds())
		for way, name := range names {
			fmt.Fprintf(g.out, "  %-8s  %v\n", name, phases[way][round])
		}
		fmt.Fprintf(g.out, "  ratio of p99 %.2f, of the writes until the last member is current %.2f; program %.2f\n", ratios[round], behind[round], program[round])
	}
	fmt.Fprintf(g.out, "medians\n")
	for way, name := range names {
		fmt.Fprintf(g.out, "  %-8s  %v\n", name, medianPhase(phases[way]))
	}
	fmt.Fprintf(g.out, "\nfigure group_write_p99_ratio %.2f\n", median(ratios))
	fmt.Fprintf(g.out, "figure group_write_p99_ratio_until_current %.2f\n", median(behind))
	fmt.Fprintf(g.out, "figure group_write_p99_ratio_program %.2f\n", median(program))
	fmt.Fprintf(g.out, "figure group_last_member_seconds %.2f\n", median(seconds))
	return nil
}

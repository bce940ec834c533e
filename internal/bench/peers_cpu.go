package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc: Linux has the same on all common architectures (USER_HZ).
const clockTick = 10 * time.Millisecond

// treeCPU returns the processor time, user and system, that processes and all their descendants have taken, those included
// that have ended and were waited for. It reads /proc, so there is no other system than Linux for it.
func treeCPU(roots []int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	type process struct {
		parent int
		ticks  int64
	}
	all := make(map[int]process, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name of the program, in parentheses, may have anything in it.
		end := strings.LastIndexByte(string(text), ')')
		fields := strings.Fields(string(text[end+1:]))
		if end < 0 || len(fields) < 15 {
			return 0, fmt.Errorf("%s: %q", file, text)
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, err
		}
		var p process
		p.parent, err = strconv.Atoi(fields[1])
		for _, field := range fields[11:15] { // utime, stime, cutime, cstime
			ticks, fieldErr := strconv.ParseInt(field, 10, 64)
			if fieldErr != nil {
				err = fieldErr
			}
			p.ticks += ticks
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		all[pid] = p
	}
	var total int64
	for pid, p := range all {
		for at, steps := pid, 0; at > 1 && steps < len(all); at, steps = all[at].parent, steps+1 {
			if slices.Contains(roots, at) {
				total += p.ticks
				break
			}
		}
	}
	for _, root := range roots {
		if _, ok := all[root]; !ok {
			return 0, fmt.Errorf("process %d has ended, or there is no /proc", root)
		}
	}
	return time.Duration(total) * clockTick, nil
}

package redistest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// diesWithParent has the kernel kill the child when we die, however we die.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// isStopped reports whether every thread of the process is stopped by a signal.
func isStopped(pid int) (bool, error) {
	directory := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(directory)
	if err != nil {
		return false, fmt.Errorf("list the threads of process %d: %w", pid, err)
	}
	for _, thread := range threads {
		line, err := os.ReadFile(directory + "/" + thread.Name() + "/stat")
		if err != nil {
			return false, fmt.Errorf("read the state of process %d: %w", pid, err)
		}
		// proc(5): the state is the field after the command, which stands in
		// parentheses and may itself contain some.
		_, state, found := bytes.Cut(line[bytes.LastIndexByte(line, ')')+1:], []byte(" "))
		if !found || state[0] != 'T' {
			return false, nil
		}
	}
	return true, nil
}

//go:build !linux

package redistest

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// diesWithParent changes nothing: only Linux can tie a child's life to ours. A
// test binary that is killed leaves its children running here.
func diesWithParent() *syscall.SysProcAttr { return nil }

// isStopped reports whether the process is stopped by a signal.
func isStopped(pid int) (bool, error) {
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return false, fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	return strings.HasPrefix(strings.TrimSpace(string(state)), "T"), nil
}

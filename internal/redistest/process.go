package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child process. Its methods are not safe for concurrent use.
type process struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended and was waited for
}

// startProcess runs the binary with its output appended to the file at logPath.
func startProcess(binary, logPath string, args []string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", binary, err)
	}
	defer log.Close() // the child has its own descriptor

	p := &process{command: exec.Command(binary, args...), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = diesWithParent()
	started := make(chan error)
	go func() {
		// On Linux a child with a parent death signal dies with the thread
		// that started it, not with the process. So that thread stays ours for
		// as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := p.command.Start()
		started <- err
		if err != nil {
			return
		}
		// A child that was killed is reported as an error; how it ended is
		// of no interest here, only that it has.
		_ = p.command.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL and returns when it has ended.
func (p *process) kill() error {
	err := p.command.Process.Signal(syscall.SIGKILL)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.pid(), err)
	}
	<-p.ended
	return nil
}

// pause stops the process with SIGSTOP and returns when the kernel has stopped
// all of it: the signal alone is only a request.
func (p *process) pause(ctx context.Context) error {
	if err := p.command.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause process %d: %w", p.pid(), err)
	}
	return await(ctx, p.ended, func(context.Context) error {
		stopped, err := isStopped(p.pid())
		if err != nil {
			return err
		}
		if !stopped {
			return fmt.Errorf("process %d still runs", p.pid())
		}
		return nil
	})
}

func (p *process) resume() error {
	if err := p.command.Process.Signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("resume process %d: %w", p.pid(), err)
	}
	return nil
}

var errProcessEnded = errors.New("the process has ended")

// await checks the condition until it holds, at growing intervals of at most
// 20 ms. It gives up, with the condition's last complaint, when the context
// ends or the process has ended.
func await(ctx context.Context, ended <-chan struct{}, condition func(context.Context) error) error {
	const longest = 20 * time.Millisecond
	interval := time.Millisecond
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.Join(errProcessEnded, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		interval = min(2*interval, longest)
		timer.Reset(interval)
	}
}

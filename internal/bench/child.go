package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// A child is this program, started once more. It learns from its standard input what to do, in JSON, and ends when that
// does.
type child struct {
	name    string
	command *exec.Cmd
	input   io.WriteCloser
	orders  *json.Encoder
	replies *json.Decoder
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
}

// startChild starts this program with an argument and its first order. It is killed when ctx ends.
func startChild(ctx context.Context, argument string, order any) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &child{name: argument, command: exec.CommandContext(ctx, program, argument), ended: make(chan struct{})}
	p.command.Stderr = os.Stderr
	p.command.SysProcAttr = diesWithParent()
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	p.orders, p.replies = json.NewEncoder(p.input), json.NewDecoder(output)
	started := make(chan error)
	go func() {
		// On Linux the child dies with the thread that started it, so that thread stays ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := p.command.Start()
		started <- err
		if err == nil {
			p.err = p.command.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a %s process: %w", argument, err)
	}
	if err := p.orders.Encode(order); err != nil {
		return nil, errors.Join(fmt.Errorf("order of a %s process: %w", argument, err), p.close())
	}
	return p, nil
}

// died says how the process has ended, or nil.
func (p *child) died() error {
	select {
	case <-p.ended:
		return fmt.Errorf("a %s process has ended: %v", p.name, p.err)
	default:
		return nil
	}
}

// close lets the process finish and waits until it has ended, for longer than a worker drains.
func (p *child) close() error {
	const patience = 40 * time.Second
	_ = p.input.Close() // an error says that the process has gone
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		_ = p.command.Process.Kill() // an error says that it has ended
		<-p.ended
		return fmt.Errorf("a %s process had to be killed %v after its input had ended", p.name, patience)
	}
	if p.err != nil {
		return fmt.Errorf("a %s process has ended: %w", p.name, p.err)
	}
	return nil
}

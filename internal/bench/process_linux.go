package main

import "syscall"

// diesWithParent has the kernel kill the child when we die, however we die.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// endsWithParent has the kernel tell the child to end when we die: it has children itself.
func endsWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}

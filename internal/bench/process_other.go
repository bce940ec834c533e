//go:build !linux

package main

import "syscall"

// diesWithParent changes nothing: only Linux can tie a child's life to ours. A worker process ends all the same when its
// standard input does.
func diesWithParent() *syscall.SysProcAttr { return nil }

// endsWithParent changes nothing either.
func endsWithParent() *syscall.SysProcAttr { return nil }

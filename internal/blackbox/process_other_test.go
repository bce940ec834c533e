//go:build !linux

package blackbox_test

import "syscall"

// diesWithParent changes nothing: only Linux can tie a child's life to ours.
func diesWithParent() *syscall.SysProcAttr { return nil }

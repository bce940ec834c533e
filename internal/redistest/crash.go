package redistest

import (
	"fmt"
	"os"
	"path/filepath"
)

// EverySecond has the server keep what it acknowledged as [AppendOnly] does, but for the last second: its file is synced once
// in a second. Killing the process loses nothing of it, since the kernel has it; see [Server.Crash].
func EverySecond() Option {
	return func(s *Server) {
		s.directives = append(s.directives, "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	}
}

// A Checkpoint is how far a server had written its append-only file.
type Checkpoint struct {
	file string
	size int64
}

// Checkpoint returns how far the server, which was started with [EverySecond], has written its file.
func (s *Server) Checkpoint() Checkpoint {
	at, err := s.checkpoint()
	if err != nil {
		s.fail("redistest: %v", err)
	}
	return at
}

func (s *Server) checkpoint() (at Checkpoint, err error) {
	files, err := filepath.Glob(filepath.Join(s.directory, "appendonlydir", "*.incr.aof"))
	if err != nil {
		return at, err
	}
	if len(files) != 1 {
		return at, fmt.Errorf("the append-only file is one of %q", files)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return at, err
	}
	return Checkpoint{file: files[0], size: info.Size()}, nil
}

// Crash ends the process with SIGKILL, and takes away what it has written since the checkpoint: that is what a machine
// leaves that crashes before the file is synced. Of the last command, or transaction, a part may be left.
func (s *Server) Crash(since Checkpoint) {
	s.Kill()
	now, err := s.checkpoint()
	if err == nil && (now.file != since.file || now.size < since.size) {
		err = fmt.Errorf("it is another file than at the checkpoint: %v, not %v", now, since)
	}
	if err == nil {
		err = os.Truncate(since.file, since.size)
	}
	if err != nil {
		s.fail("redistest: crash: %v", err)
	}
}

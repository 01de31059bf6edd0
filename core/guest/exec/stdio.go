//go:build linux

package exec

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"capsem/core/guest/frames"
)

// stdio is both ends of a command's files. Only our ends are known to Go's poller.
type stdio struct {
	// child are the command's ends; own says which of them are to be closed after the start.
	child [3]int
	own   []int
	// in, out and err are our ends of the pipes; in is nil when the command reads from the null device.
	in, out, err *os.File
	// terminal and keyboard are two descriptors of the terminal's master: one is read, the other written.
	terminal, keyboard *os.File
}

// open makes pipes or a terminal for the command.
func (r *run) open() (*stdio, error) {
	if r.req.PTY != nil {
		return openTerminal(r)
	}
	s := &stdio{child: [3]int{int(r.server.null.Fd()), -1, -1}}
	var err error
	if r.req.Stdin {
		s.child[0], s.in, err = pipe(false)
		s.own = append(s.own, s.child[0])
	}
	if err == nil {
		s.child[1], s.out, err = pipe(true)
		s.own = append(s.own, s.child[1])
	}
	if err == nil {
		s.child[2], s.err, err = pipe(true)
		s.own = append(s.own, s.child[2])
	}
	if err != nil {
		s.closeChild()
		s.closeParent()
		return nil, err
	}
	return s, nil
}

func openTerminal(r *run) (*stdio, error) {
	master, slave, err := frames.OpenTerminal(*r.req.PTY)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	keyboard, err := frames.Duplicate(master)
	if err != nil {
		_ = unix.Close(slave) // nothing was written
		_ = master.Close()    // nothing was written
		return nil, err       //nolint:wrapcheck // says what it did
	}
	return &stdio{child: [3]int{slave, slave, slave}, own: []int{slave}, terminal: master, keyboard: keyboard}, nil
}

// pipe makes a pipe of which the child has one end: the writing one for its output.
func pipe(output bool) (child int, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("make pipe: %w", err)
	}
	mine, child := fds[1], fds[0]
	if output {
		mine, child = fds[0], fds[1]
	}
	if err := unix.SetNonblock(mine, true); err != nil {
		_ = unix.Close(mine)  // nothing was written
		_ = unix.Close(child) // nothing was written
		return -1, nil, fmt.Errorf("make pipe: %w", err)
	}
	return child, os.NewFile(uintptr(mine), "pipe"), nil
}

func (s *stdio) closeChild() {
	for _, fd := range s.own {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written
		}
	}
	s.own = nil
}

func (s *stdio) closeParent() {
	for _, f := range []*os.File{s.in, s.out, s.err, s.terminal, s.keyboard} {
		if f != nil {
			_ = f.Close() // nothing was written
		}
	}
}

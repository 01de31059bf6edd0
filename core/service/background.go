package service

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// background is how a process runs that makes templates: in a session of its own.
func background() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// duplicate gives the caller a file of its own.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errDuplicate(err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

package rawio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2), done again when a signal interrupts it.
func Read(fd int, b []byte) (int, error) { return do(unix.SYS_READ, fd, b) }

// Write is write(2), done again when a signal interrupts it. It may write less than all.
func Write(fd int, b []byte) (int, error) { return do(unix.SYS_WRITE, fd, b) }

func do(call uintptr, fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))) //nolint:gosec // as the kernel defines it
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

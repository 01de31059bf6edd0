//go:build linux

package frames

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

// OpenTerminal makes a pseudo-terminal of a size. The slave is a plain descriptor for a command; the caller closes both.
func OpenTerminal(size proto.WindowSize) (master *os.File, slave int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("open terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	slave, err = openSlave(fd, size)
	if err != nil {
		_ = master.Close() // nothing was written
		return nil, -1, fmt.Errorf("open terminal: %w", err)
	}
	return master, slave, nil
}

func openSlave(master int, size proto.WindowSize) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, fmt.Errorf("unlock: %w", err)
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return -1, fmt.Errorf("number: %w", err)
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols}); err != nil {
		return -1, fmt.Errorf("size: %w", err)
	}
	slave, err := unix.Open("/dev/pts/"+strconv.FormatUint(uint64(n), 10), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("slave: %w", err)
	}
	return slave, nil
}

// Duplicate gives a second file of the same terminal or pipe, so that one side can be closed without the other.
func Duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("duplicate file: %w", err)
	}
	fd, dupErr := -1, error(nil)
	if err := conn.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, fmt.Errorf("duplicate file: %w", err)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicate file: %w", dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// ParseSize reads the content of a Resize frame.
func ParseSize(data []byte) (proto.WindowSize, error) {
	var size proto.WindowSize
	if len(data) > 256 {
		return size, proto.ErrBadStreamFrame
	}
	if err := json.Unmarshal(data, &size); err != nil {
		return size, fmt.Errorf("parse window size: %w", err)
	}
	return size, size.Validate() //nolint:wrapcheck // says what it did
}

// SetSize tells a terminal how large its window is.
func SetSize(master *os.File, size proto.WindowSize) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return fmt.Errorf("set window size: %w", err)
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	if err == nil {
		err = ioctlErr
	}
	if err != nil {
		return fmt.Errorf("set window size: %w", err)
	}
	return nil
}

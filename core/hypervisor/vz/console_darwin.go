package vz

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// tailBytes is how much of the end of the console is looked at for a panic.
const tailBytes = 8 << 10

// console drains what the guest writes into a bounded log.
type console struct {
	guestIn, guestOut *os.File // the guest's ends
	in, out           *os.File // ours
	log               *os.File
	done              sync.WaitGroup

	mu   sync.Mutex
	last []byte
}

func newConsole(log *os.File) (*console, error) {
	c := &console{}
	var err error
	if c.guestIn, c.in, err = os.Pipe(); err == nil {
		c.out, c.guestOut, err = os.Pipe()
	}
	if err == nil && log != nil {
		var fd int
		if fd, err = unix.FcntlInt(log.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			c.log = os.NewFile(uintptr(fd), log.Name())
		}
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("make console: %w", err)
	}
	c.done.Go(c.drain)
	return c, nil
}

// drain reads to the end, also when the log is full: a guest must not be stopped by its console.
func (c *console) drain() {
	left := hypervisor.ConsoleLimit
	buf := make([]byte, 4096)
	for {
		n, err := c.out.Read(buf)
		c.mu.Lock()
		c.last = append(c.last, buf[:n]...)
		c.last = c.last[max(0, len(c.last)-tailBytes):]
		c.mu.Unlock()
		if part := min(n, left); part > 0 && c.log != nil {
			left -= part
			if _, werr := c.log.Write(buf[:part]); werr != nil {
				left = 0
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *console) panicked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(string(c.last), "Kernel panic")
}

// close ends the drain and gives the files back. A nil console has none.
func (c *console) close() {
	if c == nil {
		return
	}
	for _, f := range []*os.File{c.guestOut, c.guestIn, c.in} {
		if f != nil {
			_ = f.Close() //nolint:errcheck // pipes
		}
	}
	if c.out != nil {
		// The framework may hold the other end a little longer.
		if err := c.out.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return
		}
	}
	c.done.Wait()
	if c.log != nil {
		_ = c.log.Close() //nolint:errcheck // what could be logged is
	}
}

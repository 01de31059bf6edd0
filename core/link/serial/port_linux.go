package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/link/rawio"
)

// Port is an open virtio-serial port. Read waits for bytes however long no host is connected, so a Port outlives its
// hosts: use one link.Acceptor on it and never reopen. It fails only when closed or when the device is unplugged.
// Deadlines work. One reader and one writer may use it at once.
type Port struct {
	file *os.File
	raw  syscall.RawConn
	// attempts counts read calls; a test holds that waiting costs none.
	attempts atomic.Int64
	closed   atomic.Bool
}

// Open waits until the port of that name exists and opens it. The kernel allows one user at a time.
func Open(ctx context.Context, name string) (*Port, error) {
	node, err := wait(ctx, "/", name)
	if err != nil {
		return nil, err
	}
	return openNode(node, os.O_RDWR)
}

func openNode(node string, mode int) (*Port, error) {
	file, err := os.OpenFile(node, mode|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open serial port: %w", err)
	}
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetDeadline(time.Time{}) // fails when the kernel cannot poll the file
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open serial port: %w", err)
	}
	return &Port{file: file, raw: raw}, nil
}

// Read reads at most one buffer of the port (4 KiB). With no host connected the kernel returns no bytes and reports a
// hang-up at once, each time; that is not an end. The poller reports each change once, so waiting for the next one, after
// a read that gave nothing, neither spins nor misses a host that comes back.
func (p *Port) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var n int
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		p.attempts.Add(1)
		n, failed = rawio.Read(int(fd), b)
		return n > 0 || (failed != nil && !errors.Is(failed, unix.EAGAIN))
	})
	if err == nil {
		err = failed
	}
	if err != nil && p.closed.Load() {
		err = os.ErrClosed
	}
	if err != nil {
		return 0, fmt.Errorf("read serial port: %w", err)
	}
	return n, nil
}

// Write writes all of b, waiting while the port is full or no host is connected. 32 KiB go out in one piece.
func (p *Port) Write(b []byte) (int, error) {
	n := 0
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		for n < len(b) && failed == nil {
			var put int
			put, failed = rawio.Write(int(fd), b[n:])
			n += put
		}
		if errors.Is(failed, unix.EAGAIN) {
			failed = nil
		}
		return n == len(b) || failed != nil
	})
	if err == nil {
		err = failed
	}
	if err != nil && p.closed.Load() {
		err = os.ErrClosed
	}
	if err != nil {
		return n, fmt.Errorf("write serial port: %w", err)
	}
	return n, nil
}

// SetDeadline bounds Read and Write.
func (p *Port) SetDeadline(t time.Time) error {
	if err := p.file.SetDeadline(t); err != nil {
		return fmt.Errorf("set deadline of serial port: %w", err)
	}
	return nil
}

// Close closes the port; Read and Write under way fail.
func (p *Port) Close() error {
	p.closed.Store(true)
	if err := p.file.Close(); err != nil {
		return fmt.Errorf("close serial port: %w", err)
	}
	return nil
}

var _ io.ReadWriteCloser = (*Port)(nil)

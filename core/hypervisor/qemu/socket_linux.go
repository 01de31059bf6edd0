package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// pastDeadline makes reads return at once.
var pastDeadline = time.Unix(1, 0)

// all lists the ends.
func (e ends) all() []*os.File { return []*os.File{e.qmp, e.console, e.link} }

// sockets makes the pairs for monitor, console and link; ours are in that order.
func sockets() (ours []net.Conn, theirs ends, err error) {
	for _, end := range []**os.File{&theirs.qmp, &theirs.console, &theirs.link} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			var conn net.Conn
			mine := os.NewFile(uintptr(fds[0]), "qemu")
			*end = os.NewFile(uintptr(fds[1]), "qemu")
			conn, err = net.FileConn(mine)
			err = errors.Join(err, mine.Close())
			if conn != nil {
				ours = append(ours, conn)
			}
		}
		if err != nil {
			closeAll(ours)
			for _, f := range theirs.all() {
				if f != nil {
					_ = f.Close()
				}
			}
			return nil, ends{}, fmt.Errorf("make sockets for QEMU: %w", err)
		}
	}
	return ours, theirs, nil
}

// duplicate gives the driver a file of its own for the console's log; nil stays nil.
func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil //nolint:nilnil // no log is no file
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("take console log: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// groupOf is the group of a file that its group may read and write.
func groupOf(info os.FileInfo) (uint32, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o060 != 0o060 {
		return 0, false
	}
	return st.Gid, true
}

// linkPort hands out the one connection to the guest's serial port, to one user at a time. The connection lives as long as
// QEMU: a user that closes it only lets go. Bytes of an earlier user may still be in it; the link's handshake skips them.
type linkPort struct {
	conn net.Conn
	free chan struct{}
	gone chan struct{}
	once sync.Once
}

func newLinkPort(conn net.Conn) *linkPort {
	p := &linkPort{conn: conn, free: make(chan struct{}, 1), gone: make(chan struct{})}
	p.free <- struct{}{}
	return p
}

// shut ends the connection and whoever uses it.
func (p *linkPort) shut() {
	p.once.Do(func() {
		close(p.gone)
		_ = p.conn.Close()
	})
}

// attach waits until the port is free.
func (p *linkPort) attach(ctx context.Context) (net.Conn, error) {
	select {
	case <-p.free:
	case <-p.gone:
		return nil, hypervisor.ErrGone
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to link: %w", context.Cause(ctx))
	}
	if err := p.conn.SetDeadline(time.Time{}); err != nil {
		return nil, hypervisor.ErrGone
	}
	return &borrowed{Conn: p.conn, port: p, ended: make(chan struct{})}, nil
}

// borrowed is the connection in the hands of one user. Its deadlines may be set by the user, and are by Close.
type borrowed struct {
	net.Conn
	port  *linkPort
	busy  sync.WaitGroup
	mu    sync.Mutex
	ended chan struct{}
}

// enter reports whether the user may still use the connection; then leave must follow.
func (b *borrowed) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.ended:
		return false
	default:
		b.busy.Add(1)
		return true
	}
}

// Read reads what the guest has sent.
func (b *borrowed) Read(p []byte) (int, error) {
	if !b.enter() {
		return 0, net.ErrClosed
	}
	defer b.busy.Done()
	n, err := b.Conn.Read(p)
	return n, b.mine(err)
}

// Write sends to the guest.
func (b *borrowed) Write(p []byte) (int, error) {
	if !b.enter() {
		return 0, net.ErrClosed
	}
	defer b.busy.Done()
	n, err := b.Conn.Write(p)
	return n, b.mine(err)
}

// mine turns the deadline that Close has set into what it means.
func (b *borrowed) mine(err error) error {
	select {
	case <-b.ended:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return net.ErrClosed
		}
	default:
	}
	return err
}

// SetDeadline, SetReadDeadline and SetWriteDeadline do nothing after Close.
func (b *borrowed) SetDeadline(t time.Time) error {
	return b.deadline(func() error { return b.Conn.SetDeadline(t) })
}

// SetReadDeadline is as SetDeadline.
func (b *borrowed) SetReadDeadline(t time.Time) error {
	return b.deadline(func() error { return b.Conn.SetReadDeadline(t) })
}

// SetWriteDeadline is as SetDeadline.
func (b *borrowed) SetWriteDeadline(t time.Time) error {
	return b.deadline(func() error { return b.Conn.SetWriteDeadline(t) })
}

func (b *borrowed) deadline(set func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.ended:
		return net.ErrClosed
	default:
		return set()
	}
}

// Close lets the next user have the connection, once calls in progress have returned.
func (b *borrowed) Close() error {
	b.mu.Lock()
	select {
	case <-b.ended:
		b.mu.Unlock()
		return net.ErrClosed
	default:
	}
	close(b.ended)
	_ = b.Conn.SetDeadline(pastDeadline)
	b.mu.Unlock()
	b.busy.Wait()
	b.port.free <- struct{}{}
	return nil
}

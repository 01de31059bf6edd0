package safesocket

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp waits until the peer of a unix socket that has ended its own direction is gone altogether, or this end has sent
// end-of-file too, or is closed. Nobody may read from the socket meanwhile.
func HungUp(conn net.Conn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	// The function is called again at each event on the socket, of which the hang-up is one.
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a file descriptor is small
		n, err := unix.Poll(p, 0)
		return (err != nil && err != unix.EINTR) || (n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0)
	})
}

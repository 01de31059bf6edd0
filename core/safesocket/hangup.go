package safesocket

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HungUp waits until the peer of a unix socket that has ended its own direction is gone altogether, or this end has sent
// end-of-file too, or is closed. Nobody may read from the socket meanwhile.
func HungUp(conn net.Conn) {
	raw := rawConn(conn)
	if raw == nil {
		return
	}
	// The function is called again at each event on the socket, of which the hang-up is one.
	_ = raw.Read(down)
}

// lookEvery is how often OnHangUp looks.
const lookEvery = time.Second

// OnHangUp calls gone when the peer of a unix socket is gone as HungUp means it, and then every second until gone returns true.
// Reads and writes go on meanwhile: it is for whoever may be held up by something else than the peer, and would not notice. stop
// ends it; gone is not running when stop returns, and must not call it.
func OnHangUp(conn net.Conn, gone func() (done bool)) (stop func()) {
	raw := rawConn(conn)
	if raw == nil {
		return func() {}
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ended:
				return
			}
			hung := false
			if raw.Control(func(fd uintptr) { hung = down(fd) }) != nil || (hung && gone()) {
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(ended)
		wg.Wait()
	})
}

func rawConn(conn net.Conn) syscall.RawConn {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

func down(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a file descriptor is small
	n, err := unix.Poll(p, 0)
	return (err != nil && err != unix.EINTR) || (n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0)
}

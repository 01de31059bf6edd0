package egress

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// fullListener is a port of 127.0.0.1 whose queue is full, so that a connection to it is neither made nor refused.
func fullListener(t *testing.T) uint16 {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	four, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("%T", at)
	}
	for range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(four.Port))
		cancel()
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
				t.Skipf("this system's queues are otherwise: %v", err)
			}
			return uint16(four.Port)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("this system's queues do not fill")
	return 0
}

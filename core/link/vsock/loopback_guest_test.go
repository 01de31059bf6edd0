//go:build guest && linux

package vsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"capsem/core/link"
	"capsem/core/proto"
)

// These tests run inside the guest, over vsock_loopback: `go test -c -tags guest` makes a static binary that the VM suite
// pushes and runs there. They fail, and say so, where AF_VSOCK is missing.

const local = vsock.Local

func needVsock(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("this kernel has no AF_VSOCK (%v): run this in the guest, with the modules vsock and vsock_loopback", err)
	}
	_ = unix.Close(fd)
}

func TestLinkOverLoopback(t *testing.T) {
	needVsock(t)
	const port = 5999
	l, err := listen(port, local, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // a second session after the first
		guest := make(chan link.Session, 1)
		go func() {
			c, err := l.Accept(ctx)
			if err != nil {
				t.Error(err)
				close(guest)
				return
			}
			s, err := link.Accept(ctx, c, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
			}
			guest <- s
		}()
		c, err := vsock.DialContext(ctx, local, port, nil)
		if err != nil {
			t.Fatalf("dial the loopback (is the module vsock_loopback loaded?): %v", err)
		}
		host, err := link.Connect(ctx, c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		exchange(ctx, t, host, <-guest)
	}
}

func exchange(ctx context.Context, t *testing.T, host, guest link.Session) {
	t.Helper()
	l, err := guest.Listen(proto.PortExec)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		st, err := l.Accept(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(struct{ io.Writer }{st}, struct{ io.Reader }{st})
		_ = st.Close()
	}()
	st, err := host.Open(ctx, proto.StreamHeader{Port: proto.PortExec})
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = st.Write(sent)
		_ = st.(link.CloseWriter).CloseWrite()
	}()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	if err := errors.Join(host.Close(), guest.Close()); err != nil {
		t.Error(err)
	}
}

func TestALocalProcessIsTurnedAway(t *testing.T) {
	needVsock(t)
	const port = 5998
	l, err := listen(port, vsock.Host, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept(ctx)
		accepted <- err
	}()
	c, err := vsock.DialContext(t.Context(), local, port, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection from inside the guest is served")
	}
	cancel()
	if err := <-accepted; !errors.Is(err, context.Canceled) {
		t.Errorf("Accept: %v", err)
	}
}

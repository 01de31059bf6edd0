package link

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/proto"
)

// soon bounds what must happen but may take long on a busy machine.
const soon = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// socketPair is a connected pair of unix sockets: what a virtio-serial port looks like to the host.
func socketPair(tb testing.TB) (net.Conn, net.Conn) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, true); err != nil {
			tb.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			tb.Fatal(err)
		}
		_ = f.Close()
	}
	return conns[0], conns[1]
}

// unixPair is a pair connected through a listening socket.
func unixPair(tb testing.TB) (net.Conn, net.Conn) {
	tb.Helper()
	l, err := net.Listen("unix", filepath.Join(tb.TempDir(), "s"))
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	return a, b
}

// pair starts a session over two connected ends and closes it at the end of the test.
func pair(tb testing.TB, h net.Conn, g io.ReadWriteCloser) (host, guest Session) {
	tb.Helper()
	return pairWith(tb, h, g, usual)
}

// pairWith is pair with other time limits on the host's side.
func pairWith(tb testing.TB, h net.Conn, g io.ReadWriteCloser, p patience) (host, guest Session) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), soon)
	defer cancel()
	type result struct {
		s   Session
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		s, err := Accept(ctx, g, quiet())
		accepted <- result{s, err}
	}()
	host, err := connect(ctx, h, quiet(), p)
	if err != nil {
		tb.Fatalf("Connect: %v", err)
	}
	r := <-accepted
	if r.err != nil {
		tb.Fatalf("Accept: %v", r.err)
	}
	tb.Cleanup(func() { closeAll(tb, host, r.s) })
	return host, r.s
}

func closeAll(tb testing.TB, closers ...io.Closer) {
	tb.Helper()
	for _, c := range closers {
		if err := c.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	}
}

// echo serves a port by sending everything back.
func echo(tb testing.TB, s Session, port proto.Port) {
	tb.Helper()
	l := listen(tb, s, port)
	go func() {
		for {
			st, err := l.Accept(context.WithoutCancel(tb.Context()))
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(struct{ io.Writer }{st}, struct{ io.Reader }{st})
				_ = st.Close()
			}()
		}
	}()
}

func listen(tb testing.TB, s Session, port proto.Port) Listener {
	tb.Helper()
	l, err := s.Listen(port)
	if err != nil {
		tb.Fatalf("Listen: %v", err)
	}
	return l
}

func open(tb testing.TB, s Session, port proto.Port) Stream {
	tb.Helper()
	st, err := s.Open(tb.Context(), proto.StreamHeader{Port: port})
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return st
}

func accept(tb testing.TB, l Listener) Stream {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), soon)
	defer cancel()
	st, err := l.Accept(ctx)
	if err != nil {
		tb.Fatalf("Accept stream: %v", err)
	}
	return st
}

func closeWrite(tb testing.TB, st Stream) {
	tb.Helper()
	cw, ok := st.(CloseWriter)
	if !ok {
		tb.Fatal("stream cannot be half-closed")
	}
	if err := cw.CloseWrite(); err != nil {
		tb.Fatalf("CloseWrite: %v", err)
	}
}

// ended waits for the end of a session.
func ended(tb testing.TB, s Session) error {
	tb.Helper()
	select {
	case <-s.Done():
		return s.Err()
	case <-time.After(soon):
		tb.Fatal("the session does not end")
		return nil
	}
}

// noLeaks fails the test when goroutines of this package or of yamux are left at its end. Call it first.
func noLeaks(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		deadline := time.Now().Add(soon)
		for {
			left := linkGoroutines()
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				tb.Errorf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
			runtime.Gosched()
		}
	})
}

func linkGoroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "capsem/core/link.(*") || strings.Contains(g, "hashicorp/yamux") {
			left = append(left, g)
		}
	}
	return left
}

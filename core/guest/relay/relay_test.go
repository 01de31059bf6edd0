//go:build linux

package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

// links gives one session, or none until the context ends.
type links struct{ session link.Session }

func (l links) Session(ctx context.Context) (link.Session, error) {
	if l.session == nil {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return l.session, nil
}

// serve runs a Server on a socket until the test ends.
func serve(t *testing.T, l links) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { Server{Links: l, Log: guesttest.Log()}.Serve(ctx, socket) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAProcessReachesTheHost(t *testing.T) {
	t.Parallel()
	host, guest := guesttest.Sessions(t)
	headers := make(chan proto.StreamHeader, 1)
	guesttest.Serve(t, host, proto.PortLifecycle, func(_ context.Context, st link.Stream) {
		headers <- st.Header()
		defer st.Close()
		_, _ = io.Copy(st, st)
	})
	conn := dial(t, serve(t, links{guest}))
	if err := proto.WriteFrame(conn, proto.StreamHeader{Port: proto.PortLifecycle}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "there and back" {
		t.Errorf("%q, %v", got, err)
	}
	if h := <-headers; h.Process == "" {
		t.Errorf("the host is not told which process it is: %+v", h)
	}
}

func TestWhatGuestProcessesMayNotOpenIsRefused(t *testing.T) {
	t.Parallel()
	_, guest := guesttest.Sessions(t)
	path := serve(t, links{guest})
	for name, first := range map[string]any{
		"control": proto.StreamHeader{Port: proto.PortControl}, "exec": proto.StreamHeader{Port: proto.PortExec},
		"unknown": proto.StreamHeader{Port: 1}, "no header": "hello",
	} {
		conn := dial(t, path)
		if err := proto.WriteFrame(conn, first); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: %d bytes came back", name, n)
		}
	}
	conn := dial(t, path)
	if _, err := conn.Write([]byte{0xff, 0xff, 0xff, 0xff, 1}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("a huge frame: %d bytes came back", n)
	}
}

func TestServeEndsWithItsContextAndLeavesNoConnection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { Server{Links: links{}, Log: guesttest.Log()}.Serve(ctx, socket) })
	waits := dial(t, path) // for a link that never comes
	if err := proto.WriteFrame(waits, proto.StreamHeader{Port: proto.PortLifecycle}); err != nil {
		t.Fatal(err)
	}
	silent := dial(t, path)
	cancel()
	for _, conn := range []net.Conn{waits, silent} {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection is left: %v", err)
		}
	}
	wg.Wait()
}

func TestTheSocketIsForRootAloneAndReplacesADeadOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

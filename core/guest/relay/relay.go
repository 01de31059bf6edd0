//go:build linux

// Package relay lets other processes of the guest open streams to the host: they connect to the agent's unix socket and
// send a stream header, and the agent splices the connection with a stream of the link.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/forward"
	"capsem/core/link"
	"capsem/core/proto"
)

const (
	// headerTimeout is how long a process may take to say what it wants.
	headerTimeout = 5 * time.Second
	// linkTimeout is how long a process waits for the link to come back.
	linkTimeout = 2 * time.Second
	// maxConns bounds the processes served at once.
	maxConns = 1024
)

// allowed reports whether guest processes may open streams to a port: those that the guest opens, but the ones that only
// the agent itself uses.
func allowed(p proto.Port) bool {
	switch p {
	case proto.PortLifecycle, proto.PortNetwork, proto.PortMCP, proto.PortDNS, proto.PortSnapshots:
		return true
	}
	return false
}

// Links gives the session of the link, waiting for one while there is none.
type Links interface {
	Session(ctx context.Context) (link.Session, error)
}

// Server relays the connections of one socket.
type Server struct {
	// Links is where streams are opened.
	Links Links
	// Log receives what goes wrong.
	Log *slog.Logger
}

// Listen makes the socket at path, in place of one that a dead agent has left.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for guest processes: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for guest processes: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for guest processes: %w", err), l.Close())
	}
	return l, nil
}

// Serve relays until ctx ends, then closes the listener and waits for the connections.
func (s Server) Serve(ctx context.Context, l *net.UnixListener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // ends Accept
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Warn("relay: no more guest processes are served", "err", err)
			}
			return
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() { s.relay(ctx, conn); <-slots })
		default:
			_ = conn.Close() // a flood
		}
	}
}

func (s Server) relay(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the wait for its header, and the copying
	defer stop()
	st, err := s.open(ctx, conn)
	if err != nil {
		s.Log.Debug("relay: refused a guest process", "err", err)
		return
	}
	stopStream := context.AfterFunc(ctx, func() { _ = st.Close() }) // ends the copying
	defer stopStream()
	forward.Splice(st, conn)
}

func (s Server) open(ctx context.Context, conn *net.UnixConn) (link.Stream, error) {
	var h proto.StreamHeader
	if err := conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if err := proto.ReadFrame(conn, proto.MaxHeader, &h); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if err := h.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // says what is wrong
	}
	if !allowed(h.Port) {
		return nil, fmt.Errorf("port %v is not for guest processes", h.Port)
	}
	if h.Process == "" {
		h.Process = processOf(conn)
	}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	session, err := s.Links.Session(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the link: %w", err)
	}
	st, err := session.Open(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return st, nil
}

// processOf names the process at the other end, for the host's records.
func processOf(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil || pid <= 0 {
		return ""
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(comm)), "_")
}

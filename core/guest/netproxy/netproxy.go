//go:build linux

// Package netproxy is where the guest's outbound TCP connections end: core/guest/nft redirects them here. Each becomes a stream
// to the host, which says whether it may go on to where it wanted.
package netproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/nft"
	"capsem/core/link"
	"capsem/core/proto"
)

const (
	// maxConns bounds the connections at once. The link lets one side open 512 streams (link.MaxIncoming); some are left for others.
	maxConns = 480
	// linkTimeout is how long a connection waits for the link to be there and to take it.
	linkTimeout = 4 * time.Second
	// sessionPause is how long to wait for the end of a session to be known.
	sessionPause = 20 * time.Millisecond
	// acceptPause is how long a listener rests that the kernel refuses a connection for want of memory or files.
	acceptPause = 100 * time.Millisecond
)

// Links gives the session of the link, waiting for one while there is none.
type Links interface {
	Session(ctx context.Context) (link.Session, error)
}

// Processes says who is behind a connection; procinfo.Finder is one.
type Processes interface {
	TCP(local, remote netip.AddrPort) proto.ProcessClaim
}

// Server carries connections to the host.
type Server struct {
	// Links is where streams are opened.
	Links Links
	// Processes says who opens a connection.
	Processes Processes
	// Log receives what goes wrong.
	Log *slog.Logger
	// Max bounds the connections at once; more are reset. 0 is the usual bound.
	Max int
	// Wait is how long a connection waits for the link; 0 is the usual time.
	Wait time.Duration
}

// Listen takes the proxy's port on both loopbacks. A kernel without IPv6 has only one.
func Listen(ctx context.Context) ([]*net.TCPListener, error) {
	var out []*net.TCPListener
	for _, host := range []string{"127.0.0.1", "::1"} {
		lc := net.ListenConfig{KeepAlive: -1} // nobody on the loopback goes without a word
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(nft.ProxyPort)))
		if host == "::1" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("listen for connections: %w", err)
			for _, l := range out {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		out = append(out, l.(*net.TCPListener)) //nolint:errcheck // what "tcp" gives
	}
	return out, nil
}

// Run listens and serves until ctx ends. It fails only when it cannot listen.
func (s Server) Run(ctx context.Context) error {
	listeners, err := Listen(ctx)
	if err != nil {
		return err
	}
	s.Serve(ctx, listeners...)
	return nil
}

// Serve serves the listeners until ctx ends, then closes them, resets the connections and waits for their ends.
func (s Server) Serve(ctx context.Context, listeners ...*net.TCPListener) {
	limit := s.Max
	if limit == 0 {
		limit = maxConns
	}
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, l := range listeners {
		wg.Go(func() { s.accept(ctx, l, slots, &wg) })
	}
}

func (s Server) accept(ctx context.Context, l *net.TCPListener, slots chan struct{}, wg *sync.WaitGroup) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // ends Accept
	defer stop()
	for {
		conn, err := l.AcceptTCP()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				reset(conn)
			}
			return
		case err != nil:
			s.Log.Warn("net-proxy: cannot take a connection", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() { s.serve(ctx, conn); <-slots })
		default:
			reset(conn) // a flood
		}
	}
}

// serve carries one connection.
func (s Server) serve(ctx context.Context, conn *net.TCPConn) {
	st, err := s.open(ctx, conn)
	if err != nil {
		s.Log.Debug("net-proxy: refused a connection", "err", err)
		reset(conn)
		return
	}
	p := &pair{conn: conn, stream: st}
	stop := context.AfterFunc(ctx, p.abort)
	defer stop()
	p.carry()
}

// open opens the stream of a connection.
func (s Server) open(ctx context.Context, conn *net.TCPConn) (link.Stream, error) {
	dest, err := nft.OriginalDestination(conn)
	if err != nil {
		return nil, err
	}
	client, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, fmt.Errorf("read the address of the client: %w", err)
	}
	open := proto.NetworkOpen{Dest: dest.String(), Process: s.Processes.TCP(client, dest)}
	if err := open.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // says what is wrong
	}
	var frame buffer
	if err := proto.WriteFrame(&frame, open); err != nil {
		return nil, err //nolint:wrapcheck // says what is wrong
	}
	wait := s.Wait
	if wait == 0 {
		wait = linkTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.openStream(ctx, proto.StreamHeader{Port: proto.PortNetwork, Process: open.Process.Name, Dest: open.Dest}, frame)
}

// openStream opens a stream in the session that is up. One that has just ended may still be given out for a moment.
func (s Server) openStream(ctx context.Context, header proto.StreamHeader, first []byte) (link.Stream, error) {
	for {
		session, err := s.Links.Session(ctx)
		if err != nil {
			return nil, fmt.Errorf("wait for the link: %w", err)
		}
		st, err := link.OpenWith(ctx, session, header, first)
		if err == nil {
			return st, nil
		}
		if !errors.Is(err, link.ErrSessionEnded) && !errors.Is(err, link.ErrPeerRestarted) {
			return nil, fmt.Errorf("open stream: %w", err)
		}
		select {
		case <-time.After(sessionPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("open stream: %w", err)
		}
	}
}

// reset ends a connection so that its client sees an error, not an end.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // it is closed anyway
	_ = conn.Close()      // it is gone
}

// buffer collects bytes.
type buffer []byte

// Write appends p.
func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

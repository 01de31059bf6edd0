//go:build linux

// Package forward connects streams of the host to servers that listen on the guest's loopback.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"capsem/core/link"
)

// dialTimeout is far more than a loopback connection takes.
const dialTimeout = 5 * time.Second

// Server connects streams.
type Server struct {
	// Log receives what goes wrong.
	Log *slog.Logger
}

// Serve connects one stream to the port that its header names, until both directions have ended, and closes it.
func (s Server) Serve(ctx context.Context, st link.Stream) {
	defer st.Close()
	port, err := Port(st.Header().Dest)
	if err != nil {
		s.Log.Warn("forward: refused", "err", err)
		refuse(st)
		return
	}
	conn, err := dial(ctx, port)
	if err != nil {
		s.Log.Debug("forward: nobody answers", "port", port, "err", err)
		refuse(st)
		return
	}
	stop := context.AfterFunc(ctx, func() {
		_ = st.Close()   // ends the copying
		_ = conn.Close() // ends the copying
	})
	defer stop()
	Splice(st, conn)
}

// refuse tells the host that nobody listens, where the stream can.
func refuse(st link.Stream) {
	if r, ok := st.(link.Refuser); ok {
		r.Refuse()
	}
}

// Port reads the destination of a stream: a port, or a loopback address with one.
func Port(dest string) (uint16, error) {
	host, port, err := net.SplitHostPort(dest)
	if err != nil {
		host, port = "", dest
	}
	switch host {
	case "", "localhost", "127.0.0.1", "::1":
	default:
		return 0, fmt.Errorf("%.80q is not a loopback address", dest)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.80q has no port between 1 and 65535", dest)
	}
	return uint16(n), nil
}

// dial tries IPv4 first, then IPv6.
func dial(ctx context.Context, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	var errs error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, fmt.Errorf("connect to port %d: %w", port, errs)
}

// Splice copies both ways until both have ended, passing on each end-of-file by itself, and closes both.
func Splice(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	wg.Go(func() { oneWay(a, b) })
	oneWay(b, a)
	wg.Wait()
	_ = a.Close() // both directions have ended
	_ = b.Close() // both directions have ended
}

func oneWay(dst, src io.ReadWriteCloser) {
	buf := make([]byte, 64<<10)
	// Only Read and Write: the copying short cuts of TCP connections are of no use with a stream.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
	if cw, ok := dst.(link.CloseWriter); ok && err == nil {
		_ = cw.CloseWrite() // it is gone
		return
	}
	// A broken side ends the other direction too.
	_ = dst.Close() // it is gone
	_ = src.Close() // it is gone
}

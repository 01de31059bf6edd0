// Package vsock carries the link over AF_VSOCK where the host end of that belongs to the hypervisor alone, as the socket device
// of Virtualization.framework does: the guest listens on one port and takes connections of the host only. The connection is a carrier for
// core/link: the host gives it to link.Connect, the guest to link.Accept. A connection does not survive a restore of the
// VM; the guest then accepts the next.
package vsock

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/mdlayher/vsock"

	"capsem/core/proto"
)

// Port is where the guest listens.
const Port = uint32(proto.PortControl)

// Listener accepts connections of the host. One goroutine may call Accept at a time.
type Listener struct {
	l    *vsock.Listener
	peer uint32
	log  *slog.Logger
}

// Listen starts listening in the guest. It fails when the kernel has no AF_VSOCK.
func Listen(log *slog.Logger) (*Listener, error) { return listen(Port, vsock.Host, log) }

func listen(port, peer uint32, log *slog.Logger) (*Listener, error) {
	l, err := vsock.Listen(port, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on AF_VSOCK port %d: %w", port, err)
	}
	return &Listener{l: l, peer: peer, log: log}, nil
}

// Accept returns the host's next connection. Connections of anything else, such as a process in the guest, are closed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, error) {
	if err := l.l.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("accept on AF_VSOCK: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = l.l.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	for {
		c, err := l.l.Accept()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, fmt.Errorf("accept on AF_VSOCK: %w", err)
		}
		if fromPeer(c.RemoteAddr(), l.peer) {
			return c, nil
		}
		l.log.Warn("link: closing a connection that is not the host's", "from", c.RemoteAddr().String())
		_ = c.Close()
	}
}

// fromPeer reports whether an address is on that context id.
func fromPeer(a net.Addr, cid uint32) bool {
	v, ok := a.(*vsock.Addr)
	return ok && v.ContextID == cid
}

// Close stops listening.
func (l *Listener) Close() error {
	if err := l.l.Close(); err != nil {
		return fmt.Errorf("close AF_VSOCK listener: %w", err)
	}
	return nil
}

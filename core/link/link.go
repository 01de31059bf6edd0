// Package link is the streams between host and guest, addressed by proto.Port (design D2). A carrier is one ordered byte
// connection (a virtio-serial port, a vsock connection, a pipe in tests); a Session multiplexes streams over it with
// yamux. The host side calls Connect, the guest side Accept; both then open and accept streams alike.
package link

import (
	"context"
	"errors"
	"net"

	"capsem/core/proto"
)

// Stream is one multiplexed connection. CloseWrite half-closes it where the caller needs end-of-file without losing replies.
type Stream interface {
	net.Conn
	// Header is what the opener sent.
	Header() proto.StreamHeader
}

// Session is one life of the link: it ends when the carrier breaks, when the peer starts a new session (other nonce), or on Close.
type Session interface {
	// Open starts a stream to a port of the other side. ErrRefused when nothing listens there.
	Open(ctx context.Context, header proto.StreamHeader) (Stream, error)
	// Listen takes the streams that the other side opens to a port. One listener per port; streams to a port without a
	// listener are refused. The accept queue is bounded; a flood is refused, never queued without end.
	Listen(port proto.Port) (Listener, error)
	// Nonce tells sessions apart.
	Nonce() [16]byte
	// Close ends the session and waits for its goroutines.
	Close() error
	Ending
}

// Ending tells when and why a session has ended.
type Ending interface {
	// Done is closed when the session has ended; Err then says why.
	Done() <-chan struct{}
	Err() error
}

// Listener accepts the streams to one port.
type Listener interface {
	Accept(ctx context.Context) (Stream, error)
	Close() error
}

// Errors that callers branch on.
var (
	// ErrRefused is an Open to a port nobody listens on.
	ErrRefused = errors.New("no listener on that port of the link")
	// ErrSessionEnded is any use of a session that has ended.
	ErrSessionEnded = errors.New("the link to the guest is down")
)

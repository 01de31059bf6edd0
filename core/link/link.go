// Package link is the streams between host and guest, addressed by proto.Port (design D2). A carrier is one ordered byte
// connection (a virtio-serial port, a vsock connection, a pipe in tests); a Session multiplexes streams over it with
// yamux. The host side calls Connect, the guest side Accept (or, on a carrier that outlives its sessions, an Acceptor);
// both then open and accept streams alike.
//
// # What is on the wire
//
// A serial port has no connections: it may hold bytes of an earlier life of either side, and a VM that is restored,
// forked or rewound goes on in the middle of a frame whose other half no longer exists. So everything is a record:
//
//	control  magic(8) kind(1) version(1) zero(2) nonce(16) crc32(4)   HELLO, ACK, START, GO
//	data     0xD7 length(3) received(4) payload tag(4)                whole yamux frames; tag is taken from the nonce
//
// The host sends padding as long as the longest record, then HELLO{nonce} again and again until it finds ACK{nonce},
// then START{nonce}; the guest drops everything up to START, sends GO{nonce}; the host drops everything up to GO; data
// records follow. Neither magic nor 0xD7 nor padding begins like the other, so at a record boundary a new HELLO cannot
// be mistaken. A host that died inside a record leaves the guest waiting for the rest: the padding of the next host
// fills it up, the tag at its end is then wrong, the whole record is dropped (nothing made up is ever delivered), the old
// session ends and the guest looks for the HELLO that follows. A HELLO inside the payload of an intact record is data.
//
// The length may be 0: then the record only says how many payload bytes have been received, which every data record does.
// Bulk writers keep about inFlight bytes between the two sides, so that a keystroke does not queue behind a transfer.
//
// # Streams
//
// Open costs no round trip: the frame that makes the stream, the StreamHeader and what OpenWith adds leave in one write.
// A refused stream is reset, so the opener learns it from its first Read (or a later Write) as ErrRefused. Close sends
// end-of-file, makes local calls fail with net.ErrClosed, throws away what still comes and resets the stream when the
// other side has not closed within a few seconds. CloseWrite only sends end-of-file. A session that ends makes Read
// return ErrSessionEnded, never io.EOF, once the bytes that had arrived are read.
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

// CloseWriter is what every Stream of this package also is: CloseWrite sends end-of-file and leaves reading open. For a
// spliced TCP connection each end-of-file is passed on that way, one for each direction.
type CloseWriter interface{ CloseWrite() error }

// Refuser is what every Stream of this package also is: Refuse resets the stream. As long as its acceptor has not
// written anything, the opener sees ErrRefused, as if nobody listened.
type Refuser interface{ Refuse() }

// RequestOpener is what every Session of this package also is.
type RequestOpener interface {
	// OpenWith is Open with the first bytes of the stream, sent in the same write.
	OpenWith(ctx context.Context, header proto.StreamHeader, first []byte) (Stream, error)
}

// OpenWith is s.Open with the first bytes of the stream, in one write where s can do that.
func OpenWith(ctx context.Context, s Session, header proto.StreamHeader, first []byte) (Stream, error) {
	if o, ok := s.(RequestOpener); ok {
		return o.OpenWith(ctx, header, first)
	}
	st, err := s.Open(ctx, header)
	if err != nil {
		return nil, err
	}
	if _, err := st.Write(first); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
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
	// ErrReset is a stream that the other side gave up after it had sent something.
	ErrReset = errors.New("the other side reset the stream")
	// ErrPeerRestarted is why a session ended in the guest when the host began a new one.
	ErrPeerRestarted = errors.New("the host began a new session")
	// ErrSessionEnded is any use of a session that has ended.
	ErrSessionEnded = errors.New("the link to the guest is down")
)

//go:build linux

package agent

import (
	"context"

	"capsem/core/link"
	"capsem/core/proto"
)

// A program's write to a shared directory may be done for it before it is on the host (core/guest/share). Nobody may learn of it from
// the guest earlier than it is there: not by a command's output or end, not over the network, not by a tool's call. So everything that
// leaves the guest waits for the writes before it; as a rule there are none.

// ordered is a session whose streams do so.
type ordered struct {
	link.Session
	settle func()
}

// Open implements link.Session.
func (o ordered) Open(ctx context.Context, header proto.StreamHeader) (link.Stream, error) {
	o.settle()
	st, err := o.Session.Open(ctx, header)
	if err != nil {
		return nil, err //nolint:wrapcheck // the session's
	}
	return orderedStream{st, o.settle}, nil
}

// OpenWith implements link.RequestOpener.
func (o ordered) OpenWith(ctx context.Context, header proto.StreamHeader, first []byte) (link.Stream, error) {
	o.settle()
	st, err := link.OpenWith(ctx, o.Session, header, first)
	if err != nil {
		return nil, err //nolint:wrapcheck // the session's
	}
	return orderedStream{st, o.settle}, nil
}

type orderedStream struct {
	link.Stream
	settle func()
}

// Write implements net.Conn.
func (s orderedStream) Write(b []byte) (int, error) {
	s.settle()
	return s.Stream.Write(b) //nolint:wrapcheck // the stream's
}

// CloseWrite implements link.CloseWriter.
func (s orderedStream) CloseWrite() error {
	s.settle()
	if c, ok := s.Stream.(link.CloseWriter); ok {
		return c.CloseWrite() //nolint:wrapcheck // the stream's
	}
	return s.Close() //nolint:wrapcheck // the stream's
}

// Refuse implements link.Refuser.
func (s orderedStream) Refuse() {
	if r, ok := s.Stream.(link.Refuser); ok {
		r.Refuse()
	}
}

func (a *Agent) settle() {
	if a.Mounts != nil {
		a.Mounts.Settle()
	}
}

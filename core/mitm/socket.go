package mitm

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"capsem/core/mitm/ws"
)

// upgrade puts readers of messages between the two sides of a WebSocket connection that begins.
func (x *exchange) upgrade(res *http.Response) error {
	backend, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") || res.Header.Get("Sec-Websocket-Extensions") != "" {
		return &upstreamError{errors.New("the host answered with another protocol than was asked for")}
	}
	if x.conn.strict != nil {
		x.conn.strict.Off()
	}
	s := &socket{ReadWriteCloser: backend, x: x}
	s.fromGuest, s.toGuest = ws.Readers(x.flow)
	res.Body = s
	x.status = http.StatusSwitchingProtocols
	x.upgraded.Store(s)
	x.begun.Store(true)
	return nil
}

// socket is the host's side of a WebSocket connection, whose messages are read as they pass.
type socket struct {
	io.ReadWriteCloser
	x                  *exchange
	fromGuest, toGuest *ws.Reader
	closed             atomic.Bool
}

// Read reads what the host sends.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Read(p)
	if n > 0 {
		if _, bad := s.toGuest.Write(p[:n]); bad != nil {
			s.x.cut(bad)
			return 0, bad //nolint:wrapcheck // says what is wrong
		}
		s.x.received.Add(int64(n))
	}
	return n, err //nolint:wrapcheck // a connection's
}

// Write sends what the guest says.
func (s *socket) Write(p []byte) (int, error) {
	if _, bad := s.fromGuest.Write(p); bad != nil {
		s.x.cut(bad)
		return 0, bad //nolint:wrapcheck // says what is wrong
	}
	n, err := s.ReadWriteCloser.Write(p)
	s.x.sent.Add(int64(n))
	return n, err //nolint:wrapcheck // a connection's
}

// Close closes it.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.ReadWriteCloser.Close() //nolint:wrapcheck // a connection's
}

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"capsem/core/proto"
)

type listener struct {
	s     *session
	port  proto.Port
	queue chan *stream

	mu     sync.Mutex
	closed bool
	gone   chan struct{}
}

// Listen takes the streams that the other side opens to a port.
func (s *session) Listen(port proto.Port) (Listener, error) {
	if !port.Known() {
		return nil, fmt.Errorf("listen on the link: unknown port %d", port)
	}
	l := &listener{s: s, port: port, queue: make(chan *stream, listenBacklog), gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrSessionEnded
	}
	if s.listeners[port] != nil {
		return nil, fmt.Errorf("listen on the link: port %d is taken", port)
	}
	s.listeners[port] = l
	close(s.changed)
	s.changed = make(chan struct{})
	return l, nil
}

// Accept returns the next stream.
func (l *listener) Accept(ctx context.Context) (Stream, error) {
	select {
	case st := <-l.queue:
		return st, nil
	case <-l.gone:
		return nil, fmt.Errorf("accept on port %d of the link: %w", l.port, net.ErrClosed)
	case <-l.s.done:
		return nil, l.s.ended()
	case <-ctx.Done():
		return nil, fmt.Errorf("accept on port %d of the link: %w", l.port, context.Cause(ctx))
	}
}

// Close stops listening and refuses what waits.
func (l *listener) Close() error {
	l.s.mu.Lock()
	if l.s.listeners[l.port] == l {
		delete(l.s.listeners, l.port)
	}
	l.s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.gone)
	for {
		select {
		case st := <-l.queue:
			st.Refuse()
		default:
			return nil
		}
	}
}

// offer queues a stream; false when the listener is full or closed.
func (l *listener) offer(st *stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.queue <- st:
		return true
	default:
		return false
	}
}

// acceptLoop takes the other side's streams. Each reads its header in a goroutine of its own, so that a silent one holds
// up nobody; MaxIncoming bounds them.
func (s *session) acceptLoop() {
	for {
		ys, err := s.mux.AcceptStream()
		if err != nil {
			return
		}
		st := newStream(s, ys, proto.StreamHeader{})
		st.accepted = true
		if !s.countIncoming() {
			s.log.Warn("link: the other side has too many streams open, refusing one", "limit", MaxIncoming)
			s.refuse(st)
			continue
		}
		st.counted = true
		if !s.spawn(func() { s.route(st) }) {
			return
		}
	}
}

// refuse resets in the background: the accept loop must not wait for the carrier.
func (s *session) refuse(st *stream) { s.spawn(st.Refuse) }

func (s *session) countIncoming() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.incoming >= MaxIncoming {
		return false
	}
	s.incoming++
	return true
}

func (s *session) releaseIncoming() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.incoming--
}

// route reads what a stream wants and gives it to the listener.
func (s *session) route(st *stream) {
	header, err := readHeader(st.mux, s.limits.header)
	if err != nil {
		if !errors.Is(err, yamux.ErrSessionShutdown) && !s.mux.IsClosed() {
			s.log.Debug("link: dropping a stream without a proper header", "err", err)
		}
		st.Refuse()
		return
	}
	st.header = header
	if l := s.listenerFor(header.Port); l == nil || !l.offer(st) {
		s.log.Debug("link: refusing a stream", "port", header.Port, "full", l != nil)
		st.Refuse()
	}
}

func readHeader(ys *yamux.Stream, limit time.Duration) (proto.StreamHeader, error) {
	var h proto.StreamHeader
	if err := ys.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return h, fmt.Errorf("read stream header: %w", err)
	}
	if err := proto.ReadFrame(ys, proto.MaxHeader, &h); err != nil {
		return h, fmt.Errorf("read stream header: %w", err)
	}
	if err := ys.SetReadDeadline(time.Time{}); err != nil {
		return h, fmt.Errorf("read stream header: %w", err)
	}
	return h, h.Validate()
}

// listenerFor finds the listener of a port. Just after the start of a session it waits for one, since both sides may use
// the session before the other has said where it listens.
func (s *session) listenerFor(port proto.Port) *listener {
	grace := time.NewTimer(time.Until(s.started.Add(s.limits.start)))
	defer grace.Stop()
	for {
		s.mu.Lock()
		l, changed := s.listeners[port], s.changed
		s.mu.Unlock()
		if l != nil {
			return l
		}
		select {
		case <-changed:
		case <-s.done:
			return nil
		case <-grace.C:
			return nil
		}
	}
}

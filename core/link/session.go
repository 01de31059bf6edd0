package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"capsem/core/proto"
)

const (
	// MaxIncoming is how many streams of the other side may be open in one session; more are refused. yamux may hold a
	// window of 256 KiB for each, so this bounds the memory a peer can take.
	MaxIncoming = 512
	// acceptBacklog bounds streams made but not yet looked at, listenBacklog those waiting in one Listener.
	acceptBacklog, listenBacklog = 256, 128
	// lingerBytes bounds what a closed stream still takes before it is reset.
	lingerBytes = 1 << 20
)

// patience is the time limits of a session.
type patience struct {
	// header is how long a stream may take to say what it wants.
	header time.Duration
	// linger is how long a closed stream waits for the other side to close it too, before it is reset.
	linger time.Duration
	// start is how long after its start a session waits for a Listener instead of refusing a stream.
	start time.Duration
}

var usual = patience{header: 10 * time.Second, linger: 5 * time.Second, start: 5 * time.Second}

// Connect starts a session as the host. It writes and reads on the carrier until the guest answers, ctx ends or the
// carrier breaks. The session owns the carrier, also when Connect fails.
func Connect(ctx context.Context, carrier net.Conn, log *slog.Logger) (Session, error) {
	return connect(ctx, carrier, log, usual)
}

func connect(ctx context.Context, carrier net.Conn, log *slog.Logger, p patience) (Session, error) {
	w := newWire(carrier)
	boundSendBuffer(carrier)
	nonce, err := greet(ctx, w)
	if err == nil {
		err = w.rearm()
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return newSession(w, nonce, true, p, w.close, log)
}

// Accept waits for a host and starts a session as the guest. The session owns the carrier, also when Accept fails.
// On a carrier that goes on after the session, such as a serial port, use an Acceptor.
func Accept(ctx context.Context, carrier io.ReadWriteCloser, log *slog.Logger) (Session, error) {
	a := NewAcceptor(carrier, log)
	s, err := a.accept(ctx, a.Close)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return s, nil
}

// Acceptor starts one session after another on the same carrier, as the guest. Bytes that came after the end of a session,
// such as the HELLO that ended it, are kept for the next.
type Acceptor struct {
	w    *wire
	log  *slog.Logger
	last Session
}

// NewAcceptor returns an Acceptor that owns carrier.
func NewAcceptor(carrier io.ReadWriteCloser, log *slog.Logger) *Acceptor {
	return &Acceptor{w: newWire(carrier), log: log}
}

// Accept closes the session before and waits for a host. It fails when ctx ends or the carrier breaks; only after a
// broken carrier must a new one be opened. Calls must not overlap.
func (a *Acceptor) Accept(ctx context.Context) (Session, error) {
	return a.accept(ctx, func() error { return nil })
}

func (a *Acceptor) accept(ctx context.Context, release func() error) (Session, error) {
	if a.last != nil {
		if err := a.last.Close(); err != nil {
			return nil, err
		}
	}
	if err := a.w.rearm(); err != nil {
		return nil, err
	}
	nonce, err := answer(ctx, a.w)
	if err == nil {
		err = a.w.rearm()
	}
	if err != nil {
		return nil, err
	}
	a.last, err = newSession(a.w, nonce, false, usual, release, a.log)
	return a.last, err
}

// Close closes the carrier.
func (a *Acceptor) Close() error { return a.w.close() }

type session struct {
	nonce   [16]byte
	host    bool
	conn    *recordConn
	mux     *yamux.Session
	log     *slog.Logger
	release func() error
	limits  patience
	started time.Time

	done chan struct{}
	wg   sync.WaitGroup

	mu sync.Mutex
	// closing says that no goroutine may be started any more.
	closing   bool
	err       error
	listeners map[proto.Port]*listener
	// changed is closed and replaced when a listener is added.
	changed  chan struct{}
	incoming int
	closed   func() error
}

func newSession(w *wire, nonce [16]byte, host bool, p patience, release func() error, log *slog.Logger) (Session, error) {
	s := &session{
		nonce: nonce, host: host, conn: newRecordConn(w, nonce, host), log: log, release: release,
		limits: p, started: time.Now(),
		done: make(chan struct{}), listeners: map[proto.Port]*listener{}, changed: make(chan struct{}),
	}
	s.closed = sync.OnceValue(s.shut)
	config := yamux.DefaultConfig()
	config.AcceptBacklog = acceptBacklog
	// A paused VM must not end its session, so nothing here has a time limit; guestlink watches the guest with pings.
	config.EnableKeepAlive = false
	config.StreamOpenTimeout = 0
	config.StreamCloseTimeout = 0
	config.ConnectionWriteTimeout = 365 * 24 * time.Hour
	config.LogOutput, config.Logger = nil, &muxLog{log: log, left: maxMuxLines}
	start := yamux.Server
	if host {
		start = yamux.Client
	}
	var err error
	if s.mux, err = start(s.conn, config); err != nil {
		return nil, errors.Join(fmt.Errorf("start session: %w", err), release())
	}
	s.wg.Go(s.acceptLoop)
	s.wg.Go(s.watch)
	s.wg.Go(func() { s.conn.acker(s.mux.CloseChan()) })
	return s, nil
}

// Nonce tells sessions apart.
func (s *session) Nonce() [16]byte { return s.nonce }

// Done is closed when the session has ended.
func (s *session) Done() <-chan struct{} { return s.done }

// Err says why the session has ended; nil while it goes on.
func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// watch turns the end of the multiplexer into the end of the session.
func (s *session) watch() {
	<-s.mux.CloseChan()
	cause := s.conn.why()
	s.mu.Lock()
	s.closing = true
	switch {
	case s.err != nil:
	case errors.Is(cause, io.EOF):
		// Not wrapped: a lost session must never look like the clean end of a stream.
		s.err = fmt.Errorf("%w: the carrier was closed", ErrSessionEnded)
	case cause != nil:
		s.err = fmt.Errorf("%w: %w", ErrSessionEnded, cause)
	default:
		s.err = ErrSessionEnded
	}
	s.mu.Unlock()
	close(s.done)
}

// Close ends the session and waits for its goroutines.
func (s *session) Close() error { return s.closed() }

func (s *session) shut() error {
	s.mu.Lock()
	if s.err == nil && s.conn.why() == nil {
		s.err = fmt.Errorf("%w: it was closed", ErrSessionEnded)
	}
	s.mu.Unlock()
	err := s.mux.Close()
	s.wg.Wait()
	return errors.Join(err, s.release())
}

// spawn runs f in a goroutine that Close waits for; false when the session has ended.
func (s *session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.wg.Go(f)
	return true
}

// Open starts a stream. See OpenWith.
func (s *session) Open(ctx context.Context, header proto.StreamHeader) (Stream, error) {
	return s.OpenWith(ctx, header, nil)
}

// OpenWith starts a stream with its first bytes in one write. It waits only when the carrier takes nothing or the other
// side leaves too many streams unanswered.
func (s *session) OpenWith(ctx context.Context, header proto.StreamHeader, first []byte) (Stream, error) {
	if err := header.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	opening := make(chan opened, 1)
	if !s.spawn(func() { opening <- s.openMux(header, first) }) {
		return nil, s.ended()
	}
	select {
	case o := <-opening:
		if o.err != nil {
			return nil, s.endedOr(o.err)
		}
		return o.stream, nil
	case <-ctx.Done():
		s.spawn(func() {
			if o := <-opening; o.err == nil {
				_ = o.stream.Close()
			}
		})
		return nil, fmt.Errorf("open stream: %w", context.Cause(ctx))
	}
}

type opened struct {
	stream *stream
	err    error
}

func (s *session) openMux(header proto.StreamHeader, first []byte) opened {
	var head bytesWriter
	if err := proto.WriteFrame(&head, header); err != nil {
		return opened{err: err}
	}
	ys, err := s.mux.OpenStream()
	if err != nil {
		return opened{err: fmt.Errorf("open stream: %w", err)}
	}
	st := newStream(s, ys, header)
	if _, err := st.Write(append(head, first...)); err != nil {
		return opened{err: errors.Join(err, st.Close())}
	}
	return opened{stream: st}
}

// ended is the error of any use of an ended session.
func (s *session) ended() error {
	if err := s.Err(); err != nil {
		return err
	}
	return ErrSessionEnded
}

// endedOr is ended when the session is over or err comes from its end, else err.
func (s *session) endedOr(err error) error {
	if s.mux.IsClosed() || errors.Is(err, yamux.ErrSessionShutdown) {
		return s.ended()
	}
	return err
}

var (
	_ Session       = (*session)(nil)
	_ RequestOpener = (*session)(nil)
)

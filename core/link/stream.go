package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"capsem/core/proto"
)

type stream struct {
	s      *session
	mux    *yamux.Stream
	header proto.StreamHeader
	// accepted says that the other side opened it, counted that it counts against MaxIncoming.
	accepted, counted bool

	// rmu is held while reading, wmu while writing.
	rmu, wmu sync.Mutex
	// got says that a byte has been read, eof that the other side has closed.
	got, eof bool

	closed atomic.Bool
	// dmu guards the deadlines: once closed the read deadline belongs to linger.
	dmu           sync.Mutex
	writeDeadline time.Time
	once          sync.Once
}

func newStream(s *session, ys *yamux.Stream, h proto.StreamHeader) *stream {
	return &stream{s: s, mux: ys, header: h}
}

// Header is what the opener sent.
func (st *stream) Header() proto.StreamHeader { return st.header }

// Read reads bytes of the other side.
func (st *stream) Read(p []byte) (int, error) {
	st.rmu.Lock()
	defer st.rmu.Unlock()
	if st.closed.Load() {
		return 0, fmt.Errorf("read stream: %w", net.ErrClosed)
	}
	n, err := st.mux.Read(p)
	st.got = st.got || n > 0
	if err == nil {
		return n, nil
	}
	return n, st.readError(err)
}

func (st *stream) readError(err error) error {
	switch {
	case st.closed.Load():
		return fmt.Errorf("read stream: %w", net.ErrClosed)
	case errors.Is(err, io.EOF) && st.s.mux.IsClosed(), errors.Is(err, yamux.ErrSessionShutdown):
		return st.s.ended()
	case errors.Is(err, io.EOF):
		st.eof = true
		return io.EOF
	case errors.Is(err, yamux.ErrConnectionReset) && !st.got && !st.accepted:
		return ErrRefused
	case errors.Is(err, yamux.ErrConnectionReset):
		return ErrReset
	case errors.Is(err, yamux.ErrTimeout):
		return fmt.Errorf("read stream: %w", os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("read stream: %w", err)
}

// Write sends p, in pieces and at a pace that do not keep other streams waiting when it is long.
func (st *stream) Write(p []byte) (int, error) {
	st.wmu.Lock()
	defer st.wmu.Unlock()
	if len(p) <= smallWrite {
		return st.put(p)
	}
	piece, leave := st.s.conn.flow.enter()
	defer leave()
	for total := 0; ; {
		if err := st.awaitRoom(); err != nil {
			return total, err
		}
		n, err := st.put(p[total : total+piece(len(p)-total)])
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

func (st *stream) put(p []byte) (int, error) {
	if st.closed.Load() {
		return 0, fmt.Errorf("write stream: %w", net.ErrClosed)
	}
	n, err := st.mux.Write(p)
	if err != nil {
		return n, st.writeError(err)
	}
	return n, nil
}

// awaitRoom waits until less than inFlight bytes are under way. Close and a new deadline wake it.
func (st *stream) awaitRoom() error {
	for {
		room := st.s.conn.flow.full()
		if room == nil {
			return nil
		}
		st.dmu.Lock()
		deadline := st.writeDeadline
		st.dmu.Unlock()
		late, stop := (<-chan time.Time)(nil), func() bool { return true }
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			late, stop = timer.C, timer.Stop
		}
		select {
		case <-room:
		case <-late:
			return st.writeError(yamux.ErrTimeout)
		case <-st.s.mux.CloseChan():
			return st.s.ended()
		}
		stop()
		if st.closed.Load() {
			return fmt.Errorf("write stream: %w", net.ErrClosed)
		}
	}
}

func (st *stream) writeError(err error) error {
	switch {
	case st.s.mux.IsClosed(), errors.Is(err, yamux.ErrSessionShutdown):
		return st.s.ended()
	case st.closed.Load(), errors.Is(err, yamux.ErrStreamClosed):
		return fmt.Errorf("write stream: %w", net.ErrClosed)
	case errors.Is(err, yamux.ErrConnectionReset):
		return ErrReset
	case errors.Is(err, yamux.ErrTimeout):
		return fmt.Errorf("write stream: %w", os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("write stream: %w", err)
}

// CloseWrite sends end-of-file; reading goes on.
func (st *stream) CloseWrite() error {
	if st.closed.Load() {
		return fmt.Errorf("close stream for writing: %w", net.ErrClosed)
	}
	if err := st.mux.Close(); err != nil {
		return st.endedOr(err)
	}
	return nil
}

func (st *stream) endedOr(err error) error {
	return st.s.endedOr(fmt.Errorf("close stream for writing: %w", err))
}

// Close ends the stream for this side at once; telling the other side goes on in the background.
func (st *stream) Close() error {
	st.once.Do(func() { st.leave(st.linger) })
	return nil
}

// Refuse resets the stream.
func (st *stream) Refuse() {
	st.once.Do(func() { st.leave(st.reset) })
}

// leave makes local calls fail and finishes with the other side in the background.
func (st *stream) leave(finish func()) {
	st.dmu.Lock()
	st.closed.Store(true)
	_ = st.mux.SetDeadline(time.Unix(1, 0))
	st.dmu.Unlock()
	st.s.conn.flow.wake()
	if !st.s.spawn(func() {
		finish()
		if st.counted {
			st.s.releaseIncoming()
		}
	}) {
		_ = st.mux.Close()
	}
}

// linger sends end-of-file and drops what still comes until the other side has closed too, or resets the stream.
func (st *stream) linger() {
	if err := st.mux.Close(); err != nil {
		return
	}
	st.rmu.Lock() // whoever was reading has left: the deadline has passed
	defer st.rmu.Unlock()
	if st.eof {
		return
	}
	if err := st.mux.SetReadDeadline(time.Now().Add(st.s.limits.linger)); err != nil {
		return
	}
	n, err := io.CopyN(io.Discard, st.mux, lingerBytes)
	if n == lingerBytes || errors.Is(err, yamux.ErrTimeout) {
		st.reset()
	}
}

func (st *stream) reset() {
	if err := st.s.conn.reset(st.mux.StreamID()); err != nil {
		st.s.log.Debug("link: cannot reset a stream", "err", err)
	}
}

// LocalAddr is a name for logs.
func (st *stream) LocalAddr() net.Addr { return addr("link") }

// RemoteAddr is the port the stream was opened to.
func (st *stream) RemoteAddr() net.Addr { return addr("link:" + st.header.Port.String()) }

// SetDeadline sets both deadlines.
func (st *stream) SetDeadline(t time.Time) error {
	return errors.Join(st.SetReadDeadline(t), st.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; it fails with os.ErrDeadlineExceeded afterwards.
func (st *stream) SetReadDeadline(t time.Time) error {
	return st.setDeadline(st.mux.SetReadDeadline, t)
}

// SetWriteDeadline bounds how long Write waits for the other side to make room in the stream. It does not bound a carrier
// that takes no bytes at all, as of a paused VM.
func (st *stream) SetWriteDeadline(t time.Time) error {
	return st.setDeadline(func(t time.Time) error {
		st.writeDeadline = t
		st.s.conn.flow.wake()
		return st.mux.SetWriteDeadline(t)
	}, t)
}

func (st *stream) setDeadline(set func(time.Time) error, t time.Time) error {
	st.dmu.Lock()
	defer st.dmu.Unlock()
	if st.closed.Load() {
		return fmt.Errorf("set deadline of stream: %w", net.ErrClosed)
	}
	if err := set(t); err != nil {
		return fmt.Errorf("set deadline of stream: %w", err)
	}
	return nil
}

type addr string

// Network names the kind of address.
func (addr) Network() string { return "link" }

// String is the address.
func (a addr) String() string { return string(a) }

var (
	_ Stream      = (*stream)(nil)
	_ CloseWriter = (*stream)(nil)
	_ Refuser     = (*stream)(nil)
)

package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"capsem/core/share/wire"
)

// errBroken is a stream that ended for answers before it did for requests.
var errBroken = errors.New("the stream takes no answers any more")

// credit is how many notifications a guest side is sent before it says that its kernel has taken some.
const credit = 64

// sessions is the one session under way; a new one ends it.
type sessions struct {
	mu   sync.Mutex
	live *session
}

// session serves one stream.
type session struct {
	s      *Server
	stream io.ReadWriteCloser
	// in reads ahead: a small request takes one read, not two.
	in    *bufio.Reader
	slots chan struct{}
	calls sync.WaitGroup
	done  chan struct{}
	// hints says that the guest side takes them.
	hints bool
	// wake tells the notifier that there is something to send, or leave to.
	wake chan struct{}

	writing sync.Mutex
	broken  error
	// over says that it is broken, to who does not wait for writing.
	over atomic.Bool

	mu     sync.Mutex
	credit int

	late late
}

// replace makes n the live session and ends the one before.
func (ss *sessions) replace(n *session) {
	ss.mu.Lock()
	old := ss.live
	ss.live = n
	ss.mu.Unlock()
	if old != nil {
		_ = old.stream.Close()
		<-old.done
	}
}

func (ss *sessions) end() { ss.replace(nil) }

// Serve answers requests from one stream until it ends, ctx is done or another Serve begins: at most one is under way. When
// a stream broke, the next goes on with the same nodes and handles if the mount in the guest is still the same. It closes
// the stream. A stream that ends between two messages is no error.
func (s *Server) Serve(ctx context.Context, stream io.ReadWriteCloser) error {
	if s.ctx.Err() != nil {
		_ = stream.Close()
		return ErrClosed
	}
	c := &session{
		s: s, stream: stream, in: bufio.NewReaderSize(stream, smallSize), slots: make(chan struct{}, s.limits.InFlight), done: make(chan struct{}),
		wake: make(chan struct{}, 1), credit: credit, late: newLate(),
	}
	s.session.replace(c)
	defer close(c.done)
	stopAfter := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stopAfter()
	stopClosed := context.AfterFunc(s.ctx, func() { _ = stream.Close() })
	defer stopClosed()
	err := c.run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.ctx.Err() != nil:
		return ErrClosed
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("serve share: %w", err)
}

func (c *session) run() error {
	defer c.stream.Close()
	hello, err := wire.ReadHello(c.in)
	if err != nil {
		return err
	}
	c.hints, c.late.wanted = hello.Hints, hello.Behind
	forgets, fresh := c.s.begin(hello)
	welcome := wire.Welcome{Version: wire.Version, Forgets: forgets, Fresh: fresh, Tag: c.s.config.Tag}
	if err := wire.WriteHandshake(c.stream, welcome); err != nil {
		return err
	}
	c.lend()
	stop := make(chan struct{})
	notified := make(chan struct{})
	go func() { defer close(notified); c.notify(stop) }()
	err = c.read()
	_ = c.stream.Close() // what waits for the guest side to read stops waiting
	c.calls.Wait()
	close(stop)
	<-notified
	return err
}

// read takes requests off the stream and starts each. Those that forget are carried out at once, in order.
func (c *session) read() error {
	for {
		n, err := wire.ReadHead(c.in, wire.InSize)
		if err != nil {
			return err
		}
		buf := c.s.buffers.get(n)
		if _, err := io.ReadFull(c.in, buf[:n]); err != nil {
			c.s.buffers.put(buf)
			return fmt.Errorf("read message: %w", noEOF(err))
		}
		if err := c.take(buf, n); err != nil {
			return err
		}
	}
}

// take owns buf.
func (c *session) take(buf []byte, n int) error {
	head, body, err := wire.ParseRequest(buf[:n])
	if err != nil {
		c.s.buffers.put(buf)
		return err // nothing says where the next message would begin to make sense
	}
	if c.isBroken() {
		c.s.buffers.put(buf)
		return errBroken
	}
	if head.Op.NoReply() {
		c.s.silent(c, head, body)
		c.s.buffers.put(buf)
		return nil
	}
	if c.late.wanted && nobodyWaits(head, body) {
		c.quietly(head, body)
		c.s.buffers.put(buf)
		return nil
	}
	alone := len(c.slots) == 0 && c.in.Buffered() == 0
	c.slots <- struct{}{}
	if c.isBroken() { // it was waited for
		<-c.slots
		c.s.buffers.put(buf)
		return errBroken
	}
	call := func() {
		defer func() { <-c.slots }()
		defer c.s.buffers.put(buf)
		c.s.answer(head, body, c.hints, c.send)
		if head.Op == wire.OpWrite {
			c.lend()
		}
	}
	if alone && n <= smallSize && operations[head.Op].quick {
		call() // to start another goroutine takes longer
		return nil
	}
	c.calls.Go(call)
	return nil
}

// send writes whole frames, and first the answers that waited for it.
func (c *session) send(frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	frame = c.late.before(frame, c.write)
	return c.write(frame)
}

// write is send for whoever holds writing.
func (c *session) write(frame []byte) error {
	if c.broken == nil {
		if _, c.broken = c.stream.Write(frame); c.broken != nil {
			c.over.Store(true)
			_ = c.stream.Close()
		}
	}
	return c.broken
}

// isBroken reports whether nothing can be answered any more. What was read and not begun is left then: the guest asks again, and should it do so
// as another machine, a fork or one that was suspended, what was done after its state was saved would be done twice.
func (c *session) isBroken() bool { return c.over.Load() }

// notify sends invalidations while the guest side takes them.
func (c *session) notify(stop <-chan struct{}) {
	c.s.invals.attach(c.wake)
	defer c.s.invals.attach(nil)
	defer c.late.timer.Stop()
	for {
		for c.spend() {
			inv, ok := c.s.invals.next()
			if !ok {
				c.refund(1)
				break
			}
			if c.send(inv.frame()) != nil {
				c.s.invalidate(inv) // for the next session
				return
			}
			c.s.sent.Add(1)
		}
		select {
		case <-stop:
			return
		case <-c.wake:
		case <-c.late.timer.C:
			_ = c.send(nil) // a stream that broke is noticed by its reader
		}
	}
}

func (c *session) spend() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.credit == 0 {
		return false
	}
	c.credit--
	return true
}

// refund is what the guest side says it has taken; it cannot raise its credit.
func (c *session) refund(n uint32) {
	c.mu.Lock()
	c.credit = min(credit, c.credit+int(min(n, credit)))
	c.mu.Unlock()
}

func (c *session) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

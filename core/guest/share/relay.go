//go:build linux

package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/link/rawio"
	"capsem/core/share/wire"
)

const (
	// maxNotes is what the host sends of notifications before it hears that some were taken, or less.
	maxNotes = 64
	// copyBelow is the size up to which a request is copied out of the buffer it was read into.
	copyBelow          = 32 << 10
	firstWait, maxWait = 20 * time.Millisecond, time.Second
)

const bufSize = wire.FrameHead + wire.MaxMessage

var bufs = sync.Pool{New: func() any { return new([bufSize]byte) }}

func release(msg *message) {
	if cap(msg.frame) == bufSize {
		bufs.Put((*[bufSize]byte)(msg.frame[:bufSize]))
	}
	msg.frame = nil
}

// readKernel takes requests from the kernel until the mount ends.
func (m *Mount) readKernel() {
	buf, _ := bufs.Get().(*[bufSize]byte)
	follow := newFollower()
	for {
		n, err := m.readRequest(buf[wire.FrameHead:])
		if err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
				continue // interrupted before we read it
			}
			if !m.closing.Load() {
				m.log.Info("shared directory is unmounted", "dir", m.opts.Dir, "reason", err)
			}
			return
		}
		head, body, err := wire.ParseRequest(buf[wire.FrameHead : wire.FrameHead+n])
		if err != nil {
			m.log.Error("the kernel sent a bad message", "size", n, "error", err)
			continue
		}
		follow.saw(head.PID)
		if answer, ours := m.poll.answer(head, body); ours {
			if answer != nil {
				m.write(answer, head.Unique)
			}
			continue
		}
		if unknownAttr(head, body) {
			m.refuse(head.Unique, unix.EOPNOTSUPP)
			continue
		}
		answer, changes := m.known.ask(head, body)
		if answer != nil {
			m.write(answer, head.Unique)
			continue
		}
		if errno := m.behind.failure(head.Op, head.Node); errno != 0 {
			m.refuse(head.Unique, errno)
			continue
		}
		msg := &message{op: head.Op, unique: head.Unique, node: head.Node, changes: changes, lazy: head.Op.Forgets()}
		m.ahead(msg, head, body)
		if n <= copyBelow {
			msg.frame = append(make([]byte, 0, wire.FrameHead+n), buf[:wire.FrameHead+n]...)
		} else {
			msg.frame = buf[:wire.FrameHead+n]
			buf, _ = bufs.Get().(*[bufSize]byte)
		}
		wire.PutHead(msg.frame)
		if !m.out.put(msg) && !head.Op.NoReply() && !msg.told {
			m.fail(head.Unique)
		}
	}
}

// ahead answers at once what the host will carry out in any case: a write for which there is credit, and that a file is closed.
func (m *Mount) ahead(msg *message, head wire.Header, body []byte) {
	var b [wire.OutSize + 8]byte
	if head.Op == wire.OpRelease || head.Op == wire.OpReleasedir {
		wire.PutOut(b[:wire.OutSize], 0, head.Unique)
		m.write(b[:wire.OutSize], head.Unique)
		msg.told, msg.lazy = true, true
		return
	}
	size, ok := m.behind.take(head, body)
	if !ok {
		return
	}
	wire.MarkBehind(body)
	msg.told, msg.behind, msg.lazy = true, size, size <= copyBelow
	wire.PutOut(b[:], 0, head.Unique)
	wire.AppendU32(b[:wire.OutSize], size)
	m.write(b[:], head.Unique)
}

// readRequest waits for one request. The scheduler learns only of the waiting.
func (m *Mount) readRequest(b []byte) (n int, err error) {
	var failed error
	err = m.raw.Read(func(fd uintptr) bool {
		n, failed = rawio.Read(int(fd), b)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// unknownAttr reports whether a request is for an extended attribute that the host has of no file. The kernel asks for
// security.capability before the first write to each file: that need not go to the host.
func unknownAttr(head wire.Header, body []byte) bool {
	const sizes = 8
	return head.Op == wire.OpGetxattr && len(body) > sizes && !bytes.HasPrefix(body[sizes:], []byte("user."))
}

// dialAll serves one stream after the other.
func (m *Mount) dialAll(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		began, err := m.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if began {
			wait = firstWait
		}
		m.log.Info("shared directory waits for the host", "dir", m.opts.Dir, "reason", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, maxWait)
	}
}

// serve dials and hands answers to the kernel until the stream ends. It reports whether the host was there.
func (m *Mount) serve(ctx context.Context) (began bool, err error) {
	stream, err := m.opts.Dial(ctx)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stop()
	if err := wire.WriteHandshake(stream, wire.Hello{Version: wire.Version, Mount: m.id[:], Resumed: m.out.resumes(), Hints: true, Behind: true}); err != nil {
		return false, err
	}
	welcome, err := wire.ReadWelcome(stream)
	if err != nil {
		return false, err
	}
	if welcome.Fresh && m.isReady() { // this guest was a template: the root of the directory is another one than its kernel has seen
		_, _ = rawio.Write(m.fd, wire.AppendInvalInode(nil, wire.RootID, true)) // ENOENT: it has not
	}
	m.out.begin(stream, welcome.Forgets)
	m.begun()
	defer m.known.forget()
	defer m.behind.lend(0)
	defer m.out.end(stream)
	return true, m.deliverAll(stream)
}

// begun counts a stream that has begun.
func (m *Mount) begun() {
	m.genMu.Lock()
	defer m.genMu.Unlock()
	m.gen++
	close(m.changed)
	m.changed = make(chan struct{})
}

// generation is how many streams have begun, and what is closed with the next.
func (m *Mount) generation() (uint64, <-chan struct{}) {
	m.genMu.Lock()
	defer m.genMu.Unlock()
	return m.gen, m.changed
}

func (m *Mount) deliverAll(stream io.Reader) error {
	buf, _ := bufs.Get().(*[bufSize]byte)
	defer bufs.Put(buf)
	for {
		n, err := wire.ReadHead(stream, wire.OutSize)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(stream, buf[:n]); err != nil {
			return err
		}
		if err := m.deliver(buf[:n]); err != nil {
			return err
		}
	}
}

// deliver hands one message of the host to the kernel.
func (m *Mount) deliver(b []byte) error {
	code, unique, err := wire.ParseOut(b)
	if err != nil {
		return err
	}
	if unique == 0 {
		return m.told(code, b)
	}
	resumed := m.isReady()
	msg, ok := m.out.answered(unique)
	if !ok || (msg.op == wire.OpInit && resumed) {
		return nil // an answer to what was answered, or to the INIT of ours that repeats the kernel's
	}
	if msg.told {
		errno := unix.Errno(-code) //nolint:gosec // ParseOut has checked it
		if size, ok := wire.ParseWrote(b); code == 0 && msg.behind > 0 && (!ok || size < msg.behind) {
			errno = unix.EIO // not all of it was written
		}
		m.wrote(msg, errno)
		return nil
	}
	if msg.op == wire.OpFsync && code == 0 {
		if errno := m.behind.failure(msg.op, msg.node); errno != 0 { // it waited for writes that failed
			m.refuse(unique, errno)
			return nil
		}
	}
	m.write(b, unique)
	if msg.op == wire.OpInit {
		m.inited.Do(func() { close(m.ready) })
	}
	return nil
}

// wrote is told what came of what the kernel was told is done.
func (m *Mount) wrote(msg *message, errno unix.Errno) {
	if msg.behind == 0 {
		return // a file was closed
	}
	if errno != 0 {
		m.log.Error("a write to a shared directory failed after it was said to be done", "dir", m.opts.Dir, "error", errno)
	}
	m.behind.answered(msg.node, msg.behind, errno)
}

// told takes what is no answer: hints and credit are for us, the rest for the kernel.
func (m *Mount) told(code int32, b []byte) error {
	if code == wire.NotifyCredit {
		bytes, err := wire.ParseCredit(b)
		if err != nil {
			return err
		}
		m.behind.lend(bytes)
		return nil
	}
	if code == wire.NotifyHint {
		h, err := wire.ParseHint(b)
		if err != nil {
			return err
		}
		m.known.hint(h, m.out.changes(h.Unique))
		return nil
	}
	node, name, err := wire.ParseInval(code, b)
	if err != nil {
		return err
	}
	m.known.stale(node, name)
	return m.queueNote(b)
}

func (m *Mount) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

// write answers the kernel. An answer that the kernel does not understand must not leave a program waiting.
func (m *Mount) write(b []byte, unique uint64) {
	if _, err := rawio.Write(m.fd, b); errors.Is(err, unix.EINVAL) {
		m.log.Error("the kernel does not take the host's answer", "size", len(b))
		m.fail(unique)
	} // ENOENT: nobody waits for it any more
}

// queueNote keeps a notification for writeNotes: the kernel may take it only after an answer that comes behind it.
func (m *Mount) queueNote(b []byte) error {
	if m.closing.Load() {
		return ErrClosed
	}
	select {
	case m.notes <- append([]byte(nil), b...):
		return nil
	default:
		return fmt.Errorf("%w: more notifications than agreed", wire.ErrFrame)
	}
}

// writeNotes hands notifications to the kernel, and tells the host that it may send more.
func (m *Mount) writeNotes() {
	for b := range m.notes {
		for {
			if _, err := unix.Write(m.fd, b); !errors.Is(err, unix.EINTR) {
				break // ENOENT: the kernel has nothing of it cached
			}
		}
		if m.closing.Load() {
			continue
		}
		body := []byte{1, 0, 0, 0}
		frame := wire.AppendRequest(make([]byte, wire.FrameHead, 64), wire.OpDone, 0, 0, body)
		wire.PutHead(frame)
		m.out.tell(frame)
	}
}

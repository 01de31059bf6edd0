package share

import (
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	// ampleFree is how much must be free for writes that the guest takes for done before they are: what others write meanwhile must not
	// make them fail.
	ampleFree = 256 << 20
	// noCreditFor is how long there is none after one has failed all the same, and each time twice as long, maxDoubled times: there are
	// bounds that nobody tells of, like those of a user on the host's disk.
	noCreditFor = 10 * time.Second
	maxDoubled  = 10
	// lateFor is how long an answer that no program waits for waits for another one: each wakes the guest.
	lateFor = time.Millisecond
	// lateBytes is how much may have been written by then, so that credit does not run out.
	lateBytes = wire.MaxBehind / 4
)

// late are the answers that no program waits for (see wire.NotifyCredit); they are sent with the next one.
type late struct {
	// wanted says that the guest side makes use of credit; lent is how much it has. They are the session's, under its mu.
	wanted bool
	lent   uint32
	// timer ends the waiting.
	timer *time.Timer
	// frames, and the bytes written that they are about, are guarded by the session's writing.
	frames []byte
	bytes  int
}

func newLate() late {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return late{timer: timer}
}

// before puts what waits before a frame. What is too long to be copied it leaves alone, and writes what waits.
func (l *late) before(frame []byte, write func([]byte) error) []byte {
	if len(l.frames) == 0 {
		return frame
	}
	waited := l.frames
	l.frames, l.bytes = nil, 0
	if len(frame) > smallSize {
		_ = write(waited) // the next write fails too
		return frame
	}
	return append(waited, frame...)
}

// nobodyWaits reports whether the guest's kernel was told that a request is done.
func nobodyWaits(head wire.Header, body []byte) bool {
	switch head.Op {
	case wire.OpRelease, wire.OpReleasedir:
		return true
	case wire.OpWrite:
		w, ok := wire.ParseWrite(body)
		return ok && w.Behind
	}
	return false
}

// quietly carries such a request out before anything else is read, since what is asked next may depend on it.
func (c *session) quietly(head wire.Header, body []byte) {
	c.s.answer(head, body, false, func(frame []byte) error {
		if code, _, err := wire.ParseOut(frame[wire.FrameHead:]); err == nil && code != 0 && head.Op == wire.OpWrite {
			c.s.log.Error("a write that the guest was told is done has failed", "error", unix.Errno(-code)) //nolint:gosec // an errno of ours
			c.s.failedLate()
		}
		c.writing.Lock()
		defer c.writing.Unlock()
		if len(c.late.frames) == 0 {
			c.late.timer.Reset(lateFor)
		}
		c.late.frames = append(c.late.frames, frame...)
		c.late.bytes += len(body)
		if c.late.bytes < lateBytes {
			return nil
		}
		return c.write(c.late.before(nil, c.write))
	})
	if head.Op == wire.OpWrite {
		c.lend()
	}
}

// lend tells the guest side of its credit when that has changed.
func (c *session) lend() {
	if !c.late.wanted {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.s.creditNow(); now != c.late.lent {
		c.late.lent = now
		_ = c.send(wire.AppendCredit(nil, now)) // a stream that broke is noticed by its reader
	}
}

// failedLate notes that a write failed that the guest took for done. Those that were under way with it count as one.
func (s *Server) failedLate() {
	now := time.Now().UnixNano()
	if until := s.noCreditUntil.Load(); now < until {
		return
	}
	s.noCreditUntil.Store(now + int64(noCreditFor)<<min(s.lateFailures.Add(1)-1, maxDoubled))
}

// creditNow is what may be under way of writes that the guest takes for done: they must not fail.
func (s *Server) creditNow() uint32 {
	if s.config.ReadOnly || time.Now().UnixNano() < s.noCreditUntil.Load() {
		return 0
	}
	if used, limit := s.quota.state(); s.quota != nil && limit-used < ampleFree {
		return 0
	}
	var st unix.Statfs_t
	if unix.Fstatfs(s.rootFD, &st) != nil || st.Bavail < ampleFree/uint64(max(st.Bsize, 1)) {
		return 0
	}
	return wire.MaxBehind
}

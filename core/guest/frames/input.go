//go:build linux

package frames

import (
	"io"
	"os"
	"sync"
	"time"

	"capsem/core/proto"
)

const (
	// maxQueued is how much input a command that does not read may leave waiting here. Past it the host is held up.
	maxQueued = 512 << 10
	// probeEvery is how often a held up stream is asked, by reading one byte of it, whether the host is still there.
	probeEvery = time.Second
	// maxProbed ends that after a day.
	maxProbed = 64 << 10
)

// Source reads the frames of a stream. While the command takes no input it reads the stream one byte at a time, so that a
// host that has gone is noticed although nothing behind the waiting input can be looked at.
type Source struct {
	r       io.Reader
	frames  *proto.StreamReader
	pending []byte
}

// NewSource returns a Source on r.
func NewSource(r io.Reader) *Source {
	s := &Source{r: r}
	s.frames = proto.NewStreamReader((*pendingReader)(s))
	return s
}

type pendingReader Source

// Read gives out the bytes that probe has taken, then reads on.
func (p *pendingReader) Read(b []byte) (int, error) {
	if len(p.pending) > 0 {
		n := copy(b, p.pending)
		p.pending = p.pending[n:]
		return n, nil
	}
	return p.r.Read(b) //nolint:wrapcheck // an adapter of the reader
}

// Next returns the next frame; its bytes are valid until the next call.
func (s *Source) Next() (proto.Kind, []byte, error) {
	return s.frames.Next() //nolint:wrapcheck // says what it did
}

// probe reads one byte ahead.
func (s *Source) probe() error {
	if len(s.pending) >= maxProbed {
		return nil
	}
	var b [1]byte
	n, err := s.r.Read(b[:])
	s.pending = append(s.pending, b[:n]...)
	return err //nolint:wrapcheck // passed through to the caller of Next
}

// Input hands bytes to a command's standard input in the background, so that whoever reads the stream stays free to see
// signals behind them.
type Input struct {
	file *os.File

	mu     sync.Mutex
	queue  [][]byte
	queued int
	closed bool
	more   chan struct{}
	room   chan struct{}
	done   chan struct{}
}

// Feed starts handing input to file, which it closes at the end.
func Feed(file *os.File) *Input {
	in := &Input{file: file, more: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{})}
	go in.run()
	return in
}

func (in *Input) run() {
	defer close(in.done)
	defer in.file.Close()
	for range in.more {
		for {
			chunk, last := in.take()
			if last {
				return
			}
			if chunk == nil {
				break
			}
			if _, err := in.file.Write(chunk); err != nil {
				in.abandon()
				return
			}
		}
	}
}

// take returns the next chunk; nil when there is none now, last when there will be none.
func (in *Input) take() (chunk []byte, last bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) == 0 {
		return nil, in.closed
	}
	chunk = in.queue[0]
	in.queue = in.queue[1:]
	in.queued -= len(chunk)
	signal(in.room)
	return chunk, false
}

// abandon drops everything: the command has closed its input.
func (in *Input) abandon() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue, in.queued, in.closed = nil, 0, true
	signal(in.room)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Put queues a copy of data. While too much is waiting it holds up its caller and watches src for a host that is gone,
// which is the error it returns.
func (in *Input) Put(data []byte, src *Source) error {
	for !in.offer(data) {
		timer := time.NewTimer(probeEvery)
		select {
		case <-in.room:
			timer.Stop()
		case <-timer.C:
			if err := src.probe(); err != nil {
				return err
			}
		}
	}
	return nil
}

// offer queues a copy of data; false when there is no room.
func (in *Input) offer(data []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return true
	}
	if in.queued+len(data) > maxQueued {
		return false
	}
	in.queue = append(in.queue, append([]byte(nil), data...))
	in.queued += len(data)
	signal(in.more)
	return true
}

// CloseAfter ends the input after what is queued.
func (in *Input) CloseAfter() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	signal(in.more)
}

// Close ends the input at once and waits.
func (in *Input) Close() {
	in.abandon()
	signal(in.more)
	_ = in.file.Close() // a write in progress fails, which ends it
	<-in.done
}

//go:build linux

// Package frames moves bytes between the files of a command and the frames of a stream without needless copies, and
// notices when the host is gone.
package frames

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

// headSize is the size of a frame's kind and length.
const headSize = 5

// buffer holds one frame, its head included.
type buffer [headSize + proto.MaxChunk]byte

// Pool lends frame buffers. Its zero value is ready.
type Pool struct{ pool sync.Pool }

func (p *Pool) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

// Writer sends whole frames, one Write each, from any number of goroutines. Once a write has failed, all later frames are
// thrown away: whoever reads the stream decides what that means.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes one frame of at most proto.MaxChunk bytes.
func (w *Writer) Send(kind proto.Kind, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = proto.WriteStreamFrame(w.w, kind, data)
	}
	return w.err
}

// SendJSON writes v as one frame.
func (w *Writer) SendJSON(kind proto.Kind, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return w.Send(kind, data)
}

// sendBuffer writes the first n bytes of b's payload as one frame.
func (w *Writer) sendBuffer(kind proto.Kind, b *buffer, n int) {
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(n)) //nolint:gosec // at most MaxChunk
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		_, w.err = w.w.Write(b[:headSize+n])
	}
}

// Output copies what a command writes to frames. The command is blocked while the host reads slowly. When the frames
// cannot be sent any more, output is read and thrown away, so that the command is not blocked for good.
type Output struct {
	file *os.File
	kind proto.Kind
	to   *Writer
	pool *Pool
	done chan struct{}
}

// Copy starts copying file, which it closes at the end.
func Copy(file *os.File, kind proto.Kind, to *Writer, pool *Pool) *Output {
	o := &Output{file: file, kind: kind, to: to, pool: pool, done: make(chan struct{})}
	go o.run()
	return o
}

func (o *Output) run() {
	b := o.pool.get()
	defer o.pool.pool.Put(b)
	for {
		n, err := o.file.Read(b[headSize:])
		if n > 0 {
			o.to.sendBuffer(o.kind, b, n)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.rest(b)
			close(o.done)
			o.discard(b)
			return
		}
		if err != nil { // end of file, or EIO of a terminal
			close(o.done)
			_ = o.file.Close() // nothing was written
			return
		}
	}
}

// rest sends what is waiting in the pipe at this moment, and with it all that the command itself has written.
func (o *Output) rest(b *buffer) {
	waiting := 0
	o.raw(func(fd int) {
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
			waiting = n
		}
	})
	for waiting > 0 {
		n := 0
		o.raw(func(fd int) { n, _ = unix.Read(fd, b[headSize:headSize+min(waiting, proto.MaxChunk)]) }) // then n <= 0
		if n <= 0 {
			return
		}
		o.to.sendBuffer(o.kind, b, n)
		waiting -= n
	}
}

func (o *Output) raw(f func(fd int)) {
	if conn, err := o.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { f(int(fd)) }) // a closed file: nothing to read
	}
}

// discard goes on reading for background processes that have inherited the pipe, so that they neither block nor die of it.
func (o *Output) discard(b *buffer) {
	defer o.file.Close()
	if o.file.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for {
		if _, err := o.file.Read(b[:]); err != nil {
			return
		}
	}
}

// Finish waits for the end of the output, but at most for grace while background processes keep it open. All that had
// been written when Finish was called has been sent when it returns.
func (o *Output) Finish(grace time.Duration) {
	select {
	case <-o.done:
		return
	default:
	}
	_ = o.file.SetReadDeadline(time.Now().Add(grace)) // a closed file has ended
	<-o.done
}

// Leave sends end-of-file after the last frame, where the stream can do that by itself. The stream must then stay open
// until the host closes it (AwaitClose): closing both ways at once may throw away what a slow host has not read yet.
func Leave(st io.ReadWriteCloser) {
	if cw, ok := st.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // the stream is over either way
	}
}

// AwaitClose reads and drops whatever the host still sends until it closes the stream.
func AwaitClose(st io.Reader) {
	_, _ = io.Copy(io.Discard, st) // any end will do
}

package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// readSize is how much is asked of the carrier at once. A virtio-serial port gives 4 KiB at most, a socket more.
const readSize = 64 << 10

// wire is a carrier with a read buffer that outlives sessions. One goroutine at a time reads, one at a time writes.
type wire struct {
	carrier io.ReadWriteCloser
	buf     []byte
	// start and end delimit what was read from the carrier and not yet used.
	start, end int

	mu          sync.Mutex
	interrupted bool
	closed      bool
}

func newWire(carrier io.ReadWriteCloser) *wire {
	return &wire{carrier: carrier, buf: make([]byte, readSize+maxRecord)}
}

func (w *wire) buffered() []byte { return w.buf[w.start:w.end] }

func (w *wire) discard(n int) {
	w.start += n
	if w.start == w.end {
		w.start, w.end = 0, 0
	}
}

// fill reads once from the carrier, blocking until at least one byte has come.
func (w *wire) fill() error {
	if len(w.buf)-w.end < readSize {
		w.end = copy(w.buf, w.buf[w.start:w.end])
		w.start = 0
	}
	for {
		n, err := w.carrier.Read(w.buf[w.end:])
		if n > 0 {
			w.end += n
			return nil
		}
		if err != nil {
			return fmt.Errorf("read carrier: %w", err)
		}
	}
}

// need makes at least n bytes (at most maxRecord) available.
func (w *wire) need(n int) error {
	for w.end-w.start < n {
		if err := w.fill(); err != nil {
			return err
		}
	}
	return nil
}

// interrupt makes reads and writes under way and to come fail, until rearm. A carrier without deadlines is closed.
func (w *wire) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupted = true
	if d, ok := w.carrier.(interface{ SetDeadline(t time.Time) error }); ok {
		if err := d.SetDeadline(time.Unix(1, 0)); err == nil {
			return
		}
	}
	w.closed = true
	_ = w.carrier.Close()
}

// rearm makes the carrier usable after interrupt.
func (w *wire) rearm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("use carrier: %w", net.ErrClosed)
	}
	if !w.interrupted {
		return nil
	}
	w.interrupted = false
	d, ok := w.carrier.(interface{ SetDeadline(t time.Time) error })
	if !ok {
		return errors.New("use carrier: it was interrupted and has no deadlines")
	}
	if err := d.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("use carrier: %w", err)
	}
	return nil
}

func (w *wire) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	if err := w.carrier.Close(); err != nil {
		return fmt.Errorf("close carrier: %w", err)
	}
	return nil
}

package body

import (
	"errors"
	"io"
	"sync"
	"time"
)

// maxQueue is how far the body may be ahead of its decoder, in bytes.
const maxQueue = 64 << 10

// sourceError is what reading the body itself failed with.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// encoded is a body with an encoding. A goroutine decodes; Read hands it what passes.
type encoded struct {
	rc io.ReadCloser
	// waited is how long Reads have waited for the decoder; only Read uses it.
	waited time.Duration
	stall  time.Duration
	queue  *queue
	// done is closed when the sink is.
	done chan struct{}
}

func begin(rc io.ReadCloser, codings []string, limits Limits, sink Sink, cost int64) *encoded {
	b := &encoded{rc: rc, stall: limits.Stall, queue: newQueue(), done: make(chan struct{})}
	go func() { // Close waits for it
		defer close(b.done)
		defer limits.Budget.give(cost)
		copyOut(b.queue, codings, limits, &guarded{sink: sink, limits: limits})
	}()
	return b
}

func (b *encoded) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	if n > 0 {
		b.waited += b.queue.put(p[:n], b.stall-b.waited)
	}
	if err != nil {
		b.queue.end(err)
	}
	return n, err //nolint:wrapcheck // as it is
}

// Close ends the copy and waits for it, within the bound.
func (b *encoded) Close() error {
	err := b.rc.Close()
	b.queue.end(&sourceError{ErrCut})
	timer := time.NewTimer(b.stall)
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
		b.queue.abandon()
	}
	return err //nolint:wrapcheck // as it is
}

// copyOut decodes the queue into the sink.
func copyOut(q *queue, codings []string, limits Limits, to *guarded) {
	err := func() (err error) {
		defer func() {
			if recover() != nil {
				err = ErrPanic
			}
		}()
		out, closeAll, err := layers(q, codings, limits)
		defer closeAll()
		if err != nil {
			return err
		}
		for p := make([]byte, 16<<10); ; {
			n, err := out.Read(p)
			to.write(p[:n])
			if err != nil || to.closed {
				return err //nolint:wrapcheck // of this package
			}
			if to.got > bombFloor && to.got/limits.Ratio > q.taken() {
				return ErrBomb
			}
		}
	}()
	q.abandon() // what passes need not wait any more
	if source, ok := errors.AsType[*sourceError](err); ok {
		err = source.err
	}
	to.end(whole(err))
}

// queue is a bounded pipe whose writer gives up.
type queue struct {
	mu    sync.Mutex
	buf   []byte
	read  int
	total int64
	err   error
	gone  bool
	slow  bool
	// more and room wake up the reader and the writer.
	more, room chan struct{}
}

func newQueue() *queue {
	return &queue{more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put adds bytes. It waits for room no longer than is left, after which the copy is given up, and returns how long it has waited.
func (q *queue) put(p []byte, left time.Duration) (waited time.Duration) {
	for p = q.add(p); len(p) > 0; p = q.add(p) {
		began := time.Now()
		timer := time.NewTimer(left - waited)
		select {
		case <-q.room:
		case <-timer.C:
			q.giveUp()
		}
		timer.Stop()
		waited += time.Since(began)
	}
	return waited
}

// add takes what there is room for and returns the rest, nothing if nobody reads any more.
func (q *queue) add(p []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone || q.slow || q.err != nil {
		return nil
	}
	if q.read == len(q.buf) {
		q.buf, q.read = q.buf[:0], 0
	} else if q.read > 0 && len(q.buf)+len(p) > maxQueue {
		q.buf = q.buf[:copy(q.buf, q.buf[q.read:])]
		q.read = 0
	}
	n := min(len(p), maxQueue-len(q.buf))
	q.buf = append(q.buf, p[:n]...)
	q.total += int64(n)
	wake(q.more)
	return p[n:]
}

// Read is for the decoder.
func (q *queue) Read(p []byte) (int, error) {
	for {
		n, ok, err := q.take(p)
		if ok {
			return n, err
		}
		<-q.more
	}
}

func (q *queue) take(p []byte) (n int, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.slow:
		return 0, true, &sourceError{ErrSlow}
	case q.read < len(q.buf):
		n = copy(p, q.buf[q.read:])
		q.read += n
		wake(q.room)
		return n, true, nil
	case q.err != nil:
		return 0, true, q.err
	}
	return 0, false, nil
}

// taken is how many bytes have come in.
func (q *queue) taken() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// end says that nothing more comes, and why; the first reason stays.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		if !errors.Is(err, io.EOF) {
			if _, ok := errors.AsType[*sourceError](err); !ok {
				err = &sourceError{err}
			}
		} else {
			err = io.EOF
		}
		q.err = err
	}
	wake(q.more)
}

// giveUp ends the copy for being slow.
func (q *queue) giveUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slow, q.buf, q.read = true, nil, 0
	wake(q.more)
}

// abandon says that nobody reads any more.
func (q *queue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone, q.buf, q.read = true, nil, 0
	if q.err == nil {
		q.err = &sourceError{ErrCut}
	}
	wake(q.more)
	wake(q.room)
}

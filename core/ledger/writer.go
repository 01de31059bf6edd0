package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/fault"
	"capsem/core/store"
)

// Options of a Writer. What is zero gets a default.
type Options struct {
	// Session is the id of the session; required. A database belongs to one for good.
	Session string
	// Key signs the heads; required.
	Key ed25519.PrivateKey
	// Log hears of what goes wrong; required.
	Log *slog.Logger
	// Bodies is how many bytes of each body are kept, up to MaxBody; 0 is none.
	Bodies int
	// MaxBytes is how large the database may become until file and audit events are only counted; 0 is no bound.
	MaxBytes int64
	// CountEvery is how often such a count is written.
	CountEvery time.Duration
	// Queue and QueueBytes bound what waits to be written.
	Queue int
	// QueueBytes bounds the bytes that wait.
	QueueBytes int64
	// Batch is how many entries one transaction takes, Linger how long it waits for them.
	Batch int
	// Linger is how long a transaction waits for more.
	Linger time.Duration
	// Patience is how long Record waits for room.
	Patience time.Duration
	// SignEvery and SignRows say after how long or how many rows the head is signed.
	SignEvery time.Duration
	// SignRows is after how many rows the head is signed.
	SignRows uint64
}

func (o *Options) defaults() error {
	if o.Session == "" || len(o.Session) > 256 || len(o.Key) != ed25519.PrivateKeySize || o.Log == nil {
		return errors.New("open ledger: session, key and log are required")
	}
	setDefault(&o.Queue, 16384)
	setDefault(&o.QueueBytes, 32<<20)
	setDefault(&o.CountEvery, time.Minute)
	setDefault(&o.Batch, 4096)
	setDefault(&o.Linger, 5*time.Millisecond)
	setDefault(&o.Patience, 100*time.Millisecond)
	setDefault(&o.SignEvery, 2*time.Second)
	setDefault(&o.SignRows, 1<<17)
	return nil
}

func setDefault[T int | int64 | uint64 | time.Duration](to *T, value T) {
	if *to <= 0 {
		*to = value
	}
}

// Writer records the rows of one session. It is safe for many goroutines.
type Writer struct {
	opts      Options
	headerKey *[32]byte

	queue  chan *entry
	room   chan struct{}
	wake   chan struct{}
	queued atomic.Int64
	drops  drops
	// full says that the record has reached its size; over counts what is not kept since.
	full atomic.Bool
	over drops

	accepted, written, lost atomic.Uint64
	failing                 atomic.Pointer[error]

	// unclosed says that whoever wrote before did not close.
	unclosed bool
	// mu is held for reading while a row is put into the queue, so that none comes after the end.
	mu     sync.RWMutex
	closed bool
	// abandon makes the writing goroutine give up; done is closed when it has ended, with final set.
	abandon context.CancelFunc
	done    chan struct{}
	final   error
}

// Open opens a session's database, or makes it, and goes on with its chain. It refuses one whose signed head does not fit.
func Open(ctx context.Context, path string, opts Options) (*Writer, error) {
	if err := opts.defaults(); err != nil {
		return nil, err
	}
	// The file is about to change, so what was signed over all of it holds no longer.
	noSeal := os.Remove(sealPath(path))
	if noSeal != nil && !errors.Is(noSeal, os.ErrNotExist) {
		return nil, fmt.Errorf("open ledger: %w", noSeal)
	}
	db, err := store.Open(ctx, path, schema)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &loop{db: db, groups: newGroups()}
	if l.chainer, err = newChainer(); err == nil {
		err = l.load(ctx, &opts)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), db.Close(ctx))
	}
	// The writing goroutine outlives the call that opened it.
	running, abandon := context.WithCancel(context.WithoutCancel(ctx))
	w := &Writer{
		opts: opts, headerKey: headerKey(opts.Key),
		queue: make(chan *entry, opts.Queue), room: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		abandon: abandon, done: make(chan struct{}),
	}
	l.w, w.unclosed = w, noSeal != nil && l.pos.seq > 0
	l.measure(ctx)
	go l.run(running)
	return w, nil
}

// Unclosed reports whether whoever wrote to the record before did not close it: what was under way at its end, such as requests without
// their answers, is in no row.
func (w *Writer) Unclosed() bool { return w.unclosed }

// Flush waits until everything recorded before it is in the database.
func (w *Writer) Flush(ctx context.Context) error { return w.wait(ctx, &mark{}) }

// Seal is Flush, and then signs the head; all of it survives a loss of power.
func (w *Writer) Seal(ctx context.Context) error { return w.wait(ctx, &mark{seal: true}) }

func (w *Writer) wait(ctx context.Context, m *mark) error {
	m.done = make(chan error, 1)
	closed := fault.New(fault.Unavailable, "the record is closed")
	select {
	case <-w.done:
		return closed
	default:
	}
	select {
	case w.queue <- &entry{mark: m}:
	case <-w.done:
		return closed
	case <-ctx.Done():
		return w.late(ctx)
	}
	select {
	case err := <-m.done:
		return err
	case <-w.done:
		// It may have been answered just before the end.
		select {
		case err := <-m.done:
			return err
		default:
			return errors.Join(closed, w.final)
		}
	case <-ctx.Done():
		return w.late(ctx)
	}
}

// late is the error of somebody who could not wait longer, with what it waited for.
func (w *Writer) late(ctx context.Context) error {
	return errors.Join(fmt.Errorf("write record: %w", context.Cause(ctx)), w.Err())
}

// Close writes everything, signs the head and closes the database. When ctx ends first, what is not written is lost, and the
// error says how much.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	w.mu.Unlock()
	if first {
		m := &mark{stop: true, done: make(chan error, 1)}
		select {
		case w.queue <- &entry{mark: m}:
		case <-ctx.Done():
		}
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		w.abandon()
		<-w.done
	}
	w.abandon()
	return w.final
}

// Err is why rows cannot be written at present, nil when all is well.
func (w *Writer) Err() error {
	if p := w.failing.Load(); p != nil {
		return *p
	}
	return nil
}

// Counters are the numbers of a Writer.
type Counters struct {
	// Recorded rows were taken into the queue, Written of them are in the database.
	Recorded, Written uint64
	// Lost rows were not taken. They are counted in drop_events too.
	Lost uint64
	// QueuedBytes wait.
	QueuedBytes int64
}

// Counters reports the numbers of now.
func (w *Writer) Counters() Counters {
	return Counters{w.accepted.Load(), w.written.Load(), w.lost.Load(), w.queued.Load()}
}

// Package body lets a message body pass unchanged while a decoded copy of it goes to a Sink. Whatever is wrong with the encoding, or with
// the sink, ends the copy and is reported to it; it never changes what passes, nor holds it up for longer than a bound.
package body

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Sink takes the decoded copy. Its methods are called one after the other, Close last and once.
type Sink interface {
	// Write takes the next bytes, which are only valid during the call.
	Write(p []byte)
	// Close ends the copy. A nil says that it is whole, else the error says why not: one of this package's, or what reading failed with.
	Close(err error)
}

// Limits bounds what a copy may take; zeros are the defaults named.
type Limits struct {
	// Decoded is how many bytes the sink gets, and each decoding in between may give; default 64 MiB.
	Decoded int64
	// Ratio is how many times larger than what came in decoded bytes may be, once they are more than 1 MiB; default 300.
	Ratio int64
	// Window is how much memory a decoder may keep to refer back to, in bytes; default 8 MiB, which is what zstd is allowed in HTTP.
	Window int
	// Stall is how long in all the body may wait for decoder and sink; default 2 s.
	Stall time.Duration
	// Budget is what all decoders together may keep; nil is no bound but that of each.
	Budget *Budget
}

// Budget is memory that the decoders of many bodies share. A body that would exceed it is not looked at.
type Budget struct{ left atomic.Int64 }

// NewBudget makes a budget of so many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.left.Store(bytes)
	return b
}

// take takes bytes if there are so many left; give gives them back.
func (b *Budget) take(n int64) bool {
	if b == nil || b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *Budget) give(n int64) {
	if b != nil {
		b.left.Add(n)
	}
}

// Why a copy is not whole.
var (
	// ErrEncoding says that the body has an encoding, or more of them, than are known here.
	ErrEncoding = errors.New("the body's encoding is not known")
	// ErrCorrupt says that it could not be decoded to its end.
	ErrCorrupt = errors.New("the body cannot be decoded")
	// ErrTrailing says that more came after the end of what was decoded.
	ErrTrailing = errors.New("there is more after the end of the encoded body")
	// ErrTooLarge and ErrBomb say that it is larger than Decoded, or than Ratio allows.
	ErrTooLarge = errors.New("the body is too large to be looked at")
	ErrBomb     = errors.New("the body grows too much when it is decoded")
	// ErrWindow says that its decoder wants more than Window.
	ErrWindow = errors.New("the body needs too much memory to be decoded")
	// ErrSlow says that decoder and sink were slower than Stall allows.
	ErrSlow = errors.New("the body cannot be looked at fast enough")
	// ErrBusy says that too many bodies are being decoded.
	ErrBusy = errors.New("too many bodies are looked at")
	// ErrCut says that the body was closed before its end.
	ErrCut = errors.New("the body was closed before its end")
	// ErrPanic says that decoder or sink broke down.
	ErrPanic = errors.New("looking at the body has failed")
)

// bombFloor is from where on Ratio counts.
const bombFloor = 1 << 20

func (l *Limits) defaults() {
	if l.Decoded <= 0 {
		l.Decoded = 64 << 20
	}
	if l.Ratio <= 0 {
		l.Ratio = 300
	}
	if l.Window <= 0 {
		l.Window = 8 << 20
	}
	if l.Stall <= 0 {
		l.Stall = 2 * time.Second
	}
}

// Inspect returns a body that passes rc unchanged and gives the sink a copy, decoded by encoding, which is the value of Content-Encoding.
// The copy has ended when Close returns, unless it was given up for being slow. Close has to be called even after the end, and ends a Read
// that waits if that of rc does. A body of an accepted upgrade is not to be wrapped: it is written to as well.
func Inspect(rc io.ReadCloser, encoding string, limits Limits, sink Sink) io.ReadCloser {
	limits.defaults()
	codings, err := parse(encoding)
	if err != nil {
		sink.Close(err)
		return rc
	}
	if len(codings) == 0 {
		return &plain{rc: rc, copy: &guarded{sink: sink, limits: limits}}
	}
	cost := memory(codings, limits.Window)
	if !limits.Budget.take(cost) {
		sink.Close(ErrBusy)
		return rc
	}
	return begin(rc, codings, limits, sink, cost)
}

// plain is a body without encoding: the sink sees bytes before whoever reads.
type plain struct {
	rc io.ReadCloser

	mu   sync.Mutex // Close may come while a Read waits
	copy *guarded
	took time.Duration
}

func (b *plain) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copy.closed {
		return n, err //nolint:wrapcheck // as it is
	}
	if n > 0 {
		began := time.Now()
		b.copy.write(p[:n])
		if b.took += time.Since(began); b.took > b.copy.limits.Stall {
			b.copy.end(ErrSlow)
		}
	}
	if err != nil {
		b.copy.end(whole(err))
	}
	return n, err //nolint:wrapcheck // as it is
}

// Close ends the copy, too.
func (b *plain) Close() error {
	err := b.rc.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.copy.end(ErrCut)
	return err //nolint:wrapcheck // as it is
}

// whole makes nil of an end.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// guarded is a sink that is closed once and gets no more than it may. It is for one goroutine at a time.
type guarded struct {
	sink   Sink
	limits Limits
	got    int64
	closed bool
}

// write gives the sink bytes, and ends the copy where there are too many or where it breaks down.
func (g *guarded) write(p []byte) {
	if g.closed {
		return
	}
	defer func() {
		if recover() != nil {
			g.end(ErrPanic)
		}
	}()
	fits := p[:min(int64(len(p)), g.limits.Decoded-g.got)]
	g.got += int64(len(fits))
	if len(fits) > 0 {
		g.sink.Write(fits)
	}
	if len(fits) < len(p) {
		g.end(ErrTooLarge)
	}
}

// end closes the sink, unless it is closed.
func (g *guarded) end(err error) {
	if g.closed {
		return
	}
	g.closed = true
	defer func() { _ = recover() }() // a sink that breaks down when it is closed cannot be told so
	g.sink.Close(err)
}

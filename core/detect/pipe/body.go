package pipe

import (
	"io"
	"sync"
)

// chunk is how much of a body is read at a time.
const chunk = 32 << 10

// Filter looks through a text that comes in pieces, and may change it. What it gives is good until the next call; an error ends it all.
type Filter interface {
	Push(p []byte, last bool) ([]byte, error)
}

// Body is a body that is looked through, and changed, as it is read.
type Body struct {
	src    io.Reader
	close  func() error
	filter Filter
	// end is called when all has been read, before the reader learns it.
	end func() error

	buf   *[chunk]byte
	ready []byte
	err   error
}

// Freer is a Filter that wants to know when it is not needed any more. A body that nobody reads to its end does not tell.
type Freer interface{ Free() }

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// NewBody makes one of what src gives; end may be nil.
func NewBody(src io.Reader, closeSrc func() error, filter Filter, end func() error) *Body {
	return &Body{src: src, close: closeSrc, filter: filter, end: end}
}

// Read gives what has been looked at.
func (b *Body) Read(p []byte) (int, error) {
	for len(b.ready) == 0 {
		if b.err != nil {
			b.free()
			return 0, b.err
		}
		if b.buf == nil {
			b.buf, _ = buffers.Get().(*[chunk]byte)
		}
		n, err := b.src.Read(b.buf[:])
		last := err == io.EOF //nolint:errorlint // an io.Reader gives io.EOF itself
		out, refused := b.filter.Push(b.buf[:n], last)
		b.ready, b.err = out, err
		if last && refused == nil && b.end != nil {
			refused = b.end()
		}
		if refused != nil {
			b.err = refused
		}
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

// free gives away what is not needed any more. Only Read does: Close may come from anywhere while one goes on.
func (b *Body) free() {
	if b.buf != nil {
		buffers.Put(b.buf)
		b.buf = nil
	}
	if f, ok := b.filter.(Freer); ok {
		f.Free()
	}
	b.filter = nil
}

// Close closes the body it is made of.
func (b *Body) Close() error { return b.close() }

package pipe

import "io"

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

	buf, ready []byte
	err        error
}

// NewBody makes one of what src gives; end may be nil.
func NewBody(src io.Reader, closeSrc func() error, filter Filter, end func() error) *Body {
	return &Body{src: src, close: closeSrc, filter: filter, end: end}
}

// Read gives what has been looked at.
func (b *Body) Read(p []byte) (int, error) {
	if b.buf == nil {
		b.buf = make([]byte, chunk)
	}
	for len(b.ready) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		n, err := b.src.Read(b.buf)
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

// Close closes the body it is made of.
func (b *Body) Close() error { return b.close() }

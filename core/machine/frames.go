package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"capsem/core/proto"
)

// frameHead is the size of kind and length (proto/stream.go).
const frameHead = 5

// frame is one stream frame in a buffer that can be sent on as it is.
type frame struct {
	buf [frameHead + proto.MaxChunk]byte
	n   int
}

var frames = sync.Pool{New: func() any { return new(frame) }}

func newFrame() *frame {
	f, ok := frames.Get().(*frame)
	if !ok {
		return new(frame)
	}
	return f
}

// free gives the frame back; nil is nobody's.
func (f *frame) free() {
	if f != nil {
		frames.Put(f)
	}
}

// read reads the next frame. io.EOF is a clean end between frames.
func (f *frame) read(r io.Reader) error {
	if _, err := io.ReadFull(r, f.buf[:frameHead]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(f.buf[1:frameHead])
	if n > proto.MaxChunk || f.kind() > proto.KindError {
		return fmt.Errorf("frame of kind %d and %d bytes: %w", f.kind(), n, proto.ErrBadStreamFrame)
	}
	f.n = int(n)
	if _, err := io.ReadFull(r, f.buf[frameHead:frameHead+f.n]); err != nil {
		return fmt.Errorf("read frame: %w", noEOF(err))
	}
	return nil
}

func (f *frame) kind() proto.Kind { return proto.Kind(f.buf[0]) }

// data is the payload, valid until the next read.
func (f *frame) data() []byte { return f.buf[frameHead : frameHead+f.n] }

// raw is the whole frame.
func (f *frame) raw() []byte { return f.buf[:frameHead+f.n] }

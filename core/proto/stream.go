package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind is the type byte of a stream frame. The same frames run between client and service, service and worker, and host
// and guest, so bytes are spliced, never re-encoded. Layout: kind u8, length u32 big-endian, bytes.
type Kind uint8

// The kinds. JSON is used inside frames that a browser or script may read.
const (
	// KindStdin is input for the command or the PTY (towards the guest). An empty one ends the input.
	KindStdin Kind = 0
	// KindStdout is output of the command, or of its PTY.
	KindStdout Kind = 1
	// KindStderr is error output; never used with a PTY.
	KindStderr Kind = 2
	// KindExit ends the stream: JSON ExitStatus (from the guest).
	KindExit Kind = 3
	// KindResize is a new window size: JSON WindowSize (towards the guest).
	KindResize Kind = 4
	// KindSignal is a signal for the process group: its number as one byte (towards the guest).
	KindSignal Kind = 5
	// KindStarted says that the command runs: JSON Started (from the guest; the worker adds the job id).
	KindStarted Kind = 6
	// KindData is file content, either way. An empty one ends the content.
	KindData Kind = 7
	// KindResult ends a file operation: JSON FileResult (from the guest).
	KindResult Kind = 8
	// KindError ends any stream that capsem itself had to give up: JSON StreamError (from the host side only).
	KindError Kind = 9
)

const (
	// MaxChunk is the largest stream frame a sender makes.
	MaxChunk = 64 << 10
	// streamHead is the size of kind and length.
	streamHead = 5
)

// ErrBadStreamFrame is a stream frame with an unknown kind or a length over MaxChunk.
var ErrBadStreamFrame = errors.New("malformed stream frame")

// WriteStreamFrame writes one frame with a single Write. len(data) must not exceed MaxChunk.
func WriteStreamFrame(w io.Writer, kind Kind, data []byte) error {
	if len(data) > MaxChunk {
		return fmt.Errorf("write %d bytes in one stream frame: %w", len(data), ErrBadStreamFrame)
	}
	buf := make([]byte, streamHead+len(data))
	buf[0] = byte(kind)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(data))) //nolint:gosec // bounded by MaxChunk above
	copy(buf[streamHead:], data)
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("write stream frame: %w", err)
	}
	return nil
}

// StreamReader reads stream frames into one reused buffer.
type StreamReader struct {
	r   io.Reader
	buf []byte
}

// NewStreamReader returns a reader over r.
func NewStreamReader(r io.Reader) *StreamReader { return &StreamReader{r: r} }

// Next returns the next frame. The bytes are valid until the next call. io.EOF is a clean end between frames.
func (s *StreamReader) Next() (Kind, []byte, error) {
	var head [streamHead]byte
	if err := readHead(s.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxChunk || Kind(head[0]) > KindError {
		return 0, nil, fmt.Errorf("read stream frame kind %d of %d bytes: %w", head[0], n, ErrBadStreamFrame)
	}
	if s.buf == nil {
		s.buf = make([]byte, MaxChunk)
	}
	if _, err := io.ReadFull(s.r, s.buf[:n]); err != nil {
		return 0, nil, fmt.Errorf("read stream frame: %w", cutShort(err))
	}
	return Kind(head[0]), s.buf[:n], nil
}

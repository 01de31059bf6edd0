package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

const (
	// MaxFrame bounds one CBOR frame, either way (reference/capsem-guest.md 2.1).
	MaxFrame = 256 << 10
	// MaxHeader bounds a StreamHeader frame.
	MaxHeader = 4 << 10
)

// ErrFrameTooLarge is returned before any memory is taken for a frame over its limit.
var ErrFrameTooLarge = errors.New("frame larger than allowed")

var (
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 16, MaxArrayElements: 4096, MaxMapPairs: 4096,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
	encMode = must(cbor.CoreDetEncOptions().EncMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are constants: only a programming error can get here
	}
	return v
}

// WriteFrame writes v as one frame: length u32 big-endian, then CBOR. One Write call, so concurrent users need only a lock.
func WriteFrame(w io.Writer, v any) error {
	body, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("encode frame of %d bytes: %w", len(body), ErrFrameTooLarge)
	}
	buf := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(buf, uint32(len(body))) //nolint:gosec // bounded by MaxFrame above
	if _, err := w.Write(append(buf, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// ReadFrame reads one frame of at most limit bytes into v. io.EOF means a clean end between frames.
func ReadFrame(r io.Reader, limit int, v any) error {
	var head [4]byte
	if err := readHead(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || int64(n) > int64(limit) {
		return fmt.Errorf("read frame of %d bytes: %w", n, ErrFrameTooLarge)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read frame: %w", cutShort(err))
	}
	return Unmarshal(body, v)
}

// readHead reads what begins a frame. Only an end before its first byte is clean.
func readHead(r io.Reader, head []byte) error {
	n, err := io.ReadFull(r, head)
	switch {
	case err == nil:
		return nil
	case n == 0 && errors.Is(err, io.EOF):
		return io.EOF
	}
	return fmt.Errorf("read frame: %w", cutShort(err))
}

// cutShort is the error of something that had begun: its end is no clean one, and must not be taken for a peer that left.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Unmarshal decodes CBOR under the bounds of this package.
func Unmarshal(body []byte, v any) error {
	if err := decMode.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode frame: %w", cutShort(err)) // of no bytes CBOR says io.EOF
	}
	return nil
}

// Marshal encodes v as deterministic CBOR.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b, nil
}

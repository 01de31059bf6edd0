// Package peer is calls both ways over one pair of byte streams: between a worker, its MCP aggregator and the built-in server. Each
// frame is CBOR after its length. Neither side trusts the other: frames, calls in flight and what waits to be written are bounded, and a
// call that gets no answer fails; it is never sent again.
package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame bounds one frame in bytes.
const MaxFrame = 16 << 20

// kind says what a frame is.
type kind uint8

const (
	// call wants an answer, note does not; answer and failure end the call with the same ID, cancel asks for that.
	call kind = iota + 1
	note
	answer
	failure
	cancel
)

// Code says what kind of failure an Error is, beyond those of JSON-RPC. The numbers are such as the SDK has no meaning for.
const (
	// CodeFailed is any other failure.
	CodeFailed = -32603
	// CodeLost is a call whose answer was lost: it may have been carried out, and is not repeated.
	CodeLost = -32001
	// CodeTimeout is a call that took longer than it may.
	CodeTimeout = -32011
	// CodeRefused is a call that the owner's policy does not allow.
	CodeRefused = -32012
	// CodeBusy is a call too many at once.
	CodeBusy = -32013
	// CodeTooLarge is an answer larger than allowed.
	CodeTooLarge = -32014
)

// Error is a failure that the other side told of.
type Error struct {
	// Code is one of those above or of JSON-RPC, Message plain words.
	Code    int64  `cbor:"code"`
	Message string `cbor:"message"`
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code int64, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// frame is what crosses.
type frame struct {
	Kind   kind   `cbor:"k"`
	ID     uint64 `cbor:"i,omitempty"`
	Method string `cbor:"m,omitempty"`
	Body   []byte `cbor:"b,omitempty"`
	Error  *Error `cbor:"e,omitempty"`
}

// validate checks what does not follow from the types.
func (f *frame) validate() error {
	switch {
	case f.Kind < call || f.Kind > cancel:
		return fmt.Errorf("frame of an unknown kind %d", f.Kind)
	case (f.Kind == call || f.Kind == note) == (f.Method == ""), len(f.Method) > 64:
		return errors.New("frame without the name of a method, or with one that it cannot have")
	case (f.Kind == note) != (f.ID == 0):
		return errors.New("frame with an id that it cannot have")
	case (f.Kind == failure) != (f.Error != nil):
		return errors.New("frame with an error that it cannot have")
	case f.Error != nil && len(f.Error.Message) > 64<<10:
		return errors.New("frame with an endless error")
	}
	return nil
}

var (
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 16, MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 12,
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

// errTooLarge is a frame over MaxFrame.
var errTooLarge = errors.New("frame larger than allowed")

// encode is one frame with its length before it.
func encode(f *frame) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(len(f.Body) + 64)
	buf.Write(make([]byte, 4))
	if err := encMode.NewEncoder(&buf).Encode(f); err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	data := buf.Bytes()
	if len(data)-4 > MaxFrame {
		return nil, fmt.Errorf("encode frame of %d bytes: %w", len(data)-4, errTooLarge)
	}
	binary.BigEndian.PutUint32(data, uint32(len(data)-4)) //nolint:gosec // bounded above
	return data, nil
}

// decode reads one frame. io.EOF is a clean end.
func decode(r io.Reader) (*frame, error) {
	var head [4]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return nil, fmt.Errorf("read frame of %d bytes: %w", n, errTooLarge)
	}
	body, err := readAll(r, int(n))
	if err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	f := &frame{}
	if err := decMode.Unmarshal(body, f); err != nil {
		return nil, fmt.Errorf("decode frame: %w", err)
	}
	if err := f.validate(); err != nil {
		return nil, err
	}
	return f, nil
}

// readAll reads n bytes. It takes memory only as bytes come, so that a length alone costs nothing.
func readAll(r io.Reader, n int) ([]byte, error) {
	const step = 256 << 10
	if n <= step {
		body := make([]byte, n)
		_, err := io.ReadFull(r, body)
		return body, err //nolint:wrapcheck // the caller says what it read
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	return buf.Bytes(), nil
}

// Marshal encodes the parameters or the result of a call.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b, nil
}

// Unmarshal decodes them, under the same bounds as frames.
func Unmarshal(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"capsem/core/proto"
)

const (
	// FrameHead is what precedes each message: its length, big-endian.
	FrameHead = 4
	// maxHello bounds the frames of the handshake.
	maxHello = 1 << 10
	// Version is that of the handshake.
	Version = 1
)

var (
	// ErrFrame is a frame of an impossible size.
	ErrFrame = errors.New("bad frame")
	// ErrVersion is a peer that speaks another version.
	ErrVersion = errors.New("another version of the shared directory's protocol")
)

// Hello begins each stream; the guest side sends it.
type Hello struct {
	Version int `cbor:"version"`
	// Mount names one mount for as long as it lasts. A new one means that all nodes and handles of the old are gone.
	Mount []byte `cbor:"mount"`
	// Resumed says that the kernel's INIT was answered before, in another stream.
	Resumed bool `cbor:"resumed"`
	// Hints says that the guest side knows what to do with a Hint.
	Hints bool `cbor:"hints,omitempty"`
	// Behind says that the guest side makes use of credit.
	Behind bool `cbor:"behind,omitempty"`
}

// Welcome answers Hello.
type Welcome struct {
	Version int `cbor:"version"`
	// Forgets is how many messages that forget nodes the host has carried out for this mount.
	Forgets uint64 `cbor:"forgets"`
	// Fresh says that the host knows nothing of this mount yet, though it may have been another's before.
	Fresh bool `cbor:"fresh,omitempty"`
	// Tag names the directory, for logs.
	Tag string `cbor:"tag"`
}

// MountSize is the size of Hello.Mount.
const MountSize = 16

// ReadHello reads and checks a Hello.
func ReadHello(r io.Reader) (Hello, error) {
	var h Hello
	if err := proto.ReadFrame(r, maxHello, &h); err != nil {
		return h, err
	}
	if h.Version != Version {
		return h, fmt.Errorf("%w: %d", ErrVersion, h.Version)
	}
	if len(h.Mount) != MountSize {
		return h, fmt.Errorf("%w: mount of %d bytes", ErrFrame, len(h.Mount))
	}
	return h, nil
}

// ReadWelcome reads and checks a Welcome.
func ReadWelcome(r io.Reader) (Welcome, error) {
	var w Welcome
	if err := proto.ReadFrame(r, maxHello, &w); err != nil {
		return w, err
	}
	if w.Version != Version {
		return w, fmt.Errorf("%w: %d", ErrVersion, w.Version)
	}
	return w, nil
}

// WriteHandshake writes a Hello or a Welcome.
func WriteHandshake(w io.Writer, v any) error { return proto.WriteFrame(w, v) }

// ReadHead reads the length of the next frame: at least minimum and at most MaxMessage. io.EOF is a clean end.
func ReadHead(r io.Reader, minimum int) (int, error) {
	var head [FrameHead]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxMessage || int(n) < minimum {
		return 0, fmt.Errorf("read frame of %d bytes: %w", n, ErrFrame)
	}
	return int(n), nil
}

// PutHead writes the length of the message that follows into the first FrameHead bytes of frame.
func PutHead(frame []byte) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-FrameHead)) //nolint:gosec // a frame is at most MaxMessage
}

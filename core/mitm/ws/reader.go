// Package ws reads the frames of a WebSocket connection (RFC 6455) as they pass, so that messages are counted and can be inspected. It
// changes nothing, holds nothing back, and keeps of a message only a bounded beginning. Extensions are not understood: the proxy takes
// them out of the client's offer, so that what passes is plain.
package ws

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcode says what a message is.
type Opcode uint8

// The opcodes of RFC 6455.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	Close        Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// Message is a whole message that has passed.
type Message struct {
	// FromGuest says who sent it.
	FromGuest bool
	Opcode    Opcode
	// Size is its length, Data its beginning, which is all of it unless it is longer than the reader keeps. Data is valid during the call.
	Size int64
	Data []byte
}

// Piece is the next part of a message, as it comes.
type Piece struct {
	// FromGuest says who sends it.
	FromGuest bool
	Opcode    Opcode
	// Data is valid during the call. Last says that the message ends with it.
	Data []byte
	Last bool
}

// ErrProtocol is a breach of RFC 6455.
var ErrProtocol = errors.New("the WebSocket connection does not keep to its protocol")

// MaxKeep is the most of one message that a Reader keeps.
const MaxKeep = 1 << 20

// Reader follows one direction of a connection.
type Reader struct {
	guest bool
	keep  int
	got   func(Message) error
	// piece, if set, is told of each piece before it goes on; plain is room for one without its mask.
	piece func(Piece) error
	plain []byte

	// head collects the head of the frame at hand, of which need bytes are wanted.
	head [14]byte
	have int
	need int
	// left is what is still to come of the frame's payload, at where we are in it.
	left   int64
	at     int64
	inside bool
	frame  frame

	// message is the one that is being put together; control is a control frame, which may come in the middle of one.
	message, control partial
	open             bool
	err              error
	// Messages and Frames count what was whole.
	Messages, Frames int64
}

type frame struct {
	fin    bool
	op     Opcode
	masked bool
	mask   [4]byte
}

type partial struct {
	op   Opcode
	size int64
	data []byte
}

// NewReader makes a Reader of what the guest sends (masked) or of what it gets. Of each message it keeps up to keep bytes for got, which may
// be nil and whose error ends the connection.
func NewReader(fromGuest bool, keep int, got func(Message) error) *Reader {
	return &Reader{guest: fromGuest, keep: min(max(keep, 0), MaxKeep), got: got, need: 2}
}

// Write takes the next bytes. After an error nothing more is taken. It does not change p.
func (r *Reader) Write(p []byte) (int, error) {
	total := len(p)
	for r.err == nil && len(p) > 0 {
		if r.inside {
			p = r.payload(p)
			continue
		}
		n := copy(r.head[r.have:r.need], p)
		r.have += n
		p = p[n:]
		if r.have == r.need {
			r.err = r.headed()
		}
	}
	if r.err != nil {
		return total - len(p), r.err
	}
	return total, nil
}

// headed looks at the head as far as it is there.
func (r *Reader) headed() error {
	if r.have == 2 {
		if err := r.begin(); err != nil {
			return err
		}
		switch r.head[1] & 0x7f {
		case 126:
			r.need += 2
		case 127:
			r.need += 8
		}
		if r.frame.masked {
			r.need += 4
		}
		if r.need > 2 {
			return nil
		}
	}
	rest := r.head[2:r.need]
	r.left = int64(r.head[1] & 0x7f)
	switch r.left {
	case 126:
		r.left, rest = int64(binary.BigEndian.Uint16(rest)), rest[2:]
		if r.left < 126 {
			return fmt.Errorf("%w: a length in more bytes than it takes", ErrProtocol)
		}
	case 127:
		long := binary.BigEndian.Uint64(rest)
		if long > 1<<62 || long < 1<<16 {
			return fmt.Errorf("%w: an impossible length", ErrProtocol)
		}
		r.left, rest = int64(long), rest[8:]
	}
	if r.frame.masked {
		copy(r.frame.mask[:], rest)
	}
	r.have, r.need, r.at, r.inside = 0, 2, 0, true
	if r.left == 0 {
		return r.ended()
	}
	return nil
}

// begin checks the first two bytes of a frame.
func (r *Reader) begin() error {
	b0, b1 := r.head[0], r.head[1]
	r.frame = frame{fin: b0&0x80 != 0, op: Opcode(b0 & 0x0f), masked: b1&0x80 != 0}
	control := r.frame.op&8 != 0
	switch {
	case b0&0x70 != 0:
		return fmt.Errorf("%w: a reserved bit of an extension that was not agreed", ErrProtocol)
	case r.frame.masked != r.guest:
		return fmt.Errorf("%w: masked by the wrong side", ErrProtocol)
	case r.frame.op > Binary && r.frame.op < Close || r.frame.op > Pong:
		return fmt.Errorf("%w: unknown opcode %d", ErrProtocol, r.frame.op)
	case control && (!r.frame.fin || b1&0x7f > 125):
		return fmt.Errorf("%w: a control frame in pieces or too long", ErrProtocol)
	case r.frame.op == Continuation && !r.open:
		return fmt.Errorf("%w: a continuation of nothing", ErrProtocol)
	case r.frame.op != Continuation && !control && r.open:
		return fmt.Errorf("%w: a message inside another", ErrProtocol)
	}
	switch {
	case control:
		r.control = partial{op: r.frame.op, data: r.control.data[:0]}
	case r.frame.op != Continuation:
		r.open = true
		r.message = partial{op: r.frame.op, data: r.message.data[:0]}
	}
	return nil
}

// current is the message that the frame at hand belongs to.
func (r *Reader) current() *partial {
	if r.frame.op&8 != 0 {
		return &r.control
	}
	return &r.message
}

// payload takes what p has of the frame at hand and returns the rest.
func (r *Reader) payload(p []byte) []byte {
	n := int(min(int64(len(p)), r.left))
	m := r.current()
	if r.piece != nil {
		r.plain = append(r.plain[:0], p[:n]...)
		if r.frame.masked {
			for i := range r.plain {
				r.plain[i] ^= r.frame.mask[(r.at+int64(i))&3]
			}
		}
		if r.err = r.piece(Piece{FromGuest: r.guest, Opcode: m.op, Data: r.plain}); r.err != nil {
			return p
		}
	}
	if room := r.keep - len(m.data); room > 0 && r.got != nil {
		from := len(m.data)
		m.data = append(m.data, p[:min(room, n)]...)
		if r.frame.masked {
			for i := range m.data[from:] {
				m.data[from+i] ^= r.frame.mask[(r.at+int64(i))&3]
			}
		}
	}
	m.size += int64(n)
	r.at += int64(n)
	if r.left -= int64(n); r.left == 0 {
		r.err = r.ended()
	}
	return p[n:]
}

// ended is the end of a frame.
func (r *Reader) ended() error {
	r.inside = false
	r.Frames++
	if !r.frame.fin {
		return nil
	}
	m := r.current()
	if m == &r.message {
		r.open = false
	}
	r.Messages++
	if m.size < 0 {
		return fmt.Errorf("%w: an impossible length", ErrProtocol)
	}
	if r.piece != nil {
		if err := r.piece(Piece{FromGuest: r.guest, Opcode: m.op, Last: true}); err != nil {
			return err
		}
	}
	if r.got == nil {
		return nil
	}
	return r.got(Message{FromGuest: r.guest, Opcode: m.op, Size: m.size, Data: m.data})
}

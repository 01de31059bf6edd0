package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
)

// InSize and OutSize are the sizes of the headers of requests and answers.
const (
	InSize  = 40
	OutSize = 16
)

var (
	// ErrMessage is a message that is cut short, too long or contradicts itself.
	ErrMessage = errors.New("bad message")
	// ErrName is a file name that cannot be one.
	ErrName = errors.New("bad name")
	// ErrLongName is a file name of more than MaxName bytes.
	ErrLongName = errors.New("name too long")
)

// Header begins each request.
type Header struct {
	Len    uint32
	Op     Op
	Unique uint64
	Node   uint64
	PID    uint32
	// ext is the size of extensions at the end of the message, in units of 8 bytes.
	ext uint16
}

// ParseRequest splits a request into its header and its body, extensions cut off.
func ParseRequest(msg []byte) (Header, []byte, error) {
	if len(msg) < InSize || len(msg) > MaxMessage {
		return Header{}, nil, ErrMessage
	}
	h := Header{
		Len: binary.LittleEndian.Uint32(msg), Op: Op(binary.LittleEndian.Uint32(msg[4:])),
		Unique: binary.LittleEndian.Uint64(msg[8:]), Node: binary.LittleEndian.Uint64(msg[16:]),
		PID: binary.LittleEndian.Uint32(msg[32:]), ext: binary.LittleEndian.Uint16(msg[36:]),
	}
	body := msg[InSize:]
	if int(h.Len) != len(msg) || int(h.ext)*8 > len(body) {
		return h, nil, ErrMessage
	}
	return h, body[:len(body)-int(h.ext)*8], nil
}

// Body reads the fields of a request in order. The first field that is not there makes Err return ErrMessage.
type Body struct {
	b   []byte
	err error
}

// NewBody reads from b.
func NewBody(b []byte) *Body { return &Body{b: b} }

// Err is the first thing that was wrong.
func (r *Body) Err() error { return r.err }

// Left is how many bytes have not been read.
func (r *Body) Left() int { return len(r.b) }

// Bytes takes n bytes; they are valid as long as the message.
func (r *Body) Bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		if r.err == nil {
			r.err = ErrMessage
		}
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// U32 takes a number of 32 bits.
func (r *Body) U32() uint32 {
	b := r.Bytes(4)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// U64 takes a number of 64 bits.
func (r *Body) U64() uint64 {
	b := r.Bytes(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// Skip passes over n bytes.
func (r *Body) Skip(n int) { r.Bytes(n) }

// Text takes bytes up to a NUL.
func (r *Body) Text() string {
	i := bytes.IndexByte(r.b, 0)
	b := r.Bytes(i + 1)
	if i < 0 || b == nil {
		r.err = errors.Join(r.err, ErrMessage)
		return ""
	}
	return string(b[:i])
}

// Name takes a file name that CheckName is content with.
func (r *Body) Name() string {
	s := r.Text()
	if r.err == nil {
		r.err = CheckName(s)
	}
	return s
}

// CheckName refuses what cannot name a file in a directory: nothing, "." and "..", a slash, NUL, more than MaxName bytes.
func CheckName(s string) error {
	switch {
	case len(s) > MaxName:
		return ErrLongName
	case s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00"):
		return ErrName
	}
	return nil
}

// End says that everything must have been read.
func (r *Body) End() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = ErrMessage
	}
	return r.err
}

// Package gitwire reads and writes what git says over HTTP: lines in packets, the commands of a push, requests for packs, and the commits in a
// pack. All of it comes from a guest, so everything has a bound.
package gitwire

import (
	"errors"
	"fmt"
	"io"
)

// Kind tells packets apart.
type Kind uint8

// The kinds of packets.
const (
	Data Kind = iota
	Flush
	Delim
	ResponseEnd
)

const (
	// MaxPacket is the largest packet, with its length.
	MaxPacket = 65520
	// maxSideband is the most that fits into a packet of a side band.
	maxSideband = MaxPacket - 5
)

var (
	// ErrPacket is a packet that is none.
	ErrPacket = errors.New("malformed packet")
	// ErrTooMuch is more than is looked at.
	ErrTooMuch = errors.New("too much to look through")
)

// Reader reads packets, and keeps what it has read. It reads nothing beyond the packet it is asked for.
type Reader struct {
	src io.Reader
	max int
	// raw is all that was read.
	raw []byte
}

// NewReader reads packets from src, at most max bytes.
func NewReader(src io.Reader, maxBytes int) *Reader { return &Reader{src: src, max: maxBytes} }

// Raw is what has been read so far.
func (r *Reader) Raw() []byte { return r.raw }

// Next reads a packet. Its data is good for as long as the Reader is. At the end it gives io.EOF.
func (r *Reader) Next() (Kind, []byte, error) {
	head, err := r.take(4)
	if err != nil {
		return 0, nil, err
	}
	n := 0
	for _, c := range head {
		d := unhex(c)
		if d < 0 {
			return 0, nil, fmt.Errorf("%w: length %.4q", ErrPacket, head)
		}
		n = n<<4 | d
	}
	switch {
	case n < 3:
		return Flush + Kind(n), nil, nil
	case n == 3 || n > MaxPacket:
		return 0, nil, fmt.Errorf("%w: length %.4q", ErrPacket, head)
	}
	data, err := r.take(n - 4)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return Data, data, err
}

func (r *Reader) take(n int) ([]byte, error) {
	at := len(r.raw)
	if at+n > r.max {
		return nil, ErrTooMuch
	}
	r.raw = append(r.raw, make([]byte, n)...)
	got, err := io.ReadFull(r.src, r.raw[at:])
	r.raw = r.raw[:at+got]
	if err != nil {
		return nil, err //nolint:wrapcheck // io.EOF is looked for
	}
	return r.raw[at : at+n : at+n], nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// AppendPacket adds a packet with a text, which is cut if it is too long.
func AppendPacket(b []byte, text string) []byte {
	text = text[:min(len(text), MaxPacket-4)]
	return append(fmt.Appendf(b, "%04x", len(text)+4), text...)
}

// AppendFlush adds a flush packet.
func AppendFlush(b []byte) []byte { return append(b, "0000"...) }

// AppendBand adds data for one band of a side band, in as many packets as it needs.
func AppendBand(b []byte, band byte, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), maxSideband)
		b = append(fmt.Appendf(b, "%04x", n+5), band)
		b, data = append(b, data[:n]...), data[n:]
	}
	return b
}

package link

import (
	"encoding/binary"
	"fmt"
)

// What this package knows of yamux frames: version u8 (0), type u8, flags u16, stream u32, length u32, then length bytes
// in a data frame. The peer may be hostile, so what yamux itself would not bound is refused before it sees it.
const (
	frameHead = 12

	typeData   = 0
	typeWindow = 1

	flagSYN = 1
	flagACK = 2
	flagRST = 8
)

// frameChecker checks the frames of the peer, whole records at a time.
type frameChecker struct{ peerIsHost bool }

// frames refuses a payload that is not a sequence of whole frames, pings (answering them would cost a goroutine each, and
// we never send any), go-aways (yamux would open no more streams in a session that goes on; who leaves ends the carrier, and
// yamux itself sends one only with a failure that ends the session), and streams opened under our own numbers.
func (c frameChecker) frames(b []byte) error {
	for len(b) > 0 {
		if len(b) < frameHead || b[0] != 0 {
			return fmt.Errorf("%w: a frame is cut short or has version %d", errCorrupt, b[0])
		}
		flags := binary.BigEndian.Uint16(b[2:])
		id, length := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		size := frameHead
		switch b[1] {
		case typeData:
			if int64(length) > int64(len(b)-frameHead) {
				return fmt.Errorf("%w: a frame of %d bytes is longer than its record", errCorrupt, length)
			}
			size += int(length)
		case typeWindow:
		default:
			return fmt.Errorf("%w: a frame has type %d", errCorrupt, b[1])
		}
		if flags&flagSYN != 0 && (id == 0 || (id%2 == 1) != c.peerIsHost) {
			return fmt.Errorf("%w: the other side opened stream %d, which is not its to open", errCorrupt, id)
		}
		b = b[size:]
	}
	return nil
}

func resetFrame(id uint32) []byte {
	b := make([]byte, frameHead)
	b[1] = typeWindow
	binary.BigEndian.PutUint16(b[2:], flagRST)
	binary.BigEndian.PutUint32(b[4:], id)
	return b
}

// maxHeld bounds, in bytes, frames that wait to leave together with others.
const maxHeld = 40 * frameHead

// maxFrameBody is the longest body of a frame that we send: with what may be held before it, it fits in one record.
const maxFrameBody = maxPayload - maxHeld - 2*frameHead

// frameWriter gathers what yamux writes until it should leave: a header and its body together; a frame that only makes a
// stream (SYN) together with the StreamHeader that always follows it; and one that only confirms a stream (ACK) together
// with whatever comes next, since yamux needs it for nothing but counting unconfirmed streams, up to acceptBacklog, of
// which at most maxHeld bytes' worth wait here.
type frameWriter struct {
	// buf is room for a record's head, then frames.
	buf []byte
	// body is how many bytes of the current frame's body are still to come; late is frames that must wait for them.
	body int
	late []byte
}

// add takes one write of yamux and reports whether buf should leave now.
func (f *frameWriter) add(p []byte) bool {
	f.buf = append(f.buf, p...)
	if f.body > 0 {
		f.body -= min(len(p), f.body)
		return f.body == 0
	}
	if len(p) != frameHead {
		return true
	}
	if p[1] == typeData {
		f.body = int(binary.BigEndian.Uint32(p[8:]))
		return f.body == 0
	}
	flags := binary.BigEndian.Uint16(p[2:])
	return (flags != flagSYN && flags != flagACK) || len(f.buf) >= maxHeld
}

// insert adds a whole frame of ours and reports whether buf should leave now; inside a frame it waits for its end.
func (f *frameWriter) insert(frame []byte) bool {
	if f.body > 0 {
		f.late = append(f.late, frame...)
		return false
	}
	f.buf = append(f.buf, frame...)
	return true
}

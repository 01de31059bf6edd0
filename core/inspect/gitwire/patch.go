package gitwire

import (
	"encoding/binary"
	"errors"
)

var errDelta = errors.New("a difference does not fit what it is to")

// patch applies a difference to what it is to.
func patch(base, delta []byte) ([]byte, error) {
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(base)) {
		return nil, errDelta
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 || size > maxCommit {
		return nil, errDelta
	}
	delta = delta[n:]
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		var piece []byte
		switch {
		case op == 0:
			return nil, errDelta
		case op < 0x80:
			if int(op) > len(delta) {
				return nil, errDelta
			}
			piece, delta = delta[:op], delta[op:]
		default:
			var ok bool
			if piece, delta, ok = copied(base, delta, op); !ok {
				return nil, errDelta
			}
		}
		if uint64(len(out)+len(piece)) > size {
			return nil, errDelta
		}
		out = append(out, piece...)
	}
	if uint64(len(out)) != size {
		return nil, errDelta
	}
	return out, nil
}

// copied reads an order to copy a piece of the base.
func copied(base, delta []byte, op byte) (piece, rest []byte, ok bool) {
	var at, n int
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if len(delta) == 0 {
			return nil, nil, false
		}
		if i < 4 {
			at |= int(delta[0]) << (8 * i)
		} else {
			n |= int(delta[0]) << (8 * (i - 4))
		}
		delta = delta[1:]
	}
	if n == 0 {
		n = 0x10000
	}
	if at > len(base) || n > len(base)-at {
		return nil, nil, false
	}
	return base[at : at+n], delta, true
}

package ledger

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/zeebo/blake3"
)

// hashSize is the length of a hash of the chain.
const hashSize = 32

// Hash is one link of the chain.
type Hash [hashSize]byte

// chainer turns rows into links: hash = BLAKE3(previous hash, canonical row). It is for one goroutine.
type chainer struct {
	mode   cbor.UserBufferEncMode
	buf    bytes.Buffer
	hasher *blake3.Hasher
}

func newChainer() (*chainer, error) {
	mode, err := cbor.CoreDetEncOptions().UserBufferEncMode()
	if err != nil {
		return nil, fmt.Errorf("make chain: %w", err)
	}
	return &chainer{mode: mode, hasher: blake3.New()}, nil
}

// next is the link of a row. values are the table's name, the row's id and its columns, as encoded.values.
func (c *chainer) next(prev *Hash, values []any) (Hash, error) {
	c.buf.Reset()
	if err := c.mode.MarshalToBuffer(canonical(values), &c.buf); err != nil {
		return Hash{}, fmt.Errorf("chain row: %w", err)
	}
	c.hasher.Reset()
	_, _ = c.hasher.Write(prev[:])
	_, _ = c.hasher.Write(c.buf.Bytes())
	var out Hash
	c.hasher.Sum(out[:0])
	return out, nil
}

// canonical leaves out columns without a value at the end of a row, so that a column which a later version adds does not
// change what is the link of the rows before.
func canonical(values []any) []any {
	for len(values) > columnsAt && values[len(values)-1] == nil {
		values = values[:len(values)-1]
	}
	return values
}

// genesis is the link before the first: it binds a chain to its session.
func genesis(session string) Hash {
	h := blake3.NewDeriveKey("capsem 2026-11 ledger chain of a session")
	_, _ = h.WriteString(session)
	var out Hash
	h.Sum(out[:0])
	return out
}

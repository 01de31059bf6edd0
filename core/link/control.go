package link

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// kind is what a control record says.
type kind byte

const (
	kindHello kind = 1
	kindAck   kind = 2
	kindStart kind = 3
	kindGo    kind = 4
)

const (
	// controlSize is the length of a control record.
	controlSize = 32
	// wireVersion is the version of the records of this package.
	wireVersion = 1
	// padByte begins neither a control nor a data record.
	padByte = 0xFF
)

// magic begins a control record. No yamux frame (version byte 0), data record (0xD7) or UTF-8 text begins like it.
var magic = [8]byte{0xF5, 'c', 'a', 'p', 's', 'e', 'm', 0xFA}

// control is a decoded control record.
type control struct {
	kind  kind
	nonce [16]byte
}

func (c control) encode() []byte {
	b := make([]byte, controlSize)
	copy(b, magic[:])
	b[8], b[9] = byte(c.kind), wireVersion
	copy(b[12:], c.nonce[:])
	binary.BigEndian.PutUint32(b[28:], crc32.ChecksumIEEE(b[:28]))
	return b
}

// parseControl decodes the control record at the start of b; false when there is none.
func parseControl(b []byte) (control, bool) {
	if len(b) < controlSize || !bytes.Equal(b[:8], magic[:]) || b[9] != wireVersion || b[10] != 0 || b[11] != 0 {
		return control{}, false
	}
	if binary.BigEndian.Uint32(b[28:]) != crc32.ChecksumIEEE(b[:28]) {
		return control{}, false
	}
	c := control{kind: kind(b[8])}
	copy(c.nonce[:], b[12:28])
	return c, c.kind >= kindHello && c.kind <= kindGo
}

// scanControl looks for a control record anywhere in b. It returns how many bytes are done with: all before a record that
// may still be incomplete, or all up to the end of the record found.
func scanControl(b []byte) (c control, used int, found bool) {
	for {
		i := bytes.IndexByte(b[used:], magic[0])
		if i < 0 {
			return control{}, len(b), false
		}
		used += i
		rest := b[used:]
		if !bytes.HasPrefix(magic[:], rest[:min(len(rest), len(magic))]) {
			used++
			continue
		}
		if len(rest) < controlSize {
			return control{}, used, false
		}
		if c, ok := parseControl(rest); ok {
			return c, used + controlSize, true
		}
		used++
	}
}

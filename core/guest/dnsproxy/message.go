//go:build linux

package dnsproxy

import "encoding/binary"

const (
	// headerSize is that of a DNS message's header; nothing shorter is one.
	headerSize = 12
	// maxDatagram is the longest message that UDP over IPv4 can carry.
	maxDatagram = 65507
	// serverFailure is the answer code SERVFAIL.
	serverFailure = 2
	// Bits of the flags: it is an answer, recursion is wanted, recursion is available; and the mask of the kind of query.
	bitAnswer, bitWanted, bitAvailable, maskKind = 1 << 15, 1 << 8, 1 << 7, 0xf << 11
)

// failure answers a query with SERVFAIL; nil where the query is none. The question is repeated when it is plain: clients compare it.
func failure(query []byte) []byte {
	if len(query) < headerSize {
		return nil
	}
	flags := binary.BigEndian.Uint16(query[2:])
	if flags&bitAnswer != 0 {
		return nil // never answer an answer
	}
	question := plainQuestion(query)
	out := make([]byte, headerSize, headerSize+len(question))
	copy(out, query[:2])
	binary.BigEndian.PutUint16(out[2:], flags&(maskKind|bitWanted)|bitAnswer|bitAvailable|serverFailure)
	if len(question) > 0 {
		out[5] = 1
	}
	return append(out, question...)
}

// plainQuestion is the question section of a query that has one question with a name that is written out.
func plainQuestion(query []byte) []byte {
	if binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	const longest, typeAndClass = 255, 4
	for at := headerSize; at < len(query) && at-headerSize < longest; {
		n := int(query[at])
		at += 1 + n
		switch {
		case n > 63:
			return nil // a reference, or something else that has no place here
		case n == 0 && at+typeAndClass <= len(query):
			return query[headerSize : at+typeAndClass]
		case n == 0:
			return nil
		}
	}
	return nil
}

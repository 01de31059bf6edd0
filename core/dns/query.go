package dns

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	// maxQuery bounds a question with its EDNS options: real ones are far below.
	maxQuery = 4096
	// maxExtra is how many additional records a question may have; more than OPT and a signature nobody sends.
	maxExtra = 4
	// minUDP is what every client takes, maxUDP what passes every path in one piece.
	minUDP, maxUDP = 512, 1232
	flagQR         = 1 << 15
)

// query is a guest's question.
type query struct {
	id uint16
	// rd and cd are given back as they came.
	rd, cd bool
	opcode int
	// asked says that question was readable. Its name has the letter case of the client.
	asked    bool
	question dns.Question
	edns, do bool
	version  uint8
	udpSize  uint16
	tcp      bool
}

var errForm = errors.New("malformed message")

// parseQuery reads a message by hand: what comes from a guest has one question and few additional records, so nothing of it needs
// memory in proportion to what it claims. With answer unset nothing may be sent back; rcode is other than success for what gets only that.
func parseQuery(msg []byte, tcp bool) (q query, rcode int, answer bool) {
	if len(msg) < headerSize {
		return q, 0, false
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return q, 0, false
	}
	q = query{
		id: binary.BigEndian.Uint16(msg), rd: flags&(1<<8) != 0, cd: flags&(1<<4) != 0,
		opcode: int(flags >> 11 & 0xf), udpSize: minUDP, tcp: tcp,
	}
	if q.opcode != dns.OpcodeQuery {
		return q, dns.RcodeNotImplemented, true
	}
	if len(msg) > maxQuery || q.sections(msg) != nil {
		return q, dns.RcodeFormatError, true
	}
	switch {
	case q.version != 0:
		return q, dns.RcodeBadVers, true
	case q.question.Qclass != dns.ClassINET, q.question.Name == ".":
		return q, dns.RcodeRefused, true
	}
	switch q.question.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB:
		return q, dns.RcodeRefused, true
	case dns.TypeNone, dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG:
		return q, dns.RcodeFormatError, true
	}
	return q, dns.RcodeSuccess, true
}

func (q *query) sections(msg []byte) error {
	count := func(at int) int { return int(binary.BigEndian.Uint16(msg[at:])) }
	if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > maxExtra {
		return errForm
	}
	end, err := skipName(msg, headerSize, false)
	if err != nil || end+4 > len(msg) {
		return errForm
	}
	name, _, err := dns.UnpackDomainName(msg, headerSize)
	if err != nil {
		return errForm
	}
	q.question = dns.Question{Name: name, Qtype: binary.BigEndian.Uint16(msg[end:]), Qclass: binary.BigEndian.Uint16(msg[end+2:])}
	q.asked = true
	off := end + 4
	for range count(10) {
		if off, err = q.extra(msg, off); err != nil {
			return err
		}
	}
	if off != len(msg) {
		return errForm
	}
	return nil
}

// extra reads one additional record. All but OPT are passed over.
func (q *query) extra(msg []byte, off int) (next int, err error) {
	end, err := skipName(msg, off, true)
	if err != nil || end+10 > len(msg) {
		return 0, errForm
	}
	kind, class := binary.BigEndian.Uint16(msg[end:]), binary.BigEndian.Uint16(msg[end+2:])
	ttl, size := binary.BigEndian.Uint32(msg[end+4:]), int(binary.BigEndian.Uint16(msg[end+8:]))
	next = end + 10 + size
	if next > len(msg) {
		return 0, errForm
	}
	if kind == dns.TypeOPT {
		if q.edns || msg[off] != 0 {
			return 0, errForm
		}
		q.edns, q.udpSize = true, min(max(class, minUDP), maxUDP)
		q.version, q.do = uint8(ttl>>16), ttl&(1<<15) != 0 //nolint:gosec // the third byte of four
	}
	return next, nil
}

// skipName finds the end of a name. A question comes first, so a pointer in it can only point into the header or itself.
func skipName(msg []byte, off int, pointers bool) (int, error) {
	for start := off; off < len(msg) && off-start < 255; {
		c := int(msg[off])
		switch {
		case c == 0:
			return off + 1, nil
		case c&0xc0 == 0xc0 && pointers:
			return off + 2, nil
		case c&0xc0 != 0:
			return 0, errForm
		}
		off += 1 + c
	}
	return 0, errForm
}

package dns

import (
	"github.com/miekg/dns"
)

const (
	// standInTTL is how long clients may keep a stand-in, in seconds; it never changes, but a policy does.
	standInTTL = 60
	// refusedTTL is how long clients may keep a refusal: the owner may be about to allow the name.
	refusedTTL = 5
)

// reply is an answer without records.
func (q *query) reply(rcode int) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: q.id, Response: true, Opcode: q.opcode, RecursionDesired: q.rd, CheckingDisabled: q.cd, RecursionAvailable: true, Rcode: rcode,
	}}
	if q.asked {
		m.Question = []dns.Question{q.question}
	}
	if q.edns {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: maxUDP}}
		if q.do {
			opt.SetDo()
		}
		m.Extra = []dns.RR{opt}
	}
	return m
}

// pack writes a reply, cut to what the client takes. An empty result is no answer.
func (q *query) pack(m *dns.Msg) []byte {
	limit := dns.MaxMsgSize
	if !q.tcp {
		limit = int(q.udpSize)
	}
	m.Compress = len(m.Answer)+len(m.Ns) > 0
	wire, err := m.Pack()
	if err == nil && len(wire) <= limit {
		return wire
	}
	if len(m.Answer)+len(m.Ns) == 0 {
		return nil
	}
	m.Truncate(limit)
	if wire, err = m.Pack(); err == nil && len(wire) <= limit {
		return wire
	}
	// What cannot be packed at all came from upstream.
	failed := q.reply(dns.RcodeServerFailure)
	if wire, err = failed.Pack(); err == nil && len(wire) <= limit {
		return wire
	}
	return nil
}

func (q *query) head(kind uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: q.question.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// negative says how long an answer without records holds. Its owner is the root, the one name that is above every other.
func negative() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: refusedTTL},
		Ns:  "capsem.invalid.", Mbox: "hostmaster.capsem.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: refusedTTL,
	}
}

package dns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"capsem/core/policy"
	"capsem/core/proto"
)

const nxdomain = dns.RcodeNameError

// forwarded are the types that the owner's resolver answers, if the name is allowed. The others are empty: A and AAAA because the guest gets
// no real addresses, HTTPS and SVCB because they hold some, signatures because stand-ins have none.
var forwarded = []uint16{
	dns.TypeTXT, dns.TypeMX, dns.TypeSRV, dns.TypeCAA, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeNAPTR, dns.TypeSSHFP,
}

// outcome is what becomes of a lookup.
type outcome struct {
	rcode                  int
	records                []dns.RR
	name                   string
	decision, rule, reason string
	err                    error
	// fresh says that it went upstream or took an address of the pool: that always has its event.
	fresh bool
}

// refusedBy is the outcome of a message that is no question to be judged.
func refusedBy(rcode int) outcome {
	return outcome{rcode: rcode, decision: Failed, rule: RuleProtocol, reason: "not a question that is answered here"}
}

func allowedBy(rule, reason string, records ...dns.RR) outcome {
	return outcome{decision: Allowed, rule: rule, reason: reason, records: records}
}

// resolve answers a sound question.
func (s *Server) resolve(ctx context.Context, q *query, by *proto.ProcessClaim) outcome {
	if q.question.Qtype == dns.TypePTR {
		return s.reverse(q)
	}
	plainName := strings.ToLower(strings.TrimSuffix(q.question.Name, "."))
	name, err := policy.NormalHost(plainName)
	if err != nil || name != plainName || isAddress(name) {
		return outcome{rcode: nxdomain, decision: Denied, rule: policy.RuleMalformed, reason: "not a host name"}
	}
	if local(name) || name == s.hostname && name != "" {
		out := allowedBy(RuleLocal, "a name of the guest itself", loopback(q)...)
		out.name = name
		return out
	}
	v := s.cfg.Judge.Judge(ctx, &policy.Request{VM: s.cfg.VM, Host: name, Scheme: "dns", Process: by.Name, Exe: by.Exe})
	out := outcome{decision: Allowed, rule: v.RuleID, reason: v.Reason, name: name}
	if v.Effect != policy.Allow && v.Effect != policy.Ask { // whatever else it may be
		out.decision, out.rcode = Denied, nxdomain
		return out
	}
	switch {
	case q.question.Qtype == dns.TypeA, q.question.Qtype == dns.TypeAAAA:
		s.address(ctx, q, &out)
	case q.question.Qtype == dns.TypeANY:
		out.records = []dns.RR{&dns.HINFO{Hdr: q.head(dns.TypeHINFO, standInTTL), Cpu: "RFC8482"}}
	case slices.Contains(forwarded, q.question.Qtype):
		s.forward(ctx, q, &out)
	}
	return out
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// loopback answers for the guest's own names.
func loopback(q *query) []dns.RR {
	switch q.question.Qtype {
	case dns.TypeA:
		return []dns.RR{&dns.A{Hdr: q.head(dns.TypeA, standInTTL), A: []byte{127, 0, 0, 1}}}
	case dns.TypeAAAA:
		six := netip.IPv6Loopback().As16()
		return []dns.RR{&dns.AAAA{Hdr: q.head(dns.TypeAAAA, standInTTL), AAAA: six[:]}}
	}
	return nil
}

// address gives an existing name its stand-in. AAAA is empty, but only if the name exists: to many clients its NXDOMAIN counts for A too.
func (s *Server) address(ctx context.Context, q *query, out *outcome) {
	if !s.cfg.Unchecked {
		_, fresh, err := s.finder.addresses(ctx, out.name)
		out.fresh = fresh
		if err != nil {
			out.fail(err)
			return
		}
	}
	if q.question.Qtype == dns.TypeAAAA {
		return
	}
	addr, added, err := s.table.assign(out.name)
	if err != nil {
		out.fail(err)
		return
	}
	out.fresh = out.fresh || added
	four := addr.As4()
	out.records = []dns.RR{&dns.A{Hdr: q.head(dns.TypeA, standInTTL), A: four[:]}}
}

// fail turns an error into an answer. What upstream says is the answer to an allowed lookup; the rest is a failure.
func (o *outcome) fail(err error) {
	switch {
	case errors.Is(err, ErrNoName):
		o.rcode = nxdomain
	case errors.Is(err, ErrNoAddress):
	default:
		o.rcode, o.decision, o.err = dns.RcodeServerFailure, Failed, err
	}
}

// forward gives the records that the owner's resolver has, under the question's own name.
func (s *Server) forward(ctx context.Context, q *query, out *outcome) {
	f, fresh, err := s.finder.find(ctx, key{name: out.name, qtype: q.question.Qtype})
	out.fresh = fresh
	if err != nil {
		out.fail(err)
		return
	}
	ttl := uint32(min(f.ttl, maxTTL).Seconds())
	for _, rr := range f.records {
		rr = dns.Copy(rr)
		if head := rr.Header(); strings.EqualFold(head.Name, q.question.Name) {
			head.Name = q.question.Name
		}
		rr.Header().Ttl = ttl
		out.records = append(out.records, rr)
	}
}

// reverse answers for stand-ins and loopback only. What other addresses are called nobody is asked.
func (s *Server) reverse(q *query) outcome {
	addr := addressOf(q.question.Name)
	name, known := s.table.name(addr)
	if addr.IsLoopback() {
		name, known = "localhost", true
	}
	if !known {
		return outcome{rcode: nxdomain, decision: Denied, rule: RuleReverse, reason: "only stand-in addresses have names here"}
	}
	return allowedBy(RuleLocal, "a stand-in of this VM", &dns.PTR{Hdr: q.head(dns.TypePTR, standInTTL), Ptr: name + "."})
}

// addressOf reads a name below in-addr.arpa or ip6.arpa.
func addressOf(name string) netip.Addr {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		addr, _ := netip.ParseAddr(strings.Join(parts, "."))
		return addr
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}
	}
	var text strings.Builder
	for i := 62; i >= 0; i -= 2 {
		text.WriteByte(rest[i])
		if i%8 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	addr, _ := netip.ParseAddr(text.String())
	return addr
}

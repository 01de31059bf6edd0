package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxLinks is how many CNAMEs are followed in one answer, maxRounds how often the end of a chain is asked for on its own.
	maxLinks, maxRounds = 16, 4
	// maxRecords bounds the records of one answer.
	maxRecords = 512
)

var errChain = errors.New("a chain of CNAMEs that does not end")

// chase asks for the records of one type and follows CNAMEs to them. The records are the chain and what is at its end; whatever else an
// answer holds is left out.
func (u *upstream) chase(ctx context.Context, name string, qtype uint16) (f finding) {
	at, seen := dns.Fqdn(name), map[string]bool{}
	f.ttl = maxTTL
	for range maxRounds {
		m, err := u.ask(ctx, strings.TrimSuffix(at, "."), qtype)
		if err != nil {
			return finding{err: err, ttl: failureTTL}
		}
		end, found, err := f.follow(m, at, qtype, seen)
		switch {
		case err != nil:
			return finding{err: err, ttl: failureTTL}
		case found:
			f.ttl = max(f.ttl, minTTL)
			return f
		case m.Rcode == dns.RcodeNameError:
			return finding{missing: true, ttl: negativeTTL(m)}
		case strings.EqualFold(end, at):
			f.ttl = min(max(f.ttl, minTTL), negativeTTL(m))
			return f
		}
		at = end
	}
	return finding{err: errChain, ttl: failureTTL}
}

// follow walks from a name through one answer. end is where the chain stops, found that there are records.
func (f *finding) follow(m *dns.Msg, at string, qtype uint16, seen map[string]bool) (end string, found bool, err error) {
	for range maxLinks {
		next := ""
		for _, rr := range m.Answer {
			head := rr.Header()
			if head.Class != dns.ClassINET || !strings.EqualFold(head.Name, at) {
				continue
			}
			link, isLink := rr.(*dns.CNAME)
			switch {
			case head.Rrtype == qtype:
				found = true
			case isLink && next == "":
				next = link.Target
			default:
				continue
			}
			if len(f.records) == maxRecords {
				return "", false, fmt.Errorf("an answer of more than %d records", maxRecords)
			}
			f.records = append(f.records, rr)
			f.ttl = min(f.ttl, time.Duration(head.Ttl)*time.Second)
		}
		if found || next == "" {
			return at, found, nil
		}
		key := strings.ToLower(next)
		if seen[key] || len(seen) > maxLinks {
			return "", false, errChain
		}
		seen[key] = true
		at = next
	}
	return "", false, errChain
}

// negativeTTL is how long it holds that there is nothing (RFC 2308).
func negativeTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(max(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, minNegative), maxNegative)
		}
	}
	return defaultNegative
}

// addresses asks for both kinds of addresses at once. A kind that fails does not matter as long as the other gives some.
func (u *upstream) addresses(ctx context.Context, name string) finding {
	six := make(chan finding, 1)
	go func() { six <- u.chase(ctx, name, dns.TypeAAAA) }()
	v4, v6 := u.chase(ctx, name, dns.TypeA), <-six
	out := finding{ttl: min(v4.ttl, v6.ttl)}
	for _, rr := range append(v4.records, v6.records...) {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if addr.IsValid() && len(out.addrs) < maxAddrs {
			out.addrs = append(out.addrs, addr.Unmap())
		}
	}
	switch {
	case len(out.addrs) > 0:
		if v4.err != nil || v6.err != nil {
			out.ttl = minTTL
		}
	case v4.err != nil:
		return v4
	case v6.err != nil:
		return v6
	default:
		out.missing = v4.missing && v6.missing
	}
	return out
}

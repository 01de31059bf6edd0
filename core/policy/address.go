package policy

import (
	"fmt"
	"net/netip"
)

// special are the ranges that are not on the public internet, each with what it is.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this host"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local or cloud metadata"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"},
	{netip.MustParsePrefix("::/96"), "loopback or unspecified"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001::/23"), "reserved or tunnel"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "reserved"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// carriers are ranges whose addresses hold an IPv4 address, and at which byte.
var carriers = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // stateless translation (RFC 7915)
	{netip.MustParsePrefix("2002::/16"), 2},
}

// PrivateKind says what an address is if it is not on the public internet, and is empty if it is. IPv4 addresses inside IPv6 ones (mapped,
// NAT64, 6to4) are judged as what they stand for.
func PrivateKind(addr netip.Addr) string {
	if !addr.IsValid() {
		return "invalid"
	}
	addr = carried(addr)
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.what
		}
	}
	return ""
}

// carried is the IPv4 address inside an IPv6 one, or the address itself.
func carried(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	for _, c := range carriers {
		if c.prefix.Contains(addr) {
			b := addr.As16()
			return netip.AddrFrom4([4]byte(b[c.at : c.at+4]))
		}
	}
	return addr
}

// DecideDial judges the address that is about to be dialled for a request: rules that close it by a cidr deny it, and so does every private
// address that the deciding rule does not open. To be called for each address that a name gives, and after each redirect.
func (p *Policy) DecideDial(req *Request, addr netip.Addr) Verdict {
	r := *req
	r.Addr = addr
	v := p.Decide(&r)
	if kind := PrivateKind(addr); kind != "" && v.Effect != Deny && !v.Opens(addr) {
		return Verdict{
			Effect: Deny, RuleID: RulePrivate, BodyLimit: -1, Matched: FactAddr,
			Reason: fmt.Sprintf("%s is a %s address, and rule %s opens none by a cidr", addr, kind, v.RuleID),
		}
	}
	return v
}

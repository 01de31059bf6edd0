//go:build linux

package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// portDNS is where programs send name lookups.
const portDNS = 53

// chain is one of our chains with its rules.
type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

func table() *nftables.Table {
	return &nftables.Table{Name: "capsem", Family: nftables.TableFamilyINet}
}

func chains() []chain {
	accept, drop := nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	return []chain{
		{&nftables.Chain{
			Name: "redirect", Table: table(), Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest, Policy: &accept,
		}, redirectRules()},
		{&nftables.Chain{
			Name: "refuse", Table: table(), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		}, refuseRules()},
	}
}

// redirectRules see the first packet of each connection.
func redirectRules() [][]expr.Any {
	resolver := to(netip.MustParsePrefix("127.0.0.1/32")) // the address in resolv.conf
	return [][]expr.Any{
		rule(resolver, protocol(unix.IPPROTO_UDP), port(portDNS), redirect(DNSPort)),
		rule(resolver, protocol(unix.IPPROTO_TCP), port(portDNS), redirect(DNSPort)),
		rule(loopbackDevice(), verdict(expr.VerdictAccept)),
		rule(protocol(unix.IPPROTO_UDP), port(portDNS), redirect(DNSPort)),
		rule(protocol(unix.IPPROTO_TCP), port(portDNS), redirect(DNSPort)),
		rule(protocol(unix.IPPROTO_TCP), redirect(ProxyPort)),
	}
}

// refuseRules see every packet, after its redirection. What was redirected has its new address already, but still its old device.
func refuseRules() [][]expr.Any {
	return [][]expr.Any{
		rule(loopbackDevice(), verdict(expr.VerdictAccept)),
		rule(to(netip.MustParsePrefix("127.0.0.0/8")), verdict(expr.VerdictAccept)),
		rule(to(netip.MustParsePrefix("::1/128")), verdict(expr.VerdictAccept)),
		rule(protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}), // of a connection nobody knows
		rule(protocol(unix.IPPROTO_UDP), reject(unix.NFT_REJECT_ICMPX_PORT_UNREACH)),
		rule(reject(unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED)),
	}
}

// rule joins the parts of a rule.
func rule(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func protocol(number byte) []expr.Any { return meta(expr.MetaKeyL4PROTO, []byte{number}) }

// loopbackDevice matches what stays in the guest: every address of its own is reached through lo.
func loopbackDevice() []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return meta(expr.MetaKeyOIFNAME, name)
}

// to matches a destination.
func to(p netip.Prefix) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	size := uint32(p.Addr().BitLen() / 8) //nolint:gosec // 4 or 16
	out := append(meta(expr.MetaKeyNFPROTO, []byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	if !p.IsSingleIP() {
		mask := make([]byte, size)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)})
	}
	return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

// port matches the destination port of TCP and UDP.
func port(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}

// redirect changes the destination to a port of the loopback; the kernel remembers the old one.
func redirect(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
		// The kernel would say all of this by itself when it lists the rule.
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// reject answers with an ICMP error of the right family.
func reject(code byte) []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: code}}
}

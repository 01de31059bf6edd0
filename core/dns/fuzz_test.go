package dns

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"capsem/core/policy"
	"capsem/core/proto"
)

// world is an upstream that knows everything.
type world struct{}

func (world) addresses(context.Context, string) (finding, bool, error) {
	return finding{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, false, nil
}

func (world) find(_ context.Context, k key) (finding, bool, error) {
	rr, err := dns.NewRR(k.name + ". 30 TXT x")
	if err != nil {
		return finding{}, false, err
	}
	return finding{records: []dns.RR{rr}}, false, nil
}

func FuzzServe(f *testing.F) {
	for _, name := range []string{"www.example.org.", "x.test.", "1.0.64.100.in-addr.arpa.", "localhost.", "a.b.c.d.e.f.ip6.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypePTR, dns.TypeANY} {
			f.Add(question(f, name, qtype, nil), false)
			f.Add(question(f, name, qtype, func(m *dns.Msg) { m.SetEdns0(600, true) }), true)
		}
	}
	f.Add(named("\xff.\\", "example", "org"), true)
	g := newRig(f, func(c *Config, _ *ResolverConfig) { c.EventBurst = 1 })
	g.finder = world{}
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		wire := g.handle(t.Context(), &proto.DNSQuery{Message: msg, TCP: tcp})
		if len(wire) == 0 {
			return
		}
		if len(wire) > maxUDP && !tcp {
			t.Fatalf("%d bytes over UDP", len(wire))
		}
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil || !m.Response || len(msg) < 12 || msg[0] != wire[0] || msg[1] != wire[1] {
			t.Fatalf("%v: %v", m, err)
		}
		for _, rr := range m.Answer {
			if a, ok := rr.(*dns.A); ok {
				addr, _ := netip.AddrFromSlice(a.A)
				if addr = addr.Unmap(); !DefaultPool.Contains(addr) && !addr.IsLoopback() {
					t.Fatalf("the real address %s", addr)
				}
			}
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add(state("100.64.0.0/16", 2, "a.test", "b.test"))
	f.Add(state("100.64.0.0/16", 9, "a.test"))
	f.Fuzz(func(t *testing.T, saved []byte) {
		for _, saved := range [][]byte{saved, state("100.64.0.0/16", 3, string(saved[:min(len(saved), 255)]), "b.test")} {
			tab := newTestTable(t, "100.64.0.0/16", 10)
			if tab.restore(saved) != nil {
				continue
			}
			if !bytes.Equal(tab.export(), saved) {
				t.Fatal("another state comes back")
			}
		}
	})
}

func FuzzUpstreamAnswer(f *testing.F) {
	m := new(dns.Msg).SetQuestion("www.test.", dns.TypeA)
	rr, _ := dns.NewRR("www.test. 3 CNAME x.test.")
	m.Response, m.Answer, m.Id = true, []dns.RR{rr}, 1
	wire, _ := m.Pack()
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		m, err := readAnswer(wire, 1, dns.Question{Name: "www.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET})
		if err != nil {
			return
		}
		var found finding
		found.ttl = maxTTL
		_, _, err = found.follow(m, "www.test.", dns.TypeA, map[string]bool{})
		if err == nil && (len(found.records) > maxRecords || found.ttl < 0) {
			t.Fatalf("%+v", found)
		}
	})
}

func FuzzHostFiles(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch x\n127.0.0.1 localhost a.test # c\n::1 b.test")
	f.Fuzz(func(t *testing.T, text string) {
		if servers := parseResolvConf(text); len(servers) > maxServers {
			t.Fatal(servers)
		}
		for name, addrs := range parseHosts(text) {
			normal, err := policy.NormalHost(name)
			if err != nil || normal != name || len(addrs) == 0 || len(addrs) > maxAddrs {
				t.Fatalf("%q: %v", name, addrs)
			}
		}
	})
}

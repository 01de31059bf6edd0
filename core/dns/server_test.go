package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestAllowedNamesGetStandIns(t *testing.T) {
	g := newRig(t, nil, "www.example.org. 30 A 93.184.216.34", "six.example.org. 30 AAAA 2606:2800:220:1::1", "asked.example.net. 1 A 9.9.9.9")
	first := firstA(t, g.name(t, "WWW.Example.org.", dns.TypeA))
	if !DefaultPool.Contains(first) {
		t.Fatalf("%s is not of the pool", first)
	}
	if again := firstA(t, g.name(t, "www.example.org.", dns.TypeA)); again != first {
		t.Fatalf("%s, then %s", first, again)
	}
	six := firstA(t, g.name(t, "six.example.org.", dns.TypeA))
	asked := firstA(t, g.name(t, "asked.example.net.", dns.TypeA))
	if six == first || asked == six {
		t.Fatal("two names have one address")
	}
	if name, ok := g.Name(first); !ok || name != "www.example.org" {
		t.Fatalf("%s stands for %q", first, name)
	}
	if _, ok := g.Name(netip.MustParseAddr("100.64.0.200")); ok {
		t.Fatal("an address stands for nothing, and has a name")
	}
	if g.zone.asked.Load() != 6 {
		t.Fatalf("upstream was asked %d times for three names of two types", g.zone.asked.Load())
	}
}

func TestAnswersKeepTheCaseOfTheQuestion(t *testing.T) {
	g := newRig(t, nil, "www.example.org. 30 A 93.184.216.34", "www.example.org. 30 TXT hi")
	for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
		m := g.name(t, "wWw.ExAmple.ORG.", qtype)
		if m.Question[0].Name != "wWw.ExAmple.ORG." || len(m.Answer) != 1 || m.Answer[0].Header().Name != "wWw.ExAmple.ORG." {
			t.Fatalf("%v", m)
		}
	}
}

func TestAnswersByNameAndType(t *testing.T) {
	g := newRig(t, nil,
		"www.example.org. 30 A 93.184.216.34", "www.example.org. 30 HTTPS 1 . ipv4hint=93.184.216.34", "www.example.org. 30 SVCB 1 .",
		"example.org. 300 MX 5 mail.example.org.", "example.org. 30 TXT \"v=spf1\"", "empty.example.org. 30 TXT only",
		"_sip._tcp.example.org. 30 SRV 1 2 443 www.example.org.", "alias.example.org. 30 CNAME www.elsewhere.test.",
		"www.elsewhere.test. 30 A 198.51.100.7", "alias.example.org. 30 TXT not-reached", "denied.example.net. 30 A 1.1.1.1")
	for _, c := range []struct {
		name, qtype string
		rcode       int
		answer      string
		decision    string
		rule        string
		asked       bool
	}{
		{"www.example.org.", "A", 0, "100.64.0.1", Allowed, "test", true},
		{"alias.example.org.", "A", 0, "100.64.0.2", Allowed, "test", true},
		{"www.example.org.", "AAAA", 0, "", Allowed, "test", false},
		{"nothere.example.org.", "A", 3, "", Allowed, "test", true},
		{"nothere.example.org.", "AAAA", 3, "", Allowed, "test", false},
		{"empty.example.org.", "A", 0, "", Allowed, "test", true},
		{"www.example.org.", "HTTPS", 0, "", Allowed, "test", false},
		{"www.example.org.", "SVCB", 0, "", Allowed, "test", false},
		{"www.example.org.", "TYPE65534", 0, "", Allowed, "test", false},
		{"www.example.org.", "ANY", 0, `"RFC8482" ""`, Allowed, "test", false},
		{"example.org.", "MX", 0, "5 mail.example.org.", Allowed, "test", true},
		{"example.org.", "TXT", 0, `"v=spf1"`, Allowed, "test", true},
		{"_sip._tcp.example.org.", "SRV", 0, "1 2 443 www.example.org.", Allowed, "test", true},
		{"denied.example.net.", "A", 3, "", Denied, "never", false},
		{"unknown.test.", "A", 3, "", Denied, "capsem:default", false},
		{"unknown.test.", "TXT", 3, "", Denied, "capsem:default", false},
		{"printer.local.", "A", 3, "", Denied, "capsem:default", false},
		{"localhost.", "A", 0, "127.0.0.1", Allowed, RuleLocal, false},
		{"a.b.localhost.", "AAAA", 0, "::1", Allowed, RuleLocal, false},
		{"localhost.", "TXT", 0, "", Allowed, RuleLocal, false},
		{"box.", "A", 0, "127.0.0.1", Allowed, RuleLocal, false},
		{"BOX.", "AAAA", 0, "::1", Allowed, RuleLocal, false},
		{"1.0.64.100.in-addr.arpa.", "PTR", 0, "www.example.org.", Allowed, RuleLocal, false},
		{"9.0.64.100.in-addr.arpa.", "PTR", 3, "", Denied, RuleReverse, false},
		{"8.8.8.8.in-addr.arpa.", "PTR", 3, "", Denied, RuleReverse, false},
		{"1.0.0.127.in-addr.arpa.", "PTR", 0, "localhost.", Allowed, RuleLocal, false},
		{"1." + strings.Repeat("0.", 31) + "ip6.arpa.", "PTR", 0, "localhost.", Allowed, RuleLocal, false},
		{"_http._tcp.local.", "PTR", 3, "", Denied, RuleReverse, false},
	} {
		before := g.zone.asked.Load()
		qtype, ok := dns.StringToType[c.qtype]
		if !ok {
			qtype = 65534
		}
		m := g.name(t, c.name, qtype)
		var got []string
		for _, rr := range m.Answer {
			got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		e := g.events.last(t)
		if m.Rcode != c.rcode || strings.Join(got, ";") != c.answer || e.Decision != c.decision || e.Rule != c.rule {
			t.Errorf("%s %s: %s %q, %s by %s", c.name, c.qtype, dns.RcodeToString[m.Rcode], got, e.Decision, e.Rule)
		}
		if asked := g.zone.asked.Load() > before; asked != c.asked {
			t.Errorf("%s %s: upstream asked is %v", c.name, c.qtype, asked)
		}
		if len(m.Answer) == 0 && (len(m.Ns) != 1 || m.Ns[0].Header().Ttl != refusedTTL) {
			t.Errorf("%s %s: nothing says how long to believe this: %v", c.name, c.qtype, m)
		}
		if len(m.Extra) > 0 {
			t.Errorf("%s %s: additional records: %v", c.name, c.qtype, m.Extra)
		}
	}
}

func TestForwardedAnswersCarryNoAddresses(t *testing.T) {
	g := newRig(t, nil)
	g.zone.use(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		for _, text := range []string{"example.org. 9 MX 1 mail.example.org.", "mail.example.org. 9 A 10.1.2.3", "example.org. 9 A 10.1.2.4"} {
			rr, _ := dns.NewRR(text)
			m.Answer = append(m.Answer, rr)
			m.Extra = append(m.Extra, rr)
			m.Ns = append(m.Ns, rr)
		}
		_ = w.WriteMsg(m)
	})
	m := g.name(t, "example.org.", dns.TypeMX)
	if len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != dns.TypeMX || len(m.Extra)+len(m.Ns) != 0 {
		t.Fatalf("%v", m)
	}
}

func TestAReloadOfThePolicyTakesEffectAtOnce(t *testing.T) {
	g := newRig(t, nil, "www.example.org. 30 A 93.184.216.34")
	firstA(t, g.name(t, "www.example.org.", dns.TypeA))
	g.rules.set(t, "[[rule]]\nid='x'\neffect='deny'\nreason='closed'\nhosts=['**']\n")
	if m := g.name(t, "www.example.org.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Fatalf("%v", m)
	}
}

func TestUpstreamFailureIsServfail(t *testing.T) {
	g := newRig(t, func(_ *Config, rc *ResolverConfig) { rc.Tries = 1 })
	g.zone.use(func(w dns.ResponseWriter, req *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeRefused)) })
	if m := g.name(t, "www.example.org.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Fatalf("%v", m)
	}
	if e := g.events.last(t); e.Decision != Failed || !strings.Contains(e.Error, "REFUSED") || e.Code != "SERVFAIL" || e.Process.PID != 12 {
		t.Fatalf("%+v", e)
	}
	if _, ok := g.StandIn("www.example.org"); ok {
		t.Fatal("a name that nobody knows took an address")
	}
}

func TestUncheckedNamesNeedNoUpstream(t *testing.T) {
	g := newRig(t, func(c *Config, _ *ResolverConfig) { c.Unchecked = true })
	firstA(t, g.name(t, "whatever.example.org.", dns.TypeA))
	if n := g.zone.asked.Load(); n != 0 {
		t.Fatalf("upstream was asked %d times", n)
	}
}

func TestPoolExhaustion(t *testing.T) {
	g := newRig(t, func(c *Config, _ *ResolverConfig) { c.Unchecked, c.Names = true, 2 })
	a := firstA(t, g.name(t, "a.example.org.", dns.TypeA))
	firstA(t, g.name(t, "b.example.org.", dns.TypeA))
	if m := g.name(t, "c.example.org.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Fatalf("%v", m)
	}
	if e := g.events.last(t); e.Decision != Failed || e.Error != errPool.Error() {
		t.Fatalf("%+v", e)
	}
	if again := firstA(t, g.name(t, "a.example.org.", dns.TypeA)); again != a {
		t.Fatal("a name lost its address")
	}
}

func TestUpstreamQuestionsAreBounded(t *testing.T) {
	g := newRig(t, func(_ *Config, rc *ResolverConfig) { rc.PerSecond, rc.Burst = 1, 3 }, "a.example.org. 1 A 1.1.1.1")
	failed := 0
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if m := g.name(t, name+".example.org.", dns.TypeA); m.Rcode == dns.RcodeServerFailure {
			failed++
		}
	}
	if failed != 2 || g.events.last(t).Error != ErrTooMany.Error() {
		t.Fatalf("%d failed, %+v", failed, g.events.last(t))
	}
	if m := g.name(t, "a.example.org.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Fatal("what is known fails too")
	}
}

func TestEventsAreBoundedAndTheRestCounted(t *testing.T) {
	g := newRig(t, func(c *Config, _ *ResolverConfig) { c.EventsPerSecond, c.EventBurst = 1, 2 }, "a.example.org. 1 A 1.1.1.1")
	for range 10 {
		g.name(t, "refused.test.", dns.TypeA)
	}
	g.name(t, "a.example.org.", dns.TypeA)
	g.events.mu.Lock()
	n := len(g.events.list)
	g.events.mu.Unlock()
	if n != 3 {
		t.Fatalf("%d events", n)
	}
	g.Server.events.flush()
	if e := g.events.last(t); e.Name != "refused.test" || e.Repeats != 7 {
		t.Fatalf("%+v", e)
	}
}

func TestNewServerRefusesABadPool(t *testing.T) {
	r := newTestResolver(t, ResolverConfig{Servers: []string{"127.0.0.1:9"}})
	for _, pool := range []string{"8.8.8.0/24", "100.64.0.0/30", "fd00::/64", "0.0.0.0/4"} {
		if _, err := NewServer(Config{Judge: &rules{}, Recorder: &events{}, Resolver: r, Pool: netip.MustParsePrefix(pool)}); err == nil {
			t.Errorf("%s is taken", pool)
		}
	}
	if _, err := NewServer(Config{}); err == nil {
		t.Error("a server of nothing is made")
	}
}

func TestAnotherServerGoesOnWithTheNames(t *testing.T) {
	records := []string{"a.example.org. 30 A 1.1.1.1", "b.example.org. 30 A 1.1.1.1"}
	g, h := newRig(t, nil, records...), newRig(t, nil, records...)
	firstA(t, g.name(t, "a.example.org.", dns.TypeA))
	b := firstA(t, g.name(t, "b.example.org.", dns.TypeA))
	saved := g.Export()
	if err := h.Import(saved); err != nil {
		t.Fatal(err)
	}
	if got := firstA(t, h.name(t, "b.example.org.", dns.TypeA)); got != b {
		t.Fatalf("%s was %s", got, b)
	}
	if name, ok := h.Name(b); !ok || name != "b.example.org" {
		t.Fatalf("%s stands for %q", b, name)
	}
	saved[len(saved)-1]++
	if err := h.Import(saved); err == nil {
		t.Fatal("damaged state is taken")
	}
}

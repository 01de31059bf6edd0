package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"capsem/core/policy"
	"capsem/core/proto"
)

// zone is a nameserver on loopback, UDP and TCP, that answers from a table of records.
type zone struct {
	addr string
	// asked counts questions.
	asked atomic.Int64

	mu      sync.Mutex
	records map[string][]dns.RR
	// handler, when set, answers instead.
	handler dns.HandlerFunc
}

func newZone(t testing.TB, records ...string) *zone {
	t.Helper()
	z := &zone{records: map[string][]dns.RR{}}
	z.add(t, records...)
	packets, listener := listenBoth(t)
	z.addr = packets.LocalAddr().String()
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: z}, {Listener: listener, Handler: z}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return z
}

// listenBoth finds a port that is free for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		var lc net.ListenConfig
		packets, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := lc.Listen(t.Context(), "tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, listener
		}
		_ = packets.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

func (z *zone) add(t testing.TB, records ...string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(rr.Header().Name)
		z.records[name] = append(z.records[name], rr)
	}
}

// waitAsked waits until so many questions have come.
func (z *zone) waitAsked(t testing.TB, n int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for z.asked.Load() < n {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		}
	}
}

func (z *zone) use(h dns.HandlerFunc) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.handler = h
}

func (z *zone) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	z.asked.Add(1)
	z.mu.Lock()
	h := z.handler
	z.mu.Unlock()
	if h != nil {
		h(w, req)
		return
	}
	m := z.answer(req)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(maxUDP)
	}
	_ = w.WriteMsg(m)
}

func (z *zone) answer(req *dns.Msg) *dns.Msg {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(req)
	at := strings.ToLower(req.Question[0].Name)
	for range 10 {
		records, ok := z.records[at]
		if !ok {
			m.Rcode = dns.RcodeNameError
			break
		}
		next := ""
		for _, rr := range records {
			if link, ok := rr.(*dns.CNAME); ok && req.Question[0].Qtype != dns.TypeCNAME {
				next = link.Target
			}
			if rr.Header().Rrtype == req.Question[0].Qtype || next != "" {
				m.Answer = append(m.Answer, rr)
			}
		}
		if next == "" {
			break
		}
		at = next
	}
	return m
}

func newTestResolver(t testing.TB, cfg ResolverConfig) *Resolver {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 300 * time.Millisecond
	}
	r, err := NewResolver(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// rules is a Judge over a policy.
type rules struct{ p atomic.Pointer[policy.Policy] }

func (r *rules) Judge(_ context.Context, req *policy.Request) policy.Verdict {
	return r.p.Load().Possible(req)
}

func newRules(t testing.TB, text string) *rules {
	t.Helper()
	r := new(rules)
	r.set(t, text)
	return r
}

func (r *rules) set(t testing.TB, text string) {
	t.Helper()
	set, err := policy.Parse(text, policy.LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	r.p.Store(p)
}

const testRules = `
[[rule]]
id = "test"
effect = "allow"
reason = "for tests"
hosts = ["**.example.org", "_sip._tcp.example.org"]
[[rule]]
id = "asks"
effect = "ask"
reason = "the owner decides at the connection"
hosts = ["asked.example.net"]
[[rule]]
id = "never"
effect = "deny"
reason = "not this one"
dns_name = ["denied.example.net"]
`

// events keeps what is recorded.
type events struct {
	mu   sync.Mutex
	list []Event
}

func (e *events) RecordDNS(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) all() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.list...)
}

func (e *events) last(t testing.TB) Event {
	t.Helper()
	all := e.all()
	if len(all) == 0 {
		t.Fatal("nothing is recorded")
	}
	return all[len(all)-1]
}

// bench is a server with a policy, a zone and a record.
type rig struct {
	*Server
	zone   *zone
	rules  *rules
	events *events
}

func newRig(t testing.TB, change func(*Config, *ResolverConfig), records ...string) *rig {
	t.Helper()
	g := &rig{zone: newZone(t, records...), rules: newRules(t, testRules), events: new(events)}
	rc := ResolverConfig{Servers: []string{g.zone.addr}}
	c := Config{VM: "vm1", Hostname: "Box", Judge: g.rules, Recorder: g.events}
	if change != nil {
		change(&c, &rc)
	}
	c.Resolver = newTestResolver(t, rc)
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = s
	return g
}

func question(t testing.TB, name string, qtype uint16, change func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	if change != nil {
		change(m)
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// ask puts a message to the server, and reads the answer; nil is none.
func (g *rig) ask(t testing.TB, wire []byte, tcp bool) *dns.Msg {
	t.Helper()
	got := g.handle(t.Context(), &proto.DNSQuery{ID: 7, TCP: tcp, Message: wire, Process: proto.ProcessClaim{PID: 12, Name: "curl"}})
	if len(got) == 0 {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(got); err != nil {
		t.Fatalf("the answer cannot be read: %v", err)
	}
	if m.Id != binary.BigEndian.Uint16(wire) || !m.Response {
		t.Fatalf("the answer is none: %v", m)
	}
	return m
}

func (g *rig) name(t testing.TB, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := g.ask(t, question(t, name, qtype, nil), false)
	if m == nil {
		t.Fatalf("%s has no answer", name)
	}
	return m
}

func firstA(t testing.TB, m *dns.Msg) netip.Addr {
	t.Helper()
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("no single answer: %v", m)
	}
	a, ok := m.Answer[0].(*dns.A)
	if !ok {
		t.Fatalf("not an address: %v", m)
	}
	addr, _ := netip.AddrFromSlice(a.A)
	return addr.Unmap()
}

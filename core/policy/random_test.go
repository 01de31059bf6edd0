package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// random makes rules and requests over a small world, so that they often meet.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, seed))} }

func pick[T any](r random, list ...T) T { return list[r.IntN(len(list))] }

// some is a condition with up to two entries, often none.
func some[T any](r random, list ...T) []T {
	var out []T
	for range max(0, r.IntN(6)-3) {
		out = append(out, pick(r, list...))
	}
	return out
}

var worldHosts = []HostPattern{"**", "x.com", "*.x.com", "**.x.com", "a.x.com", "*.a.x.com", "**.com", "y.net", "**.y.net", "10.0.0.1", "10.0.0.0/8", "fd00::/8"}

func (r random) rule(id int, whens bool) Rule {
	out := Rule{ID: fmt.Sprint("r", id), Effect: pick(r, Allow, Ask, Deny)}
	switch r.IntN(10) {
	case 0:
		out.MCPServer, out.MCPTool = some(r, "gh", "g*", "fs"), []string{pick(r, "read", "w*", "*")}
		return out
	case 1:
		out.DNSName = []HostPattern{pick(r, worldHosts...)}
		if out.Effect == Ask {
			out.Effect = Deny
		}
		return out
	}
	for range r.IntN(3) {
		out.Hosts = append(out.Hosts, pick(r, worldHosts...))
	}
	out.Ports = some(r, PortRange{443, 443}, PortRange{1, 1000}, PortRange{8080, 8090})
	out.Schemes = some(r, "https", "http", "wss", "tcp", "dns")
	out.Methods = some(r, "GET", "POST", "PROPFIND")
	out.Paths = some(r, "/a", "/a/**", "/*/b", "/**")
	out.Query = some(r, "q", "q=1", "q=*2")
	out.Headers = some(r, "X-A", "X-A: 1*")
	out.Process = some(r, "git", "/usr/bin/*")
	if out.Effect == Deny {
		out.CIDR = some(r, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("1.0.0.0/8"))
	}
	if r.IntN(5) == 0 {
		out.MaxBody = 100
	}
	if whens && r.IntN(4) == 0 {
		out.When = pick(r, `method == "GET"`, `headers["x-a"][0] == "1"`, `port > 443`, `path.startsWith("/a")`, `process == "git"`, `mcp_tool == "read"`, `body_size > 50`)
	}
	return out
}

// policy has up to n rules over all layers.
func (r random) policy(t testing.TB, n int, whens bool) *Policy {
	t.Helper()
	sets := []*Set{{Layer: LayerCorp}, {Layer: LayerUser}, {Layer: LayerDefaults}, {Layer: LayerVM}}
	for i := range n {
		s := pick(r, sets...)
		if c := r.rule(i, whens); func() error { _, err := prepare(&c, s.Layer); return err }() == nil {
			s.Rules = append(s.Rules, c)
		}
	}
	p, err := Compile(sets...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (r random) request() Request {
	if r.IntN(10) == 0 {
		return Request{MCPServer: pick(r, "gh", "GH", "fs", "zz"), MCPTool: pick(r, "read", "write", "")}
	}
	out := Request{
		Host:   pick(r, "x.com", "X.com.", "a.x.com", "b.a.x.com", "c.b.a.x.com", "y.net", "z.y.net", "z.org", "10.0.0.1", "10.2.0.1", "[fd00::1]", "127.1"),
		Port:   pick(r, uint16(443), 80, 8081, 22, 0),
		Scheme: pick(r, "https", "https", "http", "wss", "tcp", "dns", ""),
		Method: pick(r, "GET", "GET", "POST", "get", "PROPFIND", ""),
		Path:   pick(r, "/a", "/a/", "/A/b", "/x/b", "/a/%2e%2e/b", "/a%2fb", "/a;x/b", "/q/..;/a", "/%zz"),
		Query:  pick(r, "", "q=1", "q=2&q=1", "r=1;q=2"), Process: pick(r, "", "git", "curl"), Exe: pick(r, "", "/usr/bin/git"),
		BodySize: pick(r, int64(0), 100, 101, -1),
	}
	if r.IntN(2) == 0 {
		out.Header = map[string][]string{pick(r, "X-A", "x-a", "X-Http-Method-Override"): {pick(r, "1", "12", "POST"), pick(r, "1", "2, 1")}}
	}
	if r.IntN(3) == 0 {
		out.Addr = pick(r, netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("8.8.8.8"))
	}
	return out
}

func TestTheIndexDecidesAsGoingThroughAllRulesDoes(t *testing.T) {
	rnd := newRandom(3)
	effects := map[Effect]int{}
	for n := range 1500 {
		p := rnd.policy(t, rnd.IntN(60), n%10 == 0)
		for range 40 {
			r := rnd.request()
			for _, early := range []bool{false, true} {
				fast := p.Decide(&r)
				if early {
					fast = p.Possible(&r)
				}
				slow, _ := p.Explain(&r, early)
				effects[fast.Effect]++
				if fast.Effect != slow.Effect || fast.RuleID != slow.RuleID || fast.Layer != slow.Layer || fast.Err != slow.Err ||
					fast.BodyLimit != slow.BodyLimit || fast.Doubt != slow.Doubt {
					t.Fatalf("%+v: %+v by the index, %+v without", r, fast, slow)
				}
			}
		}
	}
	for e := Allow; e <= Deny; e++ {
		if effects[e] < 1000 {
			t.Errorf("the world is lopsided: %v", effects)
		}
	}
}

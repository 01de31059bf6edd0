package policy

import (
	"net/netip"
	"strings"
)

// outcome is how far a rule matches.
type outcome uint8

// The outcomes, the weakest first: the outcome of a rule is the weakest of its conditions'.
const (
	no outcome = iota
	// later: a fact is missing that may still come.
	later
	// doubt: one reading of the request matches and another does not.
	doubt
	yes
)

var outcomeNames = []string{"no", "later", "doubt", "yes"}

// String is the outcome's name.
func (o outcome) String() string { return outcomeNames[o] }

// matched is the result of matching one rule.
type matched struct {
	outcome outcome
	// fact is the condition that was decisive when the outcome is not yes.
	fact Fact
	// err is what went wrong in "when".
	err error
}

// and adds a condition; it reports whether it is worth going on.
func (m *matched) and(o outcome, fact Fact) bool {
	if o < m.outcome {
		m.outcome, m.fact = o, fact
	}
	return m.outcome != no
}

// match compares everything but the host, which the index has looked up.
func (c *compiled) match(f *facts) (m matched) {
	m.outcome = yes
	if c.mcp || f.mcp {
		c.matchMCP(f, &m)
	} else if m.and(c.matchScheme(f)) && c.http {
		c.matchHTTP(f, &m)
	}
	if m.outcome != no && len(c.cidr) > 0 && c.rule.Effect == Deny && !f.mcp {
		m.and(c.matchAddr(f), FactAddr)
	}
	if m.outcome != no && len(c.process) > 0 {
		m.and(c.matchProcess(f), FactProcess)
	}
	if m.outcome != no && c.when != nil {
		o, err := c.when.eval(f)
		m.err = err
		m.and(o, FactWhen)
	}
	return m
}

// all and some put several readings together: all must match, or it is doubt if some do.
func readingsOutcome(all, some bool) outcome {
	switch {
	case all:
		return yes
	case some:
		return doubt
	}
	return no
}

func (c *compiled) matchMCP(f *facts, m *matched) {
	r := c.rule
	switch {
	case !f.mcp:
		m.and(no, FactMCP)
	case !c.mcp && !c.everything():
		m.and(no, FactMCP)
	default:
		if m.and(nameOutcome(c.server, f.req.MCPServer, r.Effect), FactMCP) && len(c.tool) > 0 {
			if f.req.MCPTool == "" {
				m.and(later, FactMCP)
			} else {
				m.and(nameOutcome(c.tool, f.req.MCPTool, r.Effect), FactMCP)
			}
		}
	}
}

// everything says that the rule is not about connections, lookups or MCP in particular, but about all of them.
func (c *compiled) everything() bool {
	return c.rule.Effect != Allow && c.conditions()&^(FactProcess|FactWhen) == 0
}

// nameOutcome compares a name with globs; letter case is doubt.
func nameOutcome(list []glob, name string, effect Effect) outcome {
	if len(list) == 0 {
		return yes
	}
	if anyGlob(list, name, false) {
		return yes
	}
	return readingsOutcome(false, effect != Allow && anyGlob(list, name, true))
}

func anyGlob(list []glob, s string, fold bool) bool {
	for i := range list {
		if list[i].match(s, fold) {
			return true
		}
	}
	return false
}

// matchScheme compares scheme and port, of which either may not be known yet.
func (c *compiled) matchScheme(f *facts) (outcome, Fact) {
	switch {
	case f.scheme == schemeDNS:
		// A lookup is about everything that a connection to the name may be about, unless the rule says otherwise.
		switch {
		case len(c.rule.DNSName) > 0, c.schemes == schemeDNS, c.named && c.schemes&schemeDNS != 0 && !c.http && len(c.rule.Ports) == 0:
			return yes, 0
		case !c.named && c.rule.Effect != Allow && !c.http && len(c.rule.Ports) == 0:
			return yes, 0
		}
		return later, FactScheme
	case len(c.rule.DNSName) > 0:
		return no, FactDNSName
	case f.scheme != 0:
		if c.schemes&f.scheme == 0 {
			return no, FactScheme
		}
		if f.req.Port == 0 {
			if c.ownPorts || len(c.rule.Ports) > 0 {
				return later, FactPort
			}
			return yes, 0
		}
		if !c.hasPort(f.scheme, f.req.Port) {
			return no, FactPort
		}
		return yes, 0
	}
	return c.unknownScheme(f.req.Port)
}

// unknownScheme is for a connection that has not said anything yet.
func (c *compiled) unknownScheme(port uint16) (outcome, Fact) {
	conn := c.schemes & schemesConn
	if conn == 0 {
		return no, FactScheme
	}
	if port == 0 {
		if conn == schemesConn && len(c.rule.Ports) == 0 {
			return yes, 0
		}
		return later, FactPort
	}
	open := schemes(0)
	for s := schemeHTTP; s <= schemeTCP; s <<= 1 {
		if conn&s != 0 && c.hasPort(s, port) {
			open |= s
		}
	}
	switch open {
	case 0:
		return no, FactPort
	case schemesConn:
		return yes, 0
	}
	return later, FactScheme
}

func (c *compiled) hasPort(scheme schemes, port uint16) bool {
	if c.ownPorts {
		return scheme&(schemeHTTP|schemeWS) != 0 && port == 80 || scheme&(schemeHTTPS|schemeWSS) != 0 && port == 443
	}
	for _, p := range c.rule.Ports {
		if port >= p.From && port <= p.To {
			return true
		}
	}
	return len(c.rule.Ports) == 0
}

func (c *compiled) matchAddr(f *facts) outcome {
	// Without an address it is decided when one is dialled: a lookup or a request cannot be held up for it.
	for _, addr := range []netip.Addr{f.req.Addr, f.ip} {
		if addr.IsValid() && (contains(c.cidr, addr) || contains(c.cidr, carried(addr))) {
			return yes
		}
	}
	return no
}

func (c *compiled) matchProcess(f *facts) outcome {
	o := no
	for i := range c.process {
		g := &c.process[i]
		what := f.req.Process
		if strings.Contains(g.text, "/") {
			what = f.req.Exe
		}
		switch {
		case what == "":
			o = doubt // the guest's agent did not say, and may never
		case g.match(what, false):
			return yes
		}
	}
	return o
}

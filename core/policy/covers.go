package policy

import (
	"net/netip"
	"slices"
)

// covers reports, where it can tell, that c surely matches every request that o surely matches. In doubt it says no.
func (c *compiled) covers(o *compiled) bool {
	a, b := c.rule, o.rule
	switch {
	case c.mcp != o.mcp && (c.mcp || c.conditions() != 0 || a.Effect == Allow):
		return false
	case o.everything() && !c.everything():
		return false
	case (len(a.DNSName) > 0) != (len(b.DNSName) > 0):
		return false
	case a.When != "" && a.When != b.When, len(a.Process) > 0 && !sameSet(a.Process, b.Process):
		return false
	case a.Effect == Deny && len(a.CIDR) > 0 && (b.Effect != Deny || !coversPrefixes(a.CIDR, b.CIDR)):
		return false
	case c.when != nil && (a.Effect == Allow) != (b.Effect == Allow):
		return false // an error decides differently
	}
	if c.mcp {
		return coversGlobs(c.server, o.server) && coversGlobs(c.tool, o.tool)
	}
	if o.mcp {
		return true
	}
	// A deny in doubt also takes what an allow does not; only the same strictness can be told to be covered.
	if a.Effect == Allow && b.Effect != Allow && (c.http || o.http) {
		return false
	}
	return coversHosts(a.Hosts, b.Hosts) && coversHosts(a.DNSName, b.DNSName) && c.coversConn(o) && c.coversHTTP(o)
}

func (c *compiled) coversConn(o *compiled) bool {
	if o.schemes&^c.schemes != 0 {
		return false
	}
	if len(o.rule.DNSName) > 0 {
		return true
	}
	for s := schemeHTTP; s <= schemeTCP; s <<= 1 {
		if o.schemes&s == 0 {
			continue
		}
		for _, p := range o.portsOf(s) {
			if !slices.ContainsFunc(c.portsOf(s), func(q PortRange) bool { return q.From <= p.From && q.To >= p.To }) {
				return false
			}
		}
	}
	return true
}

// portsOf are the ports that the rule covers with one scheme.
func (c *compiled) portsOf(s schemes) []PortRange {
	switch {
	case len(c.rule.Ports) > 0:
		return c.rule.Ports
	case !c.ownPorts:
		return []PortRange{{1, 65535}}
	case s&(schemeHTTP|schemeWS) != 0:
		return []PortRange{{80, 80}}
	}
	return []PortRange{{443, 443}}
}

func (c *compiled) coversHTTP(o *compiled) bool {
	if !c.http || !o.http {
		return !c.http // a tunnel has no method or path, so conditions on them do not take it in
	}
	if !c.methods.empty() && (o.methods.empty() || o.methods.bits&^c.methods.bits != 0 || !subset(o.methods.other, c.methods.other)) {
		return false
	}
	a, b := c.rule, o.rule
	if a.MinBody > b.MinBody || a.MaxBody > 0 && (b.MaxBody == 0 || b.MaxBody > a.MaxBody) {
		return false
	}
	return coversGlobs(c.paths, o.paths) && subset(a.Query, b.Query) && subset(a.Headers, b.Headers)
}

// coversGlobs reports that a list of globs (none is no condition) covers another.
func coversGlobs(a, b []glob) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		return slices.ContainsFunc(a, func(g glob) bool { return g.any() })
	}
	for i := range b {
		if !slices.ContainsFunc(a, func(g glob) bool { return g.covers(&b[i]) }) {
			return false
		}
	}
	return true
}

func coversHosts(a, b []HostPattern) bool {
	if len(a) == 0 || slices.Contains(a, "**") {
		return true
	}
	for _, p := range b {
		if !slices.ContainsFunc(a, func(q HostPattern) bool { return q.covers(p) }) {
			return false
		}
	}
	return len(b) > 0
}

func coversPrefixes(a, b []netip.Prefix) bool {
	for _, p := range b {
		if !slices.ContainsFunc(a, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
			return false
		}
	}
	return len(b) > 0
}

// subset reports that everything of a is in b.
func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

func sameSet(a, b []string) bool { return len(b) > 0 && subset(b, a) }

// meets reports that some request may match both, as far as hosts, schemes and servers go.
func (c *compiled) meets(o *compiled) bool {
	if c.mcp != o.mcp {
		return false
	}
	if c.mcp {
		return globsMeet(c.server, o.server) && globsMeet(c.tool, o.tool)
	}
	if c.schemes&o.schemes == 0 && c.schemes != schemeDNS && o.schemes != schemeDNS {
		return false
	}
	a, b := c.rule.Hosts, o.rule.Hosts
	if len(c.rule.DNSName)+len(o.rule.DNSName) > 0 || len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, p := range a {
		if slices.ContainsFunc(b, func(q HostPattern) bool { return p.covers(q) || q.covers(p) || wildMeet(p, q) }) {
			return true
		}
	}
	return false
}

// wildMeet is for "*.b" against "**.a.b" and the like, where neither covers the other.
func wildMeet(p, q HostPattern) bool {
	_, a := splitStars(string(p))
	_, b := splitStars(string(q))
	return p.Match("x."+b) || q.Match("x."+a) || p.Match(b) && q != HostPattern(b) || q.Match(a) && p != HostPattern(a)
}

func globsMeet(a, b []glob) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for i := range a {
		for j := range b {
			if !a[i].exact || !b[j].exact || a[i].lit == b[j].lit {
				return true
			}
		}
	}
	return false
}

package policy

import (
	"net/netip"
	"strings"
)

// ranks are places in the ordered list of rules, ascending.
type ranks []int32

// hostIndex finds the rules whose hosts cover a name.
type hostIndex struct {
	// exact has names and addresses, one and deep what stands behind "*." and "**.".
	exact, one, deep map[string]ranks
	// every has rules for any host.
	every ranks
	nets  []netRank
}

type netRank struct {
	prefix netip.Prefix
	rank   int32
}

func newHostIndex() hostIndex {
	return hostIndex{exact: map[string]ranks{}, one: map[string]ranks{}, deep: map[string]ranks{}}
}

func (x *hostIndex) add(patterns []HostPattern, rank int32) {
	for _, p := range patterns {
		stars, rest := splitStars(string(p))
		switch {
		case p == "**":
			x.every = appendRank(x.every, rank)
		case stars == "*.":
			x.one[rest] = appendRank(x.one[rest], rank)
		case stars == "**.":
			x.deep[rest] = appendRank(x.deep[rest], rank)
		case strings.Contains(rest, "/"):
			if prefix, err := netip.ParsePrefix(rest); err == nil {
				x.nets = append(x.nets, netRank{prefix, rank})
			}
		default:
			x.exact[rest] = appendRank(x.exact[rest], rank)
		}
	}
	if len(patterns) == 0 {
		x.every = appendRank(x.every, rank)
	}
}

// appendRank keeps a list free of repetitions; ranks come in ascending order.
func appendRank(list ranks, rank int32) ranks {
	if n := len(list); n > 0 && list[n-1] == rank {
		return list
	}
	return append(list, rank)
}

// cursors walks several ascending lists as one. There is a list for each label of a name at most; the first ones need no memory.
type cursors struct {
	lists [12]ranks
	n     int
	more  []ranks
	// nets are the address ranges to look through besides, of at most two indexes, for a host that is an address.
	nets [2][]netRank
	ip   netip.Addr
	last int32
}

func (k *cursors) add(list ranks) {
	switch {
	case len(list) == 0:
	case k.n < len(k.lists):
		k.lists[k.n] = list
		k.n++
	default:
		k.more = append(k.more, list)
	}
}

// look collects the lists of one host.
func (x *hostIndex) look(host string, ip netip.Addr, k *cursors) {
	k.add(x.exact[host])
	k.add(x.every)
	if ip.IsValid() {
		k.nets[1], k.nets[0], k.ip = k.nets[0], x.nets, ip
		return
	}
	if len(x.deep) > 0 {
		k.add(x.deep[host])
	}
	for rest, first := host, true; ; first = false {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return
		}
		rest = rest[dot+1:]
		if first {
			k.add(x.one[rest])
		}
		if len(x.deep) > 0 {
			k.add(x.deep[rest])
		}
	}
}

// advance drops what is not after last and gives the smaller of best and the first that is left.
func (r *ranks) advance(last, best int32) int32 {
	list := *r
	for len(list) > 0 && list[0] <= last {
		list = list[1:]
	}
	*r = list
	if len(list) > 0 && (best < 0 || list[0] < best) {
		return list[0]
	}
	return best
}

// next gives the rules in order, each once, and -1 at the end.
func (k *cursors) next() int32 {
	if k.n == 1 && len(k.more) == 0 && !k.ip.IsValid() {
		if list := k.lists[0]; len(list) > 0 && list[0] > k.last {
			k.last, k.lists[0] = list[0], list[1:]
			return k.last
		}
	}
	best := int32(-1)
	for i := 0; i < k.n; i++ {
		if best = k.lists[i].advance(k.last, best); len(k.lists[i]) == 0 {
			k.n--
			k.lists[i] = k.lists[k.n]
			i--
		}
	}
	for i := range k.more {
		best = k.more[i].advance(k.last, best)
	}
	for _, nets := range k.nets {
		for _, n := range nets {
			if n.rank > k.last && (best < 0 || n.rank < best) && n.prefix.Contains(k.ip) {
				best = n.rank
			}
		}
	}
	k.last = best
	return best
}

// list is an ordered list of rules with its indexes.
type list struct {
	rules []*compiled
	heads []head
	// conn has rules on connections by host, lookup those with dns_name; server those on MCP by the server's name.
	conn, lookup hostIndex
	server       map[string]ranks
	anyServer    ranks
}

func newList() *list {
	return &list{conn: newHostIndex(), lookup: newHostIndex(), server: map[string]ranks{}}
}

func (l *list) add(c *compiled) {
	rank := int32(len(l.rules)) //nolint:gosec // Compile bounds the number of rules
	l.rules, l.heads = append(l.rules, c), append(l.heads, c.head())
	switch {
	case c.mcp:
		l.addServer(c, rank)
	case len(c.rule.DNSName) > 0:
		l.lookup.add(c.rule.DNSName, rank)
	default:
		l.conn.add(c.rule.Hosts, rank)
		if len(c.rule.Hosts) == 0 {
			l.anyServer = appendRank(l.anyServer, rank)
		}
	}
}

func (l *list) addServer(c *compiled, rank int32) {
	for i := range c.server {
		// Only an allow is exact about letter case.
		if g := &c.server[i]; !g.exact || c.rule.Effect != Allow {
			l.anyServer = appendRank(l.anyServer, rank)
			return
		}
	}
	for i := range c.server {
		l.server[c.server[i].lit] = appendRank(l.server[c.server[i].lit], rank)
	}
	if len(c.server) == 0 {
		l.anyServer = appendRank(l.anyServer, rank)
	}
}

// look collects the rules that a request can match by its host or MCP server.
func (l *list) look(f *facts, k *cursors) {
	k.last = -1
	switch {
	case f.mcp:
		k.add(l.server[f.req.MCPServer])
		k.add(l.anyServer)
		return
	case f.scheme == schemeDNS:
		l.lookup.look(f.host, f.ip, k)
	}
	l.conn.look(f.host, f.ip, k)
}

// hostMatches is what the indexes answer, for one rule: the slow way, for explanations and tests.
func (c *compiled) hostMatches(f *facts) bool {
	patterns := c.rule.Hosts
	if len(c.rule.DNSName) > 0 {
		patterns = c.rule.DNSName
	}
	if len(patterns) == 0 || f.mcp {
		return true
	}
	for _, p := range patterns {
		if p.Match(f.host) {
			return true
		}
	}
	return false
}

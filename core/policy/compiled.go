package policy

import (
	"net/netip"
	"strings"
)

// compiled is a rule made ready for matching.
type compiled struct {
	rule  *Rule
	layer Layer
	// schemes is what the rule covers, with what an allow leaves out and a deny adds.
	schemes schemes
	// named says that the rule lists schemes, dns that one of them is dns, ownPorts that it only covers its schemes' own ports.
	named, ownPorts bool
	http, mcp       bool
	methods         methodSet
	paths           []glob
	query, headers  []keyGlob
	process         []glob
	server, tool    []glob
	cidr            []netip.Prefix
	when            *expression
}

// keyGlob is a key and what its values must look like; any says that it only has to be there.
type keyGlob struct {
	key   string
	any   bool
	value glob
}

// methodSet has the usual methods as bits.
type methodSet struct {
	bits  uint16
	other []string
}

var usualMethods = []string{"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}

func methodBit(method string, fold bool) uint16 {
	for i, m := range usualMethods {
		if m == method || fold && strings.EqualFold(m, method) {
			return 1 << i
		}
	}
	return 0
}

func (m *methodSet) empty() bool { return m.bits == 0 && len(m.other) == 0 }

func (m *methodSet) has(method string, fold bool) bool {
	if bit := methodBit(method, fold); bit != 0 {
		return m.bits&bit != 0
	}
	for _, o := range m.other {
		if o == method || fold && strings.EqualFold(o, method) {
			return true
		}
	}
	return false
}

// prepare checks a rule and compiles all of it but its "when".
func prepare(r *Rule, layer Layer) (*compiled, error) {
	c := &compiled{rule: r, layer: layer, cidr: r.CIDR, named: len(r.Schemes) > 0, mcp: len(r.MCPServer)+len(r.MCPTool) > 0}
	if err := c.words(); err != nil {
		return nil, err
	}
	if err := c.patterns(); err != nil {
		return nil, err
	}
	c.http = !c.methods.empty() || len(c.paths)+len(c.query)+len(c.headers) > 0 || r.MinBody > 0 || r.MaxBody > 0
	c.cover()
	if err := c.sense(); err != nil {
		return nil, err
	}
	return c, nil
}

// words checks everything that is not a pattern.
func (c *compiled) words() error {
	r := c.rule
	switch {
	case !validID(r.ID):
		return errRule("id %.80q is not 1-80 letters, digits, or . _ - / : @", r.ID)
	case r.Effect < Allow || r.Effect > Deny:
		return errRule("effect is missing: allow, ask or deny")
	case c.layer < LayerCorp || c.layer > LayerVM:
		return errRule("unknown layer")
	case len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return errRule("reason is not one line of at most %d bytes", maxReason)
	case r.MinBody < 0 || r.MaxBody < 0 || r.MaxBody > 0 && r.MinBody > r.MaxBody:
		return errRule("min_body and max_body do not go together")
	case len(r.When) > maxWhen:
		return errRule("when is longer than %d bytes", maxWhen)
	}
	for _, n := range []int{
		len(r.Hosts), len(r.Ports), len(r.Schemes), len(r.Methods), len(r.Paths), len(r.Query), len(r.Headers), len(r.Process),
		len(r.MCPServer), len(r.MCPTool), len(r.DNSName), len(r.CIDR),
	} {
		if n > maxList {
			return errRule("a condition has more than %d entries", maxList)
		}
	}
	for _, p := range r.Ports {
		if p.From == 0 || p.From > p.To {
			return errRule("%s is no port", p)
		}
	}
	for _, name := range r.Schemes {
		s := schemeOf(name)
		if s == 0 {
			return errRule("scheme %.20q is not one of %s", name, strings.Join(schemeNames, ", "))
		}
		c.schemes |= s
	}
	for _, m := range r.Methods {
		if !token(m) || m != strings.ToUpper(m) {
			return errRule("%.40q is no method; they are written in capitals", m)
		}
		if bit := methodBit(m, false); bit != 0 {
			c.methods.bits |= bit
		} else {
			c.methods.other = append(c.methods.other, m)
		}
	}
	return nil
}

func validID(id string) bool {
	if id == "" || len(id) > 80 {
		return false
	}
	for i := range len(id) {
		c := lower(id[i])
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("._-/:@", c) < 0 {
			return false
		}
	}
	return true
}

// patterns compiles all globs.
func (c *compiled) patterns() error {
	r := c.rule
	for _, list := range [][]HostPattern{r.Hosts, r.DNSName} {
		for _, p := range list {
			if n, err := ParseHostPattern(string(p)); err != nil {
				return err
			} else if n != p {
				return errRule("%.80q is written %q", p, n)
			}
		}
	}
	for _, p := range r.CIDR {
		if _, err := parseCIDR(p.String()); err != nil {
			return err
		}
	}
	for _, p := range r.Paths {
		if err := checkPathPattern(p); err != nil {
			return err
		}
	}
	var err error
	lists := []struct {
		to      *[]glob
		from    []string
		slashes bool
	}{{&c.paths, r.Paths, true}, {&c.process, r.Process, true}, {&c.server, r.MCPServer, false}, {&c.tool, r.MCPTool, false}}
	for _, l := range lists {
		if *l.to, err = globs(l.from, l.slashes); err != nil {
			return err
		}
	}
	if c.query, err = keyGlobs(r.Query, "=", func(string) bool { return true }); err != nil {
		return err
	}
	c.headers, err = keyGlobs(r.Headers, ":", token)
	return err
}

// checkPathPattern refuses a pattern that no request can match, since requests are compared in their normal form.
func checkPathPattern(p string) error {
	switch {
	case !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "**"):
		return errRule("path %.80q does not begin with a slash", p)
	case strings.Contains(p, "//"), strings.Contains(p+"/", "/./"), strings.Contains(p+"/", "/../"), strings.ContainsAny(p, "?#"):
		return errRule("path %.80q can never match: paths have no doubled slashes, dot segments, ? or # when they are compared", p)
	}
	for rest := p; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return nil
		}
		if code := strings.ToUpper(after[:min(2, len(after))]); code != "2F" && code != "5C" && len(code) == 2 && isHex(code[0]) && isHex(code[1]) {
			return errRule("path %.80q can never match: write decoded what is encoded in it (%%%s)", p, code)
		}
		rest = after
	}
}

func globs(texts []string, slashes bool) ([]glob, error) {
	out := make([]glob, 0, len(texts))
	for _, t := range texts {
		g, err := compileGlob(t, slashes)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func keyGlobs(texts []string, sep string, valid func(string) bool) ([]keyGlob, error) {
	out := make([]keyGlob, 0, len(texts))
	for _, t := range texts {
		key, value, found := strings.Cut(t, sep)
		k := keyGlob{key: strings.TrimSpace(key), any: !found}
		if k.key == "" || len(t) > maxPattern || !valid(k.key) {
			return nil, errRule("%.80q is not of the form key%sglob", t, sep)
		}
		if value = strings.TrimSpace(value); found && value == "" {
			k.value = glob{exact: true} // there, and empty
		} else if found {
			var err error
			if k.value, err = compileGlob(value, false); err != nil {
				return nil, err
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// cover works out the schemes and ports that the rule is about.
func (c *compiled) cover() {
	r := c.rule
	switch {
	case len(r.DNSName) > 0:
		c.schemes = schemeDNS
		return
	case !c.named && r.Effect == Allow:
		c.schemes = schemesWeb
	case !c.named:
		c.schemes = schemesConn | schemeDNS
	case r.Effect != Allow && c.schemes&schemeHTTP != 0:
		c.schemes |= schemeWS
	}
	if r.Effect != Allow && c.schemes&schemeHTTPS != 0 {
		c.schemes |= schemeWSS
	}
	if c.http {
		c.schemes &^= schemeTCP
	}
	c.ownPorts = r.Effect == Allow && len(r.Ports) == 0
}

// sense refuses combinations that can never match or that do not say what they seem to.
func (c *compiled) sense() error {
	r := c.rule
	conn := c.http || len(r.Hosts)+len(r.Ports)+len(r.Schemes)+len(r.CIDR) > 0
	switch {
	case len(r.DNSName) > 0 && (conn || c.mcp):
		return errRule("dns_name is about lookups only and goes with no condition on connections or MCP")
	case c.mcp && conn:
		return errRule("mcp_server and mcp_tool go with no condition on connections")
	case c.schemes == 0:
		return errRule("the conditions on HTTP can never hold for the scheme tcp")
	case c.schemes == schemeDNS && (c.http || len(r.Ports) > 0):
		return errRule("a lookup has no port, method, path, query, header or body")
	case c.schemes == schemeDNS && r.Effect == Ask:
		return errRule("a lookup cannot wait for an answer: use allow or deny, or ask about the connection")
	case r.Effect == Allow && c.schemes&schemeTCP != 0 && len(r.Ports) == 0:
		return errRule("an allow for tcp must say which ports")
	case r.Effect != Deny && len(r.CIDR) > 0 && len(r.Hosts) == 0:
		return errRule("cidr opens private addresses to hosts: say which hosts")
	}
	return nil
}

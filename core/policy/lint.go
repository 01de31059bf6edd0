package policy

import (
	"fmt"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

// The severities: an error is a rule that does not do what it says, a warning one that does more than its author may think.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// The codes of findings.
const (
	LintShadowed   = "shadowed"    // an earlier rule always decides first
	LintDuplicate  = "duplicate"   // the same conditions and effect again
	LintCorpDenied = "corp-denied" // corp denies all of it
	LintVMAllow    = "vm-allow"    // a VM's rule allows what no layer does
	LintAllowAll   = "allow-all"   // every host with every method
	LintBroad      = "broad"       // a whole top-level domain
	LintNoReason   = "no-reason"   // the agent will not know why
	LintNothing    = "nothing"     // a pattern that nothing can match
	LintWhen       = "when-stage"  // "when" looks at what never is known there
	LintClaim      = "claim"       // an allow or deny that the guest can get around
	LintPlaintext  = "plaintext"   // writing over plain HTTP
)

// Finding is something to look at in a policy.
type Finding struct {
	Severity Severity
	Code     string
	RuleID   string
	Layer    Layer
	// Line is the rule's line in its text, or 0.
	Line    int
	Message string
}

// String is the finding in one line.
func (f Finding) String() string {
	where := f.Layer.String()
	if f.Line > 0 {
		where += fmt.Sprintf(" line %d", f.Line)
	}
	return fmt.Sprintf("%s: %s: rule %s: %s (%s)", where, f.Severity, f.RuleID, f.Message, f.Code)
}

// maxFindings bounds the answer of Lint.
const maxFindings = 1000

// Lint looks for rules that do not do what they seem to. Its answer is in the order of the rules and has at most 1000 entries.
func Lint(p *Policy) []Finding {
	l := linter{}
	for i, c := range p.base.rules {
		l.rule(c)
		l.order(p.base.rules[:i], c)
	}
	for i, c := range p.vm.rules {
		l.rule(c)
		l.order(p.vm.rules[:i], c)
		l.corp(p.base.rules, c)
		l.narrows(p.base.rules, c)
	}
	l.git(p.git)
	l.git(p.gitVM)
	return l.out
}

type linter struct {
	out []Finding
}

func (l *linter) add(c *compiled, s Severity, code, format string, args ...any) {
	if len(l.out) < maxFindings {
		l.out = append(l.out, Finding{s, code, c.rule.ID, c.layer, c.rule.line, fmt.Sprintf(format, args...)})
	}
}

// rule looks at one rule alone.
func (l *linter) rule(c *compiled) {
	r := c.rule
	if r.Reason == "" {
		l.add(c, SeverityWarning, LintNoReason, "it has no reason; a refused agent and its owner read it")
	}
	if r.Effect == Allow {
		l.breadth(c)
	}
	if len(r.Process) > 0 && r.Effect != Ask {
		l.add(c, SeverityWarning, LintClaim, "the process is what the guest claims: no boundary for %s", r.Effect)
	}
	l.useless(c)
	if c.when != nil {
		l.stage(c)
	}
}

// breadth looks for an allow that is wider than it looks.
func (l *linter) breadth(c *compiled) {
	r := c.rule
	narrowed := c.conditions()&(FactPath|FactQuery|FactHeader|FactWhen|FactProcess) != 0
	anyHost := len(r.Hosts) == 0 && !c.mcp && len(r.DNSName) == 0
	for _, p := range r.Hosts {
		stars, rest := splitStars(string(p))
		anyHost = anyHost || p == "**"
		if stars != "" && !strings.Contains(rest, ".") {
			l.add(c, SeverityWarning, LintBroad, "%s is everything under a top-level domain", p)
		}
		if strings.HasSuffix(string(p), "/0") {
			l.add(c, SeverityWarning, LintBroad, "%s is every address", p)
		}
	}
	if anyHost && !narrowed && c.methods.writes() {
		l.add(c, SeverityWarning, LintAllowAll, "it allows every host with methods that send something out")
	}
	for _, p := range r.CIDR {
		if p.Bits() < 8 {
			l.add(c, SeverityWarning, LintBroad, "cidr %s opens more private addresses than any network has", p)
		}
	}
	if c.schemes&schemeHTTP != 0 && c.named && c.methods.writes() && !anyHost && !localOnly(r.Hosts) {
		l.add(c, SeverityWarning, LintPlaintext, "it lets something be sent over plain HTTP")
	}
}

func localOnly(hosts []HostPattern) bool {
	for _, p := range hosts {
		if c := p[0]; (c < '0' || c > '9') && !strings.Contains(string(p), ":") && p != "localhost" {
			return false
		}
	}
	return true
}

// writes says that there are methods other than those for reading.
func (m *methodSet) writes() bool {
	reading := methodBit("GET", false) | methodBit("HEAD", false) | methodBit("OPTIONS", false)
	return m.empty() || m.bits&^reading != 0 || len(m.other) > 0
}

// useless looks for conditions that nothing meets.
func (l *linter) useless(c *compiled) {
	r := c.rule
	if c.named && c.http && schemeSet(r.Schemes)&schemeTCP != 0 {
		l.add(c, SeverityError, LintNothing, "the conditions on HTTP never hold for the scheme tcp, which it names")
	}
	if c.methods.bits&methodBit("CONNECT", false) != 0 {
		l.add(c, SeverityError, LintNothing, "no request has the method CONNECT: connections are judged by host and port")
	}
	if c.schemes == schemeHTTPS|schemeWSS && len(r.Ports) == 1 && r.Ports[0] == (PortRange{80, 80}) {
		l.add(c, SeverityWarning, LintNothing, "https on port 80 is unusual")
	}
	for _, p := range append(append([]HostPattern{}, r.Hosts...), r.DNSName...) {
		if p != "**" && !strings.ContainsAny(string(p), ".:/") && p != "localhost" {
			l.add(c, SeverityWarning, LintNothing, "%s is a name without a dot, which resolves nowhere but at home", p)
		}
	}
	if r.Effect != Deny {
		for _, p := range r.CIDR {
			if PrivateKind(p.Addr()) == "" {
				l.add(c, SeverityWarning, LintNothing, "cidr %s is public: it needs no opening", p)
			}
		}
	}
	if c.layer == LayerVM && r.Effect != Deny && len(r.CIDR) > 0 {
		l.add(c, SeverityError, LintNothing, "a VM's rule cannot open private addresses")
	}
}

func schemeSet(names []string) (s schemes) {
	for _, n := range names {
		s |= schemeOf(n)
	}
	return s
}

// stage looks for a "when" that needs what its requests never have.
func (l *linter) stage(c *compiled) {
	never := FactMCP
	switch {
	case c.mcp:
		never = c.when.needs &^ (FactMCP | FactProcess)
	case c.schemes == schemeDNS:
		never = FactPort | FactScheme | FactMCP | factsHTTP
	case c.schemes == schemeTCP:
		never = FactMCP | factsHTTP
	}
	if bad := c.when.needs & never; bad != 0 {
		l.add(c, SeverityError, LintWhen, "when looks at %s, which requests of this kind never have", bad)
	}
}

// order looks for an earlier rule that decides everything that this one could.
func (l *linter) order(earlier []*compiled, c *compiled) {
	for _, e := range earlier {
		if !e.covers(c) {
			continue
		}
		switch {
		case e.layer == LayerCorp && c.layer != LayerCorp && e.rule.Effect == Deny && c.rule.Effect != Deny:
			l.add(c, SeverityError, LintCorpDenied, "corp rule %s denies all of it", e.rule.ID)
		case e.rule.Effect == c.rule.Effect && e.layer == c.layer && c.covers(e):
			l.add(c, SeverityWarning, LintDuplicate, "rule %s says the same", e.rule.ID)
		case e.rule.Effect == c.rule.Effect:
			l.add(c, SeverityWarning, LintShadowed, "%s rule %s says so already for more", e.layer, e.rule.ID)
		default:
			l.add(c, SeverityError, LintShadowed, "never reached: %s rule %s has it that all of it is %s", e.layer, e.rule.ID, e.rule.Effect)
		}
		return
	}
}

// corp looks for a VM's allow that corp denies.
func (l *linter) corp(base []*compiled, c *compiled) {
	for _, e := range base {
		if e.rule.Effect == Deny && c.rule.Effect != Deny && e.layer == LayerCorp && e.covers(c) {
			l.add(c, SeverityError, LintCorpDenied, "corp rule %s denies all of it", e.rule.ID)
			return
		}
	}
}

// narrows looks for a VM's allow that has nothing to stand on.
func (l *linter) narrows(base []*compiled, c *compiled) {
	if c.rule.Effect != Allow {
		return
	}
	for _, e := range base {
		if e.rule.Effect != Deny && e.meets(c) {
			return
		}
	}
	l.add(c, SeverityWarning, LintVMAllow, "a VM's rules only narrow, and no rule of corp, user or defaults allows any of it")
}

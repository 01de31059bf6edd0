package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Effect is what a rule does, ordered by severity.
type Effect uint8

// The effects; a larger one is more severe. The zero value is no effect.
const (
	Allow Effect = iota + 1
	Ask
	Deny
)

var effectNames = []string{"", "allow", "ask", "deny"}

// String is the word used in policies.
func (e Effect) String() string {
	if int(e) < len(effectNames) {
		return effectNames[e]
	}
	return fmt.Sprintf("effect(%d)", e)
}

// ParseEffect reads allow, ask or deny.
func ParseEffect(s string) (Effect, error) {
	if i := slices.Index(effectNames, s); i > 0 {
		return Effect(i), nil //nolint:gosec // at most 3
	}
	return 0, errRule("effect is %.20q, not allow, ask or deny", s)
}

// Layer says whose rule it is. A smaller layer comes first.
type Layer uint8

// The layers in their order; LayerVM only narrows what the others allow.
const (
	LayerCorp Layer = iota + 1
	LayerUser
	LayerDefaults
	LayerVM
)

var layerNames = []string{"", "corp", "user", "defaults", "vm"}

// String is the layer's name.
func (l Layer) String() string {
	if int(l) < len(layerNames) {
		return layerNames[l]
	}
	return fmt.Sprintf("layer(%d)", l)
}

// PortRange is ports From to To, both included.
type PortRange struct {
	From, To uint16
}

// String is "443" or "8000-8010".
func (p PortRange) String() string {
	if p.From == p.To {
		return strconv.Itoa(int(p.From))
	}
	return fmt.Sprintf("%d-%d", p.From, p.To)
}

// Rule is one line of a policy. Empty fields are no condition. The package comment says how fields are combined.
type Rule struct {
	// ID names the rule in verdicts and records; it is unique within its layer.
	ID     string
	Effect Effect
	// Reason is told to the owner and, on a refusal, to the agent.
	Reason string
	// Hosts are names, "*.x" (one label more), "**.x" (x and everything below), "**" (any), IP addresses or ranges of literal addresses.
	Hosts []HostPattern
	Ports []PortRange
	// Schemes are http, https, ws, wss, tcp and dns.
	Schemes []string
	Methods []string
	// Paths are globs: * stays within a segment, ** does not, and "/a/**" covers /a too; \ makes the next character plain.
	Paths []string
	// Query and Headers are "key" or "key=glob", "name" or "name: glob".
	Query   []string
	Headers []string
	// Process are globs on the process's name or, with a slash, on the path of its program. It is the guest's claim.
	Process []string
	// MinBody and MaxBody bound the request's body in bytes, both included. MaxBody 0 is no bound.
	MinBody, MaxBody int64
	// MCPServer and MCPTool are globs; a rule with one of them is about MCP calls only.
	MCPServer, MCPTool []string
	// DNSName are host patterns; a rule with them is about name lookups only.
	DNSName []HostPattern
	// CIDR in an allow or ask opens these private ranges to its hosts (which no host pattern does); in a deny it closes them, when the address is known.
	CIDR []netip.Prefix
	// When is a CEL expression that must be true as well.
	When string

	// line is where the rule begins in its text, 0 if it has none.
	line int
}

// Line is where the rule begins in the text it was read from, or 0.
func (r *Rule) Line() int { return r.line }

// Set is the rules of one source, in order, all of one layer.
type Set struct {
	Layer Layer
	Rules []Rule
	// Git are the rules about git, in their own order.
	Git []GitRule
}

// Sizes that a policy must keep to.
const (
	// MaxText is the largest policy text in bytes, MaxRules the most rules of one layer.
	MaxText  = 1 << 20
	MaxRules = 10_000
	// maxPattern bounds one pattern, maxList the entries of one condition, maxReason and maxWhen a rule's reason and expression.
	maxPattern = 1024
	maxList    = 1000
	maxReason  = 500
	maxWhen    = 4096
	maxStars   = 16
)

package approval

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"capsem/core/policy"
)

// The answers.
const (
	Once    = "once"
	Session = "session"
	Always  = "always"
	Deny    = "deny"
)

// Reaches of Session and Always. ReachPath, the default, is the path that the question shows, ReachHost any path there.
const (
	ReachPath = "path"
	ReachHost = "host"
)

// Answer is what the owner says to a question.
type Answer struct {
	// Answer is Once, Session, Always or Deny.
	Answer string `json:"answer"`
	// Reach is ReachPath or ReachHost, for Session and Always.
	Reach string `json:"reach,omitempty"`
	// By is the surface that the answer came from.
	By string `json:"by"`
}

// Status is how a question ended.
type Status string

// The ends of a question.
const (
	Approved Status = "approved"
	Denied   Status = "denied"
	// TimedOut is a question that nobody answered in time.
	TimedOut Status = "timeout"
	// Left is a question whose askers have all gone.
	Left Status = "left"
	// Decided is a question that a new policy answers.
	Decided Status = "policy"
	// Refused is one that was never put: too many wait already.
	Refused Status = "refused"
	// Gone is a question of a VM that has ended.
	Gone Status = "gone"
)

// Outcome is what became of a question.
type Outcome struct {
	Status Status `json:"status"`
	// Scope is the answer, Reach its reach, By who gave it.
	Scope string `json:"scope,omitempty"`
	Reach string `json:"reach,omitempty"`
	By    string `json:"by,omitempty"`
	// Waited is how long the question stood.
	Waited time.Duration `json:"waited_ns"`

	// ID is that of the question; of one whose answer was for the session, the question that it was given to.
	ID string `json:"id,omitempty"`

	// verdict is that of a new policy.
	verdict *policy.Verdict
}

// why explains to the agent what is no approval.
func (o *Outcome) why() string {
	switch o.Status {
	case Denied:
		return "the owner was asked and said no"
	case TimedOut:
		return fmt.Sprintf("the owner was asked and did not answer in %s", o.Waited.Round(time.Second))
	case Refused:
		return "the owner would have to be asked, and too many questions wait already"
	case Left:
		return "the request was given up before the owner answered"
	}
	return "the VM ended before the owner answered"
}

// grant is what an answer for the session allows. A host grant has no path.
type grant struct {
	vm, rule, layer, scheme, host, method, path, server, tool string

	port    uint16
	anyPath bool
}

func (q *Question) grant(reach string) grant {
	g := grant{
		vm: q.VM, rule: q.Rule, layer: q.Layer, scheme: q.Scheme, host: q.Host, method: q.Method, path: q.Path,
		server: q.MCPServer, tool: q.MCPTool, port: q.Port,
	}
	if reach == ReachHost {
		g.path, g.anyPath = "", true
	}
	return g
}

// choices works out the answers to a question, and the rules that go with "always" by reach.
func (q *Question) choices() (list []Choice, rules map[string]policy.Rule) {
	list = []Choice{{Answer: Once, Allows: "this request"}, {Answer: Deny, Allows: "nothing"}}
	if q.Cut || q.MCPServer == "" && (q.Host == "" || q.Port == 0) {
		return list, nil
	}
	rules = map[string]policy.Rule{}
	for _, reach := range q.reaches() {
		what := q.what(reach)
		list = append(list, Choice{Answer: Session, Reach: reach, Allows: what + ", where rule " + q.Rule + " asks, until the VM ends"})
		if r, ok := q.rule(reach); ok {
			rules[reach] = r
			list = append(list, Choice{Answer: Always, Reach: reach, Allows: what + ", for every VM, by a rule in user.toml"})
		}
	}
	return list, rules
}

func (q *Question) reaches() []string {
	if q.MCPServer != "" || q.Method == "" {
		return []string{ReachPath}
	}
	return []string{ReachPath, ReachHost}
}

// what describes what an answer opens.
func (q *Question) what(reach string) string {
	switch {
	case q.MCPServer != "":
		return "tool " + q.MCPTool + " of MCP server " + q.MCPServer + " with any arguments"
	case q.Method == "":
		return "any connection to " + q.place()
	case reach == ReachHost:
		return q.Method + " of anything on " + q.place()
	}
	return q.Method + " " + q.place() + q.Path + " with any query and body"
}

// rule is what "always" adds to the owner's rules; not ok if that would be of no use, or open more than the question is about.
func (q *Question) rule(reach string) (policy.Rule, bool) {
	if q.Layer != policy.LayerUser.String() && q.Layer != policy.LayerDefaults.String() {
		return policy.Rule{}, false
	}
	beyond := policy.FactQuery | policy.FactHeader | policy.FactBody | policy.FactProcess | policy.FactWhen | policy.FactAddr
	if reach == ReachHost {
		beyond |= policy.FactPath // other paths there may be for other rules to decide
	}
	for _, name := range beyond.Names() {
		if slices.Contains(q.Conditions, name) {
			return policy.Rule{}, false
		}
	}
	r := policy.Rule{Effect: policy.Allow, Reason: shown("approved by the owner; was asked because: "+q.Reason, maxText/2)}
	if q.MCPServer != "" {
		r.MCPServer, r.MCPTool = []string{escapeGlob(q.MCPServer)}, []string{escapeGlob(q.MCPTool)}
	} else {
		r.Hosts, r.Ports = []policy.HostPattern{policy.HostPattern(q.Host)}, []policy.PortRange{{From: q.Port, To: q.Port}}
		r.Schemes = []string{q.Scheme}
	}
	if q.Method != "" {
		r.Methods = []string{q.Method}
		path, err := policy.NormalPath(q.Path)
		if err != nil {
			return policy.Rule{}, false
		}
		if reach != ReachHost {
			r.Paths = []string{escapeGlob(path)}
		}
	}
	sum := blake3.Sum256(fmt.Appendf(nil, "%q %q %d %q %q %q %q", q.Scheme, q.Host, q.Port, r.Methods, r.Paths, q.MCPServer, q.MCPTool))
	r.ID = "approved-" + hex.EncodeToString(sum[:6])
	return r, q.allowedBy(r)
}

// allowedBy tries a rule on the request that it is made for.
func (q *Question) allowedBy(r policy.Rule) bool {
	p, err := policy.Compile(&policy.Set{Layer: policy.LayerUser, Rules: []policy.Rule{r}})
	if err != nil || q.MCPServer != "" && q.MCPTool == "" || q.MCPServer == "" && q.Scheme != "tcp" && q.Method == "" {
		return false
	}
	v := p.Decide(&policy.Request{
		VM: q.VM, Host: q.Host, Port: q.Port, Scheme: q.Scheme, Method: q.Method, Path: q.Path, MCPServer: q.MCPServer, MCPTool: q.MCPTool, MCPArgs: []byte(q.MCPArgs),
	})
	return v.Effect == policy.Allow
}

// escapeGlob makes a pattern of policy that matches exactly s.
func escapeGlob(s string) string { return strings.NewReplacer("*", `\*`, `\`, `\\`).Replace(s) }

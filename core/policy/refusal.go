package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Refusal is the answer to a refused HTTP request, in the form that its sender understands.
type Refusal struct {
	// Status is 403, which no client tries again.
	Status int
	// Header has the content type, and what keeps model clients from trying again.
	Header map[string]string
	Body   []byte
}

// Refused is what every refusal says, however it is shaped.
type Refused struct {
	Error   string   `json:"error"`
	Rule    string   `json:"rule"`
	Reason  string   `json:"reason"`
	Request string   `json:"request"`
	Allowed []string `json:"allowed"`
	Ask     string   `json:"ask"`
}

// maxAllowed bounds the list of what is allowed instead, maxShown one text of the request in a body.
const (
	maxAllowed = 10
	maxShown   = 300
)

// Refusal makes the answer to a request that got a verdict other than allow: JSON with the rule, the reason, what is allowed on that host and
// how to ask the owner; plain text for a browser; and for a model's API an error of the shape that its clients know.
func (p *Policy) Refusal(v Verdict, req *Request) Refusal {
	return Shape(p.Refused(v, req), req)
}

// Shape puts a refusal, of the policy or of something else that refuses, into the form that the request's sender understands.
func Shape(r Refused, req *Request) Refusal {
	out := Refusal{Status: 403, Header: map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Capsem-Rule": r.Rule,
	}}
	shaped := any(r)
	switch modelAPI(req) {
	case apiAnthropic:
		shaped = anthropicError(r)
	case apiOpenAI:
		shaped = openAIError(r)
	case apiGoogle:
		shaped = googleError(r)
	case apiNone:
		if wantsText(req.Header) {
			out.Header["Content-Type"], out.Body = "text/plain; charset=utf-8", []byte(r.text())
			return out
		}
	}
	if modelAPI(req) != apiNone {
		out.Header["X-Should-Retry"] = "false" // read by the SDKs of Anthropic and OpenAI
	}
	body, err := json.MarshalIndent(shaped, "", "  ")
	if err != nil { // only strings are in it
		body = []byte(`{"error":"refused by the policy of this VM"}`)
	}
	out.Body = body
	return out
}

// Refused gives the parts of a refusal.
func (p *Policy) Refused(v Verdict, req *Request) Refused {
	r := Refused{Error: "refused by the policy of this VM", Rule: v.RuleID, Reason: v.Reason, Request: shown(req.String()), Allowed: p.AllowedOn(req)}
	if v.Layer == LayerVM {
		r.Allowed = p.vm.allowedOn(req) // of what the layers allow, only this is left
	}
	if r.Reason == "" {
		r.Reason = "the rule gives no reason"
	}
	vm := shown(req.VM)
	if vm == "" {
		vm = "VM"
	}
	r.Ask = fmt.Sprintf("Trying again will not help. Ask the owner of this machine; on the host, \"capsem policy suggest %s\" shows the rule that would allow it.", vm)
	switch {
	case v.RuleID == RuleMalformed:
		r.Ask = "No rule can allow this request as it is: send it in its plain form."
	case v.Layer == LayerCorp:
		r.Ask = "Trying again will not help, and the owner of this machine cannot change it: the rule is the organisation's."
	case v.Effect == Ask:
		r.Error = "not approved by the owner of this VM"
		r.Ask = fmt.Sprintf("The owner was asked and did not allow it. They can on the host with \"capsem approve\"; then try again (VM %s).", vm)
	}
	return r
}

// shown keeps a text of the guest's short and on one line.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return s
}

func (r *Refused) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "capsem: request denied\n\n%s: %s\nrule: %s\nreason: %s\n", r.Error, r.Request, r.Rule, r.Reason)
	if len(r.Allowed) > 0 {
		fmt.Fprintf(&b, "allowed here: %s\n", strings.Join(r.Allowed, "; "))
	}
	fmt.Fprintf(&b, "\n%s\n", r.Ask)
	return b.String()
}

// sentence is a refusal in one line, for errors that only have a message.
func (r *Refused) sentence() string {
	s := fmt.Sprintf("capsem: %s (rule %s: %s).", r.Error, r.Rule, r.Reason)
	if len(r.Allowed) > 0 {
		s += " Allowed here: " + strings.Join(r.Allowed, "; ") + "."
	}
	return s + " " + r.Ask
}

// AllowedOn sums up what the rules allow on the host (or MCP server) of a request, one line each, at most 10.
func (p *Policy) AllowedOn(req *Request) []string { return p.base.allowedOn(req) }

func (l *list) allowedOn(req *Request) []string {
	var f facts
	out := []string{}
	if f.read(&Request{Host: req.Host, MCPServer: req.MCPServer}) != "" {
		return out
	}
	var k cursors
	l.look(&f, &k)
	for rank := k.next(); rank >= 0 && len(out) < maxAllowed; rank = k.next() {
		c := l.rules[rank]
		if c.rule.Effect == Deny && c.conditions()&^FactHost == 0 {
			break // nothing below it counts
		}
		if c.rule.Effect == Deny || f.mcp && !c.mcp && c.rule.Effect == Allow {
			continue
		}
		if line := c.summary(&f); !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// summary is a rule in words: "GET, HEAD https api.x/repos/**".
func (c *compiled) summary(f *facts) string {
	r := c.rule
	var b strings.Builder
	if c.mcp {
		fmt.Fprintf(&b, "MCP %s %s", orAny(r.MCPServer, "*"), orAny(r.MCPTool, "*"))
	} else {
		fmt.Fprintf(&b, "%s %s://%s", orAny(r.Methods, "any method"), strings.Join((c.schemes&^schemeDNS).names(), ","), f.host)
		for i, p := range r.Ports {
			b.WriteString([]string{":", ","}[min(i, 1)] + p.String())
		}
		if len(r.Paths) > 0 {
			b.WriteString(" paths " + orAny(r.Paths, ""))
		}
	}
	if rest := c.conditions() & (FactQuery | FactHeader | FactProcess | FactBody | FactWhen); rest != 0 {
		fmt.Fprintf(&b, " (with conditions on %s)", strings.Join(rest.Names(), ", "))
	}
	if r.Effect == Ask {
		b.WriteString(" (asks the owner)")
	}
	return shown(b.String())
}

func orAny(list []string, empty string) string {
	if len(list) == 0 {
		return empty
	}
	if len(list) > 5 {
		list = append(slices.Clone(list[:5]), "...")
	}
	return strings.Join(list, ", ")
}

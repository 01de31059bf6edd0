package machine

import (
	"context"
	"net/url"
	"slices"

	"capsem/core/approval"
	"capsem/core/detect"
	"capsem/core/ledger"
	"capsem/core/mcp"
	"capsem/core/mcp/gateway"
)

// inspect looks at what goes to an MCP server, for secrets, and at what comes back, for orders to a model and for the owner's secrets, which
// a server has and may tell. The verdicts are those for the network.
func (m *mcpServers) inspect(ctx context.Context, p *gateway.Passage) (rule, found string) {
	for _, d := range m.findings(p) {
		verdict, outcome := m.w.detectVerdict(d.Detector), "reported"
		switch {
		case verdict == detect.Off:
			continue
		case verdict == detect.Deny, verdict == detect.Ask && (p.Unasked || !m.askFinding(ctx, p, d)):
			outcome = "denied"
		case verdict == detect.Ask:
			outcome = "approved"
		}
		m.w.record(ledger.Detection{
			Detector: d.Detector, Rule: d.Rule, Outcome: outcome, Domain: "mcp:" + p.Server, Place: d.Where, Process: processOf(p.Process),
		})
		if outcome == "denied" {
			return "detect/" + d.Detector, d.Rule
		}
	}
	return "", ""
}

func (m *mcpServers) findings(p *gateway.Passage) []detect.Finding {
	where := "arguments of " + p.Tool
	var found []detect.Finding
	if p.Received {
		where = "answer of " + p.Tool
		found = slices.DeleteFunc(m.engine.Outgoing("").Push(p.Text, true), func(d detect.Finding) bool { return d.Detector != detect.OwnSecrets })
		found = append(found, m.engine.Text(p.Text)...)
	} else {
		found = m.engine.Outgoing(m.hostOf(p.Server)).Push(p.Text, true)
	}
	for i := range found {
		found[i].Where = where
	}
	return found
}

// hostOf is the host of a server behind a URL: keys of its own provider may go there.
func (m *mcpServers) hostOf(server string) string {
	hosts := m.hosts.Load()
	if hosts == nil {
		return ""
	}
	return (*hosts)[server]
}

// setHosts notes the hosts of servers.
func (m *mcpServers) setHosts(defs []mcp.Definition) {
	hosts := map[string]string{}
	for i := range defs {
		if u, err := url.Parse(defs[i].URL); err == nil {
			hosts[defs[i].Name] = u.Hostname()
		}
	}
	m.hosts.Store(&hosts)
}

// askFinding asks the owner about a finding.
func (m *mcpServers) askFinding(ctx context.Context, p *gateway.Passage, d detect.Finding) bool {
	q := approval.Question{
		VM: m.w.spec.ID, MCPServer: p.Server, MCPTool: p.Tool, Size: -1, Rule: "detect/" + d.Detector, Reason: d.Rule + " was found in the " + d.Where,
		Process: approval.Process{PID: p.Process.PID, UID: p.Process.UID, Name: p.Process.Name, Exe: p.Process.Exe, CommandLine: p.Process.CommandLine, Parents: p.Process.Parents},
	}
	o := m.w.network.board.Ask(ctx, q)
	p.AskID = o.ID
	return o.Status == approval.Approved
}

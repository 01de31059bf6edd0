package mcptools

import (
	"context"

	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/policy"
)

type policyCheckParams struct {
	Request string `json:"request" jsonschema:"METHOD URL, DNS NAME, TCP HOST:PORT or MCP SERVER TOOL"`
	ID      string `json:"id,omitempty" jsonschema:"with the own rules of this VM"`
}

// ruling is what the policy says to a request.
type ruling struct {
	Verdict string `json:"verdict" jsonschema:"allow, ask or deny"`
	Rule    string `json:"rule"`
	Layer   string `json:"layer,omitempty" jsonschema:"whose rule it is"`
	Reason  string `json:"reason,omitempty"`
	Request string `json:"request" jsonschema:"the request as it was understood"`
	Doubt   bool   `json:"doubt,omitempty" jsonschema:"there is more than one way to read the request; the more severe verdict counts"`
	Error   string `json:"error,omitempty"`
	Steps   []step `json:"steps" jsonschema:"what each rule said, up to the one that decides"`
}

// step is what one rule said.
type step struct {
	Layer   string `json:"layer"`
	Rule    string `json:"rule"`
	Effect  string `json:"effect"`
	Outcome string `json:"outcome"`
}

func (s *Server) addPolicy() {
	add(s, tool{
		name: "capsem_policy_check", title: "Ask the policy", does: reads,
		about: "Says what the owner's policy would say to a request of a VM, and which rule says it. Nothing is sent.",
	}, s.policyCheck)
}

func (s *Server) policyCheck(ctx context.Context, c *call, in policyCheckParams) (ruling, error) {
	req, err := policy.ParseRequest(in.Request)
	if err != nil {
		return ruling{}, fault.New(fault.Invalid, "%s", fault.Line(err)).WithHint("such as: GET https://example.com/path")
	}
	var vm paths.VM
	if in.ID != "" {
		info, err := c.svc.Info(ctx, in.ID)
		if err != nil {
			return ruling{}, err
		}
		vm, req.VM = paths.VM(info.Dir), in.ID
	}
	p, err := config.LoadPolicy(config.PolicyFiles(s.opts.Home, vm))
	if err != nil {
		return ruling{}, err
	}
	v, steps := p.Explain(&req, false)
	out := ruling{
		Verdict: v.Effect.String(), Rule: v.RuleID, Layer: layerText(v.Layer), Reason: v.Reason, Request: req.String(), Doubt: v.Doubt, Error: v.Err, Steps: []step{},
	}
	for _, one := range steps {
		out.Steps = append(out.Steps, step{layerText(one.Layer), one.RuleID, one.Effect.String(), one.Outcome})
	}
	return out, nil
}

func layerText(l policy.Layer) string {
	if l == 0 {
		return ""
	}
	return l.String()
}

package mcptools

import (
	"context"
	"encoding/json"
	"fmt"

	"capsem/core/api"
)

// waiting are the questions of VMs to the owner.
type waiting struct {
	Pending []api.Question `json:"pending"`
	Waiting int            `json:"waiting" jsonschema:"how many wait; there may be more than are listed"`
}

type approveParams struct {
	Question string `json:"question" jsonschema:"its id"`
	Answer   string `json:"answer" jsonschema:"once, session, always or deny"`
	Reach    string `json:"reach,omitempty" jsonschema:"path or host, for session and always"`
}

// secretParams is a secret to be stored.
type secretParams struct {
	Name  string   `json:"name" jsonschema:"what it is called"`
	Value string   `json:"value" jsonschema:"the secret"`
	Kind  string   `json:"kind,omitempty" jsonschema:"whose it is (anthropic, openai, google, github, gitlab), generic, or mcp for one of the owner's MCP servers; told by how it begins if not given"`
	User  string   `json:"user,omitempty" jsonschema:"makes it the password of this user"`
	Hosts []string `json:"hosts,omitempty" jsonschema:"where it may go; what its kind says if not given"`
	Env   []string `json:"env,omitempty" jsonschema:"variables of VMs that get its placeholder"`
}

type budgetParams struct {
	Scope  string `json:"scope" jsonschema:"install, image or vm"`
	Name   string `json:"name,omitempty" jsonschema:"the image's or the VM's"`
	Period string `json:"period" jsonschema:"session or day"`
	Meter  string `json:"meter" jsonschema:"money (in billionths of a dollar), tokens, requests or bytes"`
	Limit  *int64 `json:"limit,omitempty" jsonschema:"the limit; none removes it"`
}

type policyAddParams struct {
	Rules  string `json:"rules" jsonschema:"[[rule]] tables, as in policy.toml"`
	Before string `json:"before,omitempty" jsonschema:"the id of the rule in policy.toml that they go in front of; at the end if not given"`
}

type secretName struct {
	Name string `json:"name" jsonschema:"the secret's name"`
}

type mcpApproveParams struct {
	Name string `json:"name" jsonschema:"the tool (server__tool), or a server for all of its tools"`
	Pin  string `json:"pin,omitempty" jsonschema:"the hash that was looked at; nothing is approved if the tool has changed since"`
}

// addOwner adds the tools that decide for the owner.
func (s *Server) addOwner() {
	s.addApprovals()
	add(s, tool{name: "capsem_budgets", title: "Budgets", does: reads, about: "Says what VMs may spend on models, and have spent."},
		func(ctx context.Context, c *call, _ nothing) (api.BudgetsReply, error) { return c.svc.Budgets(ctx) })
	add(s, tool{name: "capsem_budget_set", title: "Set a budget", does: changes, about: "Sets a limit to what VMs may spend; without limit it removes it."},
		func(ctx context.Context, c *call, in budgetParams) (done, error) {
			return done{true}, c.svc.SetBudget(ctx, api.BudgetRequest(in))
		})
	add(s, tool{
		name: "capsem_policy_add", title: "Add rules to the policy", does: changes, open: true,
		about: "Adds [[rule]] tables to the owner's policy.toml, in front of a rule that is there, or at the end. Earlier rules go first.",
	}, func(ctx context.Context, c *call, in policyAddParams) (done, error) {
		return done{true}, c.svc.AddPolicyRules(ctx, &api.PolicyRulesRequest{Rules: in.Rules, Before: in.Before})
	})
	add(s, tool{name: "capsem_secrets", title: "List secrets", does: reads, about: "Lists the owner's stored secrets: where each may go, never what it is."},
		func(ctx context.Context, c *call, _ nothing) (api.SecretsReply, error) { return c.svc.Secrets(ctx) })
	add(s, tool{
		name: "capsem_secret_set", title: "Store a secret", does: changes, open: true,
		about: "Stores a secret sealed. VMs get a placeholder of it, which becomes the secret on its way to the hosts it is for.",
	}, func(ctx context.Context, c *call, in secretParams) (api.Secret, error) {
		return c.svc.SetSecret(ctx, in.Name, api.SecretRequest{Kind: in.Kind, Value: in.Value, User: in.User, Hosts: in.Hosts, Env: in.Env})
	})
	add(s, tool{name: "capsem_secret_remove", title: "Remove a secret", does: destroys, about: "Removes a stored secret, from VMs that run too."},
		func(ctx context.Context, c *call, in secretName) (done, error) {
			return done{true}, c.svc.RemoveSecret(ctx, in.Name)
		})
	add(s, tool{
		name: "capsem_mcp_approve", title: "Approve tools of an MCP server", does: changes, open: true,
		about: "Lets VMs use a tool as it is now described, or all tools of a server.",
	}, func(ctx context.Context, c *call, in mcpApproveParams) (api.MCPApproveReply, error) {
		return c.svc.ApproveMCP(ctx, in.Name, in.Pin)
	})
}

func (s *Server) addApprovals() {
	add(s, tool{name: "capsem_approvals", title: "Questions to the owner", does: reads, about: "Lists what VMs want to do and wait for the owner's answer."},
		func(ctx context.Context, c *call, _ nothing) (waiting, error) {
			reply, err := c.svc.Approvals(ctx)
			if err != nil {
				return waiting{}, err
			}
			out := waiting{Pending: []api.Question{}, Waiting: reply.Waiting}
			for _, text := range reply.Pending {
				var q api.Question
				if err := json.Unmarshal(text, &q); err != nil {
					return waiting{}, fmt.Errorf("decode question: %w", err)
				}
				out.Pending = append(out.Pending, q)
			}
			return out, nil
		})
	add(s, tool{
		name: "capsem_approve", title: "Answer a question", does: changes, open: true,
		about: "Answers a question of a VM in the owner's name: once, for the session, always (which adds a rule to the policy), or deny.",
	}, func(ctx context.Context, c *call, in approveParams) (api.AnswerReply, error) {
		return c.svc.Answer(ctx, in.Question, api.AnswerRequest{Answer: in.Answer, Reach: in.Reach, By: "mcp"})
	})
}

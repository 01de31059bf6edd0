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

// addOwner adds the tools that decide for the owner. Changes of policy and budgets, and secrets, belong here too.
func (s *Server) addOwner() {
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

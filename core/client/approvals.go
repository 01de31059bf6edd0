package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"capsem/core/api"
)

// Approvals is what waits for the owner.
func (c *Client) Approvals(ctx context.Context) (api.ApprovalsReply, error) {
	return call[api.ApprovalsReply](ctx, c, http.MethodGet, "/approvals", nil)
}

// WatchApprovals calls f with what waits now and after every change, until f returns an error or ctx ends.
func (c *Client) WatchApprovals(ctx context.Context, f func(api.ApprovalsReply) error) error {
	body, err := c.body(ctx, http.MethodGet, "/approvals?watch=1", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var reply api.ApprovalsReply
		if err := lines.Decode(&reply); err != nil {
			return fmt.Errorf("watch questions: %w", err)
		}
		if err := f(reply); err != nil {
			return err
		}
	}
}

// Answer answers a question.
func (c *Client) Answer(ctx context.Context, id string, req api.AnswerRequest) (api.AnswerReply, error) {
	return call[api.AnswerReply](ctx, c, http.MethodPost, escape("approvals", id), req)
}

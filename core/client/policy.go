package client

import (
	"context"
	"net/http"

	"capsem/core/api"
)

// AddPolicyRules adds rules to the owner's policy.
func (c *Client) AddPolicyRules(ctx context.Context, req *api.PolicyRulesRequest) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, "/policy/rules", req)
	return err
}

package client

import (
	"context"
	"net/http"

	"capsem/core/api"
)

// Budgets is what VMs may spend, and have spent.
func (c *Client) Budgets(ctx context.Context) (api.BudgetsReply, error) {
	return call[api.BudgetsReply](ctx, c, http.MethodGet, "/budgets", nil)
}

// SetBudget sets a limit, or removes it.
func (c *Client) SetBudget(ctx context.Context, req api.BudgetRequest) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, "/budgets", req)
	return err
}

// ResetBudget begins to count anew.
func (c *Client) ResetBudget(ctx context.Context, req api.BudgetResetRequest) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, "/budgets/reset", req)
	return err
}

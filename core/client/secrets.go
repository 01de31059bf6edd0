package client

import (
	"context"
	"net/http"

	"capsem/core/api"
)

// Secrets lists the stored secrets, without their values.
func (c *Client) Secrets(ctx context.Context) (api.SecretsReply, error) {
	return call[api.SecretsReply](ctx, c, http.MethodGet, "/secrets", nil)
}

// SetSecret stores a secret.
func (c *Client) SetSecret(ctx context.Context, name string, req api.SecretRequest) (api.Secret, error) {
	return call[api.Secret](ctx, c, http.MethodPut, escape("secrets", name), req)
}

// RemoveSecret removes a secret.
func (c *Client) RemoveSecret(ctx context.Context, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("secrets", name), nil)
	return err
}

// TestSecret asks a secret's provider whether it is good.
func (c *Client) TestSecret(ctx context.Context, name string) (api.SecretTest, error) {
	return call[api.SecretTest](ctx, c, http.MethodPost, escape("secrets", name)+"/test", nil)
}

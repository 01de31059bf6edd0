package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"capsem/core/api"
)

// MCPServers lists the MCP servers that VMs may use.
func (c *Client) MCPServers(ctx context.Context) (api.MCPServersReply, error) {
	return call[api.MCPServersReply](ctx, c, http.MethodGet, "/mcp/servers", nil)
}

// AddMCPServer adds one to the user's settings.
func (c *Client) AddMCPServer(ctx context.Context, req *api.MCPAddRequest) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, "/mcp/servers", req)
	return err
}

// RemoveMCPServer takes one out of the user's settings.
func (c *Client) RemoveMCPServer(ctx context.Context, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("mcp", "servers", name), nil)
	return err
}

// MCPTools lists the tools of a server, or of all.
func (c *Client) MCPTools(ctx context.Context, server string) (api.MCPToolsReply, error) {
	return call[api.MCPToolsReply](ctx, c, http.MethodGet, "/mcp/tools?"+url.Values{"server": {server}}.Encode(), nil)
}

// RefreshMCP has a server, or all, asked again what it offers.
func (c *Client) RefreshMCP(ctx context.Context, server string) (api.MCPServersReply, error) {
	return call[api.MCPServersReply](ctx, c, http.MethodPost, "/mcp/tools/refresh", api.MCPRefreshRequest{Server: server})
}

// ApproveMCP approves a tool as it is, or all of a server.
func (c *Client) ApproveMCP(ctx context.Context, name, pin string) (api.MCPApproveReply, error) {
	return call[api.MCPApproveReply](ctx, c, http.MethodPost, escape("mcp", "tools", name, "approve"), api.MCPApproveRequest{Pin: pin})
}

// CallMCP calls a tool in the name of a VM; the answer is the tool's result, as MCP has it.
func (c *Client) CallMCP(ctx context.Context, name string, req api.MCPCallRequest) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, http.MethodPost, escape("mcp", "tools", name, "call"), req)
}

// SetMCPLogin stores what a sign-in to a server has got.
func (c *Client) SetMCPLogin(ctx context.Context, name string, req *api.MCPLoginRequest) error {
	_, err := call[api.Success](ctx, c, http.MethodPut, escape("mcp", "servers", name, "login"), req)
	return err
}

// RemoveMCPLogin forgets it.
func (c *Client) RemoveMCPLogin(ctx context.Context, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("mcp", "servers", name, "login"), nil)
	return err
}

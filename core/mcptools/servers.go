package mcptools

import (
	"context"
	"encoding/json"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
)

// serviceGateway is a Gateway over the local API.
type serviceGateway struct{ client *client.Client }

// NewGateway reaches the MCP servers of VMs by way of the service, which it starts when there is none.
func NewGateway(c *client.Client) Gateway { return serviceGateway{c} }

// Servers are those that are connected or configured.
func (g serviceGateway) Servers(ctx context.Context) ([]MCPServer, error) {
	if err := g.client.EnsureService(ctx); err != nil {
		return nil, err //nolint:wrapcheck // a fault that says what to do
	}
	reply, err := g.client.MCPServers(ctx)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	out := make([]MCPServer, 0, len(reply.Servers))
	for _, s := range reply.Servers {
		out = append(out, MCPServer{
			Name: s.Name, Source: s.Source, Transport: s.Transport, State: s.State, Tools: s.Tools, Held: s.Held, Error: fault.Plain(s.Error), VMs: s.VMs,
		})
	}
	return out, nil
}

// Tools are those of one server, or of all. Of those that the owner has not approved the names only: a description is for who approves.
func (g serviceGateway) Tools(ctx context.Context, server string) ([]MCPTool, error) {
	if err := g.client.EnsureService(ctx); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	reply, err := g.client.MCPTools(ctx, server)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	out := make([]MCPTool, 0, len(reply.Tools))
	for i := range reply.Tools {
		t := &reply.Tools[i]
		one := MCPTool{Name: t.Name, Server: t.Server, Approved: t.Approved}
		if t.Approved {
			one.Description = t.Description
			if len(t.InputSchema) > 0 && json.Unmarshal(t.InputSchema, &one.InputSchema) != nil {
				one.InputSchema = nil // a client can do without
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// Call calls a tool in the name of a VM.
func (g serviceGateway) Call(ctx context.Context, vm, name string, arguments json.RawMessage) (*mcp.CallToolResult, error) {
	if err := g.client.EnsureService(ctx); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	if len(arguments) == 0 {
		arguments = json.RawMessage("{}")
	}
	body, err := g.client.CallMCP(ctx, name, api.MCPCallRequest{VM: vm, Arguments: arguments})
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	var out mcp.CallToolResult
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the answer of %.140s cannot be read", name)
	}
	return &out, nil
}

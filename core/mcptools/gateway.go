package mcptools

import (
	"context"
	"encoding/json"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/fault"
	"capsem/core/mcp/clients"
)

// Gateway is the owner's MCP servers as VMs have them, under the same policy.
type Gateway interface {
	// Servers are those that are connected or configured.
	Servers(ctx context.Context) ([]MCPServer, error)
	// Tools are those of one server, or of all when it is empty.
	Tools(ctx context.Context, server string) ([]MCPTool, error)
	// Call calls a tool by its name with the server's before it (server__tool), in the name of a VM, which may be empty where one runs.
	Call(ctx context.Context, vm, name string, arguments json.RawMessage) (*mcp.CallToolResult, error)
}

// MCPServer is one MCP server.
type MCPServer struct {
	Name      string `json:"name"`
	Source    string `json:"source" jsonschema:"where it is configured"`
	Transport string `json:"transport" jsonschema:"stdio or http"`
	State     string `json:"state" jsonschema:"connected, failed, disabled; found for one in an agent's settings that the owner has not taken over"`
	Tools     int    `json:"tools"`
	// Held counts the tools that wait for the owner's approval, VMs are those in which it runs.
	Held  int      `json:"held,omitempty" jsonschema:"tools that wait for the owner's approval"`
	Error string   `json:"error,omitempty"`
	VMs   []string `json:"vms,omitempty" jsonschema:"where it runs"`
}

// MCPTool is a tool of a server.
type MCPTool struct {
	Name        string         `json:"name"`
	Server      string         `json:"server"`
	Description string         `json:"description,omitempty"`
	InputSchema map[string]any `json:"input_schema,omitempty"`
	Approved    bool           `json:"approved"`
}

// mcpServers, mcpTools and mcpAnswer are the answers about them.
type mcpServers struct {
	Servers []MCPServer `json:"servers"`
	// Problems are settings that could not be read.
	Problems []string `json:"problems,omitempty"`
}

type mcpTools struct {
	Tools []MCPTool `json:"tools"`
}

type mcpAnswer struct {
	Content []any `json:"content"`
	Result  any   `json:"result,omitempty"`
	IsError bool  `json:"is_error,omitempty"`
}

type mcpToolsParams struct {
	Server string `json:"server,omitempty" jsonschema:"only the tools of this server"`
}

type mcpCallParams struct {
	Name      string         `json:"name" jsonschema:"the tool, as capsem_mcp_tools names it"`
	Arguments map[string]any `json:"arguments,omitempty" jsonschema:"its arguments"`
	VM        string         `json:"vm,omitempty" jsonschema:"in whose name it is called, if several VMs run"`
}

func (s *Server) addGateway() {
	add(s, tool{
		name: "capsem_mcp_servers", title: "List MCP servers", does: reads,
		about: "Lists the MCP servers that VMs may use, and those found in the settings of this user's agents.",
	}, s.mcpServers)
	add(s, tool{name: "capsem_mcp_tools", title: "List tools of MCP servers", does: reads, about: "Lists the tools of the MCP servers that VMs may use."},
		func(ctx context.Context, _ *call, in mcpToolsParams) (mcpTools, error) {
			out := mcpTools{Tools: []MCPTool{}}
			if s.opts.Gateway == nil {
				return out, nil
			}
			all, err := s.opts.Gateway.Tools(ctx, in.Server)
			out.Tools = append(out.Tools, all...)
			return out, err
		})
	add(s, tool{
		name: "capsem_mcp_call", title: "Call a tool of an MCP server", does: changes, open: true,
		about: "Calls a tool of an MCP server that VMs may use, under the same policy.",
	}, s.mcpCall)
}

func (s *Server) mcpServers(ctx context.Context, _ *call, _ nothing) (mcpServers, error) {
	out := mcpServers{Servers: []MCPServer{}}
	known := map[string]bool{}
	if s.opts.Gateway != nil {
		all, err := s.opts.Gateway.Servers(ctx)
		if err != nil {
			return out, err
		}
		for _, one := range all {
			known[one.Name] = true
			out.Servers = append(out.Servers, one)
		}
	}
	if s.opts.UserHome == "" {
		return out, nil
	}
	found, problems := clients.Detect(s.opts.UserHome)
	for _, f := range found {
		if !known[f.Name] {
			out.Servers = append(out.Servers, MCPServer{Name: f.Name, Source: string(f.Client) + ": " + f.Path, Transport: f.Transport(), State: "found"})
		}
	}
	for _, p := range problems {
		out.Problems = append(out.Problems, p.String())
	}
	return out, nil
}

func (s *Server) mcpCall(ctx context.Context, c *call, in mcpCallParams) (mcpAnswer, error) {
	if s.opts.Gateway == nil {
		return mcpAnswer{}, fault.New(fault.NotFound, "there is no tool %.100q: no MCP servers are connected", in.Name).
			WithHint("capsem_mcp_servers lists what there is")
	}
	var raw struct { // as they came: a long number must stay what it is
		Arguments json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(c.req.Params.Arguments, &raw); err != nil {
		return mcpAnswer{}, fault.New(fault.Invalid, "the arguments are no JSON object")
	}
	res, err := meanwhile(ctx, c, "calling "+in.Name, nil, func() (*mcp.CallToolResult, error) { return s.opts.Gateway.Call(ctx, in.VM, in.Name, raw.Arguments) })
	if err != nil {
		return mcpAnswer{}, err
	}
	out := mcpAnswer{Content: []any{}, Result: res.StructuredContent, IsError: res.IsError}
	for _, one := range res.Content {
		out.Content = append(out.Content, one)
	}
	return out, nil
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
)

// mcpServerVerbs are the commands about the MCP servers that VMs use.
func (s *session) mcpServerVerbs() []*cli.Command {
	return []*cli.Command{
		{
			Name: "servers", Usage: "the MCP servers that VMs may use", UsageText: "mcp servers [--json] [--detected]",
			Flags:       []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "detected", Usage: "what the settings of your agents have besides, with the command that takes each over"}},
			Description: "Lists the MCP servers of your settings and the built-in one, with their state in the VMs that run.", Action: action(s.mcpServers),
		},
		{
			Name: "tools", Usage: "their tools", UsageText: "mcp tools [--json] [SERVER]",
			Flags: []cli.Flag{jsonFlag(), &cli.StringFlag{Name: "server", Usage: "only those of `SERVER`"}},
			Description: "Lists the tools that were seen. One that is new, or that has changed, is held back until you approve it: read its description,\n" +
				"which an agent would believe.",
			Action: action(s.mcpTools),
		},
		{
			Name: "approve", Usage: "let VMs use a tool", UsageText: "mcp approve TOOL|SERVER", Flags: []cli.Flag{jsonFlag()},
			Description: "Approves a tool as it is, or all tools of a server.",
			Action: show(s, 1, 1, func(ctx context.Context, svc *client.Client, args []string) (api.MCPApproveReply, error) {
				return svc.ApproveMCP(ctx, args[0], "")
			}, approvedText),
		},
		{
			Name: "refresh", Usage: "ask servers again what they offer", UsageText: "mcp refresh [--json] [SERVER]", Flags: []cli.Flag{jsonFlag()},
			Description: "Has a server, or all, asked again in each VM that runs, and starts those that do not run.",
			Action: show(s, 0, 1, func(ctx context.Context, svc *client.Client, args []string) (api.MCPServersReply, error) {
				return svc.RefreshMCP(ctx, strings.Join(args, ""))
			}, serversText),
		},
		{
			Name: "call", Usage: "call a tool", UsageText: "mcp call [--vm VM] [--args JSON] TOOL",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "vm", Usage: "in the name of `VM`, if several run"}, &cli.StringFlag{Name: "args", Usage: "its arguments, a `JSON` object"}, jsonFlag(),
			},
			Description: "Calls a tool as a VM would, under the policy, and prints what it answers.", Action: action(s.mcpCall),
		},
		{
			Name: "add", Usage: "let VMs use an MCP server", UsageText: "mcp add [flags] NAME URL | mcp add [flags] NAME COMMAND [ARGUMENT...] | mcp add --from AGENT NAME [NEW-NAME]",
			Flags: []cli.Flag{
				&cli.StringSliceFlag{Name: "env", Usage: "`NAME=VALUE` of a program's environment; secret:REF stands for a secret"},
				&cli.StringSliceFlag{Name: "header", Usage: "`NAME=VALUE` sent to a URL; secret:REF stands for a secret"},
				&cli.StringSliceFlag{Name: "read", Usage: "a `PATH` that a program may read"}, &cli.StringSliceFlag{Name: "write", Usage: "a `PATH` that a program may write"},
				&cli.BoolFlag{Name: "network", Usage: "let a program open connections"}, &cli.BoolFlag{Name: "sse", Usage: "the older transport of a URL"},
				&cli.BoolFlag{Name: "private", Usage: "the URL's name may have a private address"},
				&cli.StringFlag{Name: "from", Usage: "take it over from the settings of `AGENT` (claude, codex, gemini, cursor, vscode); its secrets go into the sealed store"},
				&cli.StringFlag{Name: "project", Usage: "with --from: that of the project in `DIRECTORY`"},
			},
			Description: "Adds an MCP server to user.toml. A program runs on this machine, kept to the system's files, its own empty directory and what you\n" +
				"open to it. VMs that run see it within seconds; its tools wait for capsem mcp approve.",
			Action: action(s.mcpAdd),
		},
		{
			Name: "remove", Usage: "the reverse of add", UsageText: "mcp remove NAME",
			Description: "Takes an MCP server out of user.toml, and forgets what you have approved of it.", Action: action(s.mcpRemove),
		},
	}
}

func (s *session) mcpServers(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("detected") {
		return s.mcpDetected(ctx, c)
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.MCPServers(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(serversText(c, reply))
}

func serversText(_ *cli.Context, reply api.MCPServersReply) string {
	var b strings.Builder
	for _, one := range reply.Servers {
		fmt.Fprintf(&b, "%s  %s  %s  %d tools", clean(one.Name), clean(one.Transport), clean(one.State), one.Tools)
		if one.Held > 0 {
			fmt.Fprintf(&b, ", %d held back (capsem mcp approve)", one.Held)
		}
		if one.Target != "" {
			b.WriteString("  " + clean(one.Target))
		}
		if one.Error != "" {
			b.WriteString("\n    " + clean(one.Error))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *session) mcpTools(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	server := c.String("server")
	if len(args) == 1 {
		server = args[0]
	}
	reply, err := svc.MCPTools(ctx, server)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	var b strings.Builder
	for i := range reply.Tools {
		t := &reply.Tools[i]
		fmt.Fprintf(&b, "%s  %s", clean(t.Name), clean(t.State))
		if t.Why != "" {
			b.WriteString(": " + clean(t.Why))
		}
		if t.Description != "" {
			b.WriteString("\n    " + clean(t.Description))
		}
		if len(t.Before) > 0 {
			b.WriteString("\n    before: " + clean(string(t.Before)))
		}
		b.WriteByte('\n')
	}
	return s.print(b.String())
}

func approvedText(_ *cli.Context, reply api.MCPApproveReply) string {
	if len(reply.Approved) == 0 {
		return "approved already\n"
	}
	return clean(strings.Join(reply.Approved, " ")) + "\n"
}

func (s *session) mcpCall(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	if text := c.String("args"); text != "" && !json.Valid([]byte(text)) {
		return fault.New(fault.Invalid, "--args is not JSON")
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	body, err := svc.CallMCP(ctx, args[0], api.MCPCallRequest{VM: c.String("vm"), Arguments: json.RawMessage(c.String("args"))})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.print(string(body) + "\n")
	}
	var result struct {
		Content []struct{ Type, Text string } `json:"content"`
		IsError bool                          `json:"isError"`
	}
	if err := json.Unmarshal(body, &result); err != nil {
		return fmt.Errorf("read the tool's answer: %w", err)
	}
	var b strings.Builder
	for _, part := range result.Content {
		if part.Type != "text" {
			part.Text = "(" + part.Type + ": see --json)"
		}
		b.WriteString(strings.TrimSuffix(part.Text, "\n") + "\n")
	}
	if result.IsError {
		return fault.New(fault.Unavailable, "%s", strings.TrimSpace(b.String()))
	}
	return s.print(b.String())
}

func (s *session) mcpAdd(ctx context.Context, c *cli.Context) error {
	if c.IsSet("from") {
		return s.mcpAddFound(ctx, c)
	}
	args, err := words(c, 2, -1)
	if err != nil {
		return err
	}
	req := &api.MCPAddRequest{
		Name: args[0], Read: c.StringSlice("read"), Write: c.StringSlice("write"), Network: c.Bool("network"), SSE: c.Bool("sse"), Private: c.Bool("private"),
	}
	if req.Env, err = pairs(c.StringSlice("env")); err != nil {
		return err
	}
	if req.Headers, err = pairs(c.StringSlice("header")); err != nil {
		return err
	}
	if isURL := strings.HasPrefix(args[1], "https://") || strings.HasPrefix(args[1], "http://"); isURL && len(args) == 2 {
		req.URL = args[1]
	} else {
		req.Command, req.Args = args[1], args[2:]
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.AddMCPServer(ctx, req) //nolint:wrapcheck // a fault
}

// pairs takes NAME=VALUE apart.
func pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, one := range list {
		name, value, ok := strings.Cut(one, "=")
		if !ok || name == "" {
			return nil, fault.New(fault.Invalid, "%.60q is not of the form NAME=VALUE", one)
		}
		out[name] = value
	}
	return out, nil
}

func (s *session) mcpRemove(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.RemoveMCPServer(ctx, args[0]) //nolint:wrapcheck // a fault
}

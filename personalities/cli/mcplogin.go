package cli

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/mcp/login"
)

// mcpLoginVerbs are the commands that sign in to servers.
func (s *session) mcpLoginVerbs() []*cli.Command {
	return []*cli.Command{
		{
			Name: "login", Usage: "sign in to a server behind a URL", UsageText: "mcp login [flags] SERVER",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "open", Usage: "open the browser too; other users of this machine can then see the address"},
				&cli.StringFlag{Name: "client-id", Usage: "the `ID` of a client that you have registered; without one capsem registers itself"},
				&cli.BoolFlag{Name: "client-secret", Usage: "that client has a secret: it is read from standard input, or asked for"},
				&cli.IntFlag{Name: "port", Usage: "the `PORT` of 127.0.0.1 that the browser comes back to, where the client is bound to one"},
			},
			Description: "Prints an address at which you agree in a browser of this machine, waits for that, and keeps what it gets sealed. It is renewed by\n" +
				"itself, goes to that server only, and is never in a VM.",
			Action: action(s.mcpLogin),
		},
		{
			Name: "logout", Usage: "the reverse of login", UsageText: "mcp logout SERVER",
			Description: "Forgets a sign-in. The server is not told.", Action: action(s.mcpLogout),
		},
	}
}

func (s *session) mcpLogin(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	if c.Int("port") < 0 || c.Int("port") > 65535 {
		return fault.New(fault.OutOfRange, "--port is %d; a port is at most 65535", c.Int("port"))
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	target, err := urlOf(ctx, svc, args[0])
	if err != nil {
		return err
	}
	cfg := &login.Config{URL: target, ClientID: c.String("client-id"), Port: uint16(c.Int("port")), Show: s.showAddress(c.Bool("open"))} //nolint:gosec // checked above
	if c.Bool("client-secret") {
		if cfg.ClientID == "" {
			return fault.New(fault.Invalid, "--client-secret needs --client-id")
		}
		if cfg.ClientSecret, err = s.readSecret("secret of the client: "); err != nil {
			return err
		}
	}
	g, err := login.Do(ctx, cfg)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	req := &api.MCPLoginRequest{
		URL: target, Access: g.Access, Refresh: g.Refresh, TokenURL: g.TokenURL, ClientID: g.ClientID, ClientSecret: g.ClientSecret, Basic: g.Basic, Resource: g.Resource,
	}
	if !g.Expires.IsZero() {
		req.Expires = g.Expires.UTC().Format(time.RFC3339)
	}
	if err := svc.SetMCPLogin(ctx, args[0], req); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	text := "signed in to " + clean(args[0]) + "\n"
	if g.Refresh == "" && req.Expires != "" {
		text += "it ends at " + req.Expires + ", and has to be done again then: there is nothing to renew it with\n"
	}
	return s.print(text)
}

// urlOf is the URL of a server of the settings.
func urlOf(ctx context.Context, svc *client.Client, name string) (string, error) {
	reply, err := svc.MCPServers(ctx)
	if err != nil {
		return "", err //nolint:wrapcheck // a fault
	}
	for _, one := range reply.Servers {
		if one.Name != name {
			continue
		}
		if one.Transport == "stdio" {
			return "", fault.New(fault.Invalid, "MCP server %s is a program; one signs in to those behind a URL", name)
		}
		return one.Target, nil
	}
	return "", fault.New(fault.NotFound, "there is no MCP server %.60q", name).WithHint("capsem mcp servers")
}

// showAddress shows where to agree.
func (s *session) showAddress(open bool) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		address = strings.TrimSpace(clean(address))
		fmt.Fprintf(s.env.Stderr, "Open this in a browser of this machine, and agree:\n%s\n", address)
		if !open {
			return nil
		}
		cmd := exec.CommandContext(ctx, browserOpener, address)
		if err := cmd.Start(); err != nil {
			return nil //nolint:nilerr // the owner has the address
		}
		go func() { _ = cmd.Wait() }() // ends with ctx at the latest
		return nil
	}
}

func (s *session) mcpLogout(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.RemoveMCPLogin(ctx, args[0]) //nolint:wrapcheck // a fault
}

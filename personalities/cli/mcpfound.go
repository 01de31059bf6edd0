package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/mcp/clients"
)

// foundServer is a server of an agent's settings, without what may be secret of it.
type foundServer struct {
	Name      string   `json:"name"`
	Client    string   `json:"client"`
	Path      string   `json:"path"`
	Project   string   `json:"project,omitempty"`
	Transport string   `json:"transport"`
	Program   string   `json:"program,omitempty"`
	Arguments int      `json:"arguments,omitempty"`
	Secrets   []string `json:"secrets,omitempty"`
	Disabled  bool     `json:"disabled,omitempty"`
	// Accept is the command that lets VMs use it; Why says why there is none.
	Accept string `json:"accept,omitempty"`
	Why    string `json:"why,omitempty"`
}

// mcpDetected lists what the user's agents have configured, as proposals.
func (s *session) mcpDetected(ctx context.Context, c *cli.Context) error {
	home := s.env.Getenv("HOME")
	if home == "" {
		return fault.New(fault.Invalid, "HOME is not set, so the settings of agents cannot be found")
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.MCPServers(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	known := map[string]bool{}
	for _, one := range reply.Servers {
		known[one.Name] = true
	}
	found, problems := clients.Detect(home)
	out := []foundServer{}
	for i := range found {
		if f := describeFound(&found[i]); !known[f.Name] {
			out = append(out, f)
		}
	}
	if c.Bool("json") {
		return s.printJSON(map[string]any{"found": out})
	}
	var b strings.Builder
	for i := range out {
		out[i].write(&b)
	}
	for _, p := range problems {
		b.WriteString(clean(p.String()) + "\n")
	}
	if b.Len() == 0 {
		b.WriteString("nothing that VMs may not use already\n")
	}
	return s.print(b.String())
}

func describeFound(f *clients.Found) foundServer {
	out := foundServer{
		Name: f.Name, Client: string(f.Client), Path: f.Path, Project: f.Project, Transport: f.Transport(), Program: f.Command, Arguments: len(f.Args), Disabled: f.Disabled,
	}
	p, err := f.Propose(f.Name)
	if err != nil && mcp.ValidServer(f.Name) != nil {
		p, err = f.Propose("other")
		out.Accept = " NEW-NAME"
	}
	if err != nil {
		out.Accept, out.Why = "", fault.Line(err)
		return out
	}
	for _, one := range p.Secrets {
		out.Secrets = append(out.Secrets, one.Of)
	}
	out.Accept = "capsem mcp add --from " + out.Client + " " + shellWord(f.Name) + out.Accept
	if f.Project != "" {
		out.Accept = "capsem mcp add --project " + shellWord(f.Project) + " --from " + out.Client + " " + shellWord(f.Name)
	}
	return out
}

// shellWord is a text as one word for a shell.
func shellWord(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@:", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (f *foundServer) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s  %s  %s", clean(f.Name), clean(f.Client), clean(f.Transport))
	if f.Program != "" {
		fmt.Fprintf(b, "  %s (%d arguments)", clean(f.Program), f.Arguments)
	}
	if f.Disabled {
		b.WriteString("  (off there)")
	}
	if len(f.Secrets) > 0 {
		b.WriteString("\n    to be kept as secrets: " + clean(strings.Join(f.Secrets, ", ")))
	}
	if f.Accept != "" {
		b.WriteString("\n    " + clean(f.Accept))
	} else {
		b.WriteString("\n    cannot be taken over: " + clean(f.Why))
	}
	b.WriteByte('\n')
}

// mcpAddFound takes over a server that an agent has configured. What is secret of it goes into the sealed store.
func (s *session) mcpAddFound(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 2)
	if err != nil {
		return err
	}
	f, err := s.foundOne(c, args[0])
	if err != nil {
		return err
	}
	p, err := f.Propose(args[len(args)-1])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	d := &p.Definition
	req := &api.MCPAddRequest{
		Name: d.Name, Command: d.Command, Args: d.Args, Env: d.Env, URL: d.URL, SSE: d.SSE, Headers: d.Headers,
		Read: c.StringSlice("read"), Write: c.StringSlice("write"), Network: c.Bool("network"), Private: c.Bool("private"),
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.MCPServers(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	for _, one := range reply.Servers { // before its secrets are replaced
		if one.Name == d.Name {
			return fault.New(fault.Conflict, "there is an MCP server %s already", d.Name).WithHint("capsem mcp remove %s, or give another name: capsem mcp add --from AGENT NAME NEW-NAME", d.Name)
		}
	}
	stored, err := s.storeProposed(ctx, svc, p.Secrets)
	if err == nil {
		err = svc.AddMCPServer(ctx, req)
	}
	if err != nil {
		for _, name := range stored { // nothing refers to them
			_ = svc.RemoveSecret(context.WithoutCancel(ctx), name)
		}
		return err //nolint:wrapcheck // a fault
	}
	var b strings.Builder
	b.WriteString("added " + clean(d.Name) + "; its tools wait for capsem mcp approve\n")
	for _, name := range stored {
		b.WriteString("stored the secret " + clean(name) + "\n")
	}
	for _, lost := range p.Lost {
		b.WriteString("not taken over: " + clean(lost) + "\n")
	}
	if d.Command != "" && !req.Network {
		b.WriteString("it cannot open connections; if it has to: --network\n")
	}
	return s.print(b.String())
}

// foundOne finds one in the settings of an agent.
func (s *session) foundOne(c *cli.Context, name string) (*clients.Found, error) {
	client, err := clients.Parse(c.String("from"))
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	found, _ := clients.Detect(s.env.Getenv("HOME"))
	var fits []*clients.Found
	for i := range found {
		f := &found[i]
		if f.Client == client && f.Name == name && (!c.IsSet("project") || f.Project == c.String("project")) {
			fits = append(fits, f)
		}
	}
	switch {
	case len(fits) == 0:
		return nil, fault.New(fault.NotFound, "%s has no MCP server %.80q", client.Title(), name).WithHint("capsem mcp servers --detected")
	case len(fits) > 1 && fits[0].Project != "":
		return nil, fault.New(fault.Conflict, "%s has several MCP servers %.80q", client.Title(), name).WithHint("say which with --project DIRECTORY")
	}
	return fits[0], nil
}

// storeProposed puts the secrets of a proposal into the store; those that the settings do not have are asked for.
func (s *session) storeProposed(ctx context.Context, svc *client.Client, secrets []clients.ProposedSecret) (stored []string, err error) {
	for _, one := range secrets {
		value := one.Value
		if value == "" && one.Variable != "" {
			value = s.env.Getenv(one.Variable)
		}
		if value == "" {
			if !isTerminal(s.env.Stdin) {
				return stored, fault.New(fault.Invalid, "the settings do not have the value of %.80s", one.Of).WithHint("run this in a terminal, to be asked for it")
			}
			if value, err = s.readSecret("value of " + clean(one.Of) + ": "); err != nil {
				return stored, err
			}
		}
		if _, err := svc.SetSecret(ctx, one.Name, api.SecretRequest{Kind: credential.ForServers, Value: value}); err != nil {
			return stored, err //nolint:wrapcheck // a fault
		}
		stored = append(stored, one.Name)
	}
	return stored, nil
}

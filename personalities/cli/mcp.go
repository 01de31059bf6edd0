package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
	"capsem/core/mcp/clients"
)

func (s *session) mcpCommand() *cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "without being asked"}
	return &cli.Command{
		Name: "mcp", Category: groupRecords, Usage: "for agents", UsageText: "mcp [--owner] | mcp COMMAND ...",
		Description: "Without a command, capsem mcp is an MCP server on its standard input and output, with which an agent makes and uses VMs. With\n" +
			"--owner it may answer the questions of VMs too, add rules, set budgets and keep secrets, which an agent should not do for you.",
		Subcommands: append(append(s.mcpServerVerbs(), s.mcpLoginVerbs()...), []*cli.Command{
			{
				Name: "install", Usage: "let an agent use capsem", UsageText: "mcp install [-y] claude|codex|gemini|cursor|vscode",
				Flags: []cli.Flag{yes, &cli.BoolFlag{Name: "owner", Usage: "with the tools that decide for you"}},
				Description: "Adds capsem to the MCP servers of an agent or editor: shows what changes in its settings, asks, and keeps a copy of them. Settings\n" +
					"that cannot be understood are left alone.",
				Action: action(s.mcpInstall),
			},
			{
				Name: "uninstall", Usage: "the reverse of install", UsageText: "mcp uninstall [-y] claude|codex|gemini|cursor|vscode",
				Flags:       []cli.Flag{yes},
				Description: "Takes capsem out of the MCP servers of an agent or editor, in the same way.",
				Action:      action(s.mcpUninstall),
			},
		}...),
	}
}

func (s *session) mcpInstall(ctx context.Context, c *cli.Context) error {
	home, client, err := s.mcpClient(c)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	server := clients.Server{Command: program, Args: []string{"mcp"}}
	if c.Bool("owner") {
		server.Args = append(server.Args, "--owner")
	}
	if dir := s.env.Getenv("CAPSEM_HOME"); dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("find CAPSEM_HOME: %w", err)
		}
		server.Env = map[string]string{"CAPSEM_HOME": dir}
	}
	change, err := clients.PlanInstall(home, client, server)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.changeSettings(ctx, c, change, "capsem is in "+change.Path+" already\n", "added capsem to "+change.Path+"; start "+client.Title()+" again to use it\n")
}

func (s *session) mcpUninstall(ctx context.Context, c *cli.Context) error {
	home, client, err := s.mcpClient(c)
	if err != nil {
		return err
	}
	change, err := clients.PlanUninstall(home, client)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.changeSettings(ctx, c, change, "capsem is not in "+change.Path+"\n", "removed capsem from "+change.Path+"\n")
}

// mcpClient is whose settings are meant.
func (s *session) mcpClient(c *cli.Context) (home string, client clients.Client, err error) {
	args, err := words(c, 1, 1)
	if err != nil {
		return "", "", err
	}
	if client, err = clients.Parse(args[0]); err != nil {
		return "", "", err //nolint:wrapcheck // a fault
	}
	if home = s.env.Getenv("HOME"); home == "" {
		return "", "", fault.New(fault.Invalid, "HOME is not set, so the settings of %s cannot be found", client.Title())
	}
	return home, client, nil
}

// changeSettings shows an edit, asks, and makes it.
func (s *session) changeSettings(ctx context.Context, c *cli.Context, change *clients.Change, already, done string) error {
	if !change.Needed() {
		return s.print(already)
	}
	diff, err := change.Diff()
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := s.print(plainLines(diff)); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if ok, err := s.agreed("Change " + change.Path + " like this?"); err != nil || !ok {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err //nolint:wrapcheck // the user's own doing
	}
	backup, err := change.Apply()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if backup != "" {
		done += "what was there before is in " + backup + "\n"
	}
	return s.print(done)
}

// plainLines is a text of several lines that may hold anything, for a terminal.
func plainLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		lead := line[:len(line)-len(strings.TrimLeft(line, "+- \t"))]
		b.WriteString(lead + clean(strings.TrimRight(line[len(lead):], "\r\n")) + "\n")
	}
	return b.String()
}

// agreed asks y/N. Without a terminal nobody can answer, so -y is asked for instead.
func (s *session) agreed(question string) (bool, error) {
	if !isTerminal(s.env.Stdin) {
		return false, fault.New(fault.Invalid, "nothing was changed").WithHint("add -y to change it without being asked")
	}
	fmt.Fprintf(s.env.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(s.env.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	fmt.Fprintln(s.env.Stderr, "capsem: nothing was changed")
	return false, nil
}

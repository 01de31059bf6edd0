package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/credential"
	"capsem/core/fault"
)

// maxSecretInput bounds what is read as a secret.
const maxSecretInput = 64 << 10

func (s *session) secretCommand() *cli.Command {
	return &cli.Command{
		Name: "secret", Aliases: []string{"secrets"}, Category: groupRecords, Usage: "keys that VMs use without having them",
		Description: "Secrets are kept sealed on this machine. A VM gets a placeholder that looks like the real one; what it sends to the hosts that the\n" +
			"secret is bound to carries the real value, and to any other host nothing is sent that has a placeholder in it.",
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "store a secret", UsageText: "secret set [flags] NAME",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "kind", Usage: "whose it is: `KIND` is " + strings.Join(credential.Kinds(), ", ") + "; told by the value when left out"},
					&cli.BoolFlag{Name: "sign-in", Usage: "the value is the file in which claude, codex or gemini keeps its sign-in"},
					&cli.StringFlag{Name: "user", Usage: "it is the password of `USER`"},
					&cli.StringSliceFlag{Name: "host", Usage: "it may go to `HOST` (*.HOST is one name below it); again for more"},
					&cli.StringSliceFlag{Name: "in", Usage: "put it into `PLACE`: header, header:NAME, basic, query:NAME, json:NAME; again for more"},
					&cli.StringSliceFlag{Name: "env", Usage: "the variable `NAME` of commands in VMs has its placeholder; again for more"},
					jsonFlag(),
				},
				Description: "Reads the value from standard input, or asks for it without showing it. It is never given as an argument. VMs that run have the new\n" +
					"placeholder in commands that are started later.",
				Action: action(s.secretSet),
			},
			{
				Name: "list", Usage: "the stored secrets, without their values", UsageText: "secret list [--json]", Flags: []cli.Flag{jsonFlag()},
				Action: show(s, 0, 0, func(ctx context.Context, svc *client.Client, _ []string) (api.SecretsReply, error) {
					return svc.Secrets(ctx)
				}, secretTable),
			},
			{Name: "rm", Usage: "remove a secret", UsageText: "secret rm NAME", Action: action(s.secretRemove)},
			{
				Name: "test", Usage: "ask its provider whether a secret is good", UsageText: "secret test [--json] NAME", Flags: []cli.Flag{jsonFlag()},
				Action: action(s.secretTest),
			},
		},
	}
}

func (s *session) secretSet(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	if err := credential.CheckName(args[0]); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	value, err := s.readSecret("value of " + args[0] + ": ")
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.SetSecret(ctx, args[0], api.SecretRequest{
		Kind: c.String("kind"), Value: value, SignIn: c.Bool("sign-in"), User: c.String("user"),
		Hosts: c.StringSlice("host"), Places: c.StringSlice("in"), Env: c.StringSlice("env"),
	})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	where := strings.Join(reply.Hosts, ", ")
	if where == "" {
		where = "MCP servers (secret:" + reply.Name + ")"
	}
	text := fmt.Sprintf("%s: %s, for %s\n", clean(reply.Name), clean(reply.Kind), clean(where))
	if reply.Note != "" {
		text += clean(reply.Note) + "\n"
	}
	return s.print(text)
}

// readSecret reads a secret from standard input; at a terminal it asks, and shows nothing of what is typed.
func (s *session) readSecret(prompt string) (string, error) {
	if f, ok := s.env.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if _, err := io.WriteString(s.env.Stderr, prompt); err != nil {
			return "", fault.Wrap(err, fault.Internal, "cannot ask for the secret")
		}
		text, err := term.ReadPassword(int(f.Fd()))
		_, _ = io.WriteString(s.env.Stderr, "\n")
		if err != nil {
			return "", fault.Wrap(err, fault.Internal, "cannot read the secret")
		}
		return checkSecret(text)
	}
	text, err := io.ReadAll(io.LimitReader(s.env.Stdin, maxSecretInput+1))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fault.Wrap(err, fault.Internal, "cannot read the secret from standard input")
	}
	return checkSecret(text)
}

func checkSecret(text []byte) (string, error) {
	if len(text) > maxSecretInput {
		return "", fault.New(fault.TooLarge, "the secret is longer than %d bytes", maxSecretInput)
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		return "", fault.New(fault.Invalid, "there is no secret on standard input").WithHint("such as: capsem secret set NAME < FILE")
	}
	return value, nil
}

func secretTable(_ *cli.Context, reply api.SecretsReply) string {
	t := newTable("NAME", "KIND", "FORM", "HOSTS", "PUT INTO", "VARIABLES", "EXPIRES")
	for _, e := range reply.Secrets {
		t.row(e.Name, e.Kind, e.Form, strings.Join(e.Hosts, ","), strings.Join(e.Places, ","), strings.Join(e.Env, ","), e.Expires)
	}
	var b strings.Builder
	b.WriteString(t.String())
	for _, e := range reply.Secrets {
		if e.Note != "" {
			b.WriteString(clean(e.Name) + ": " + clean(e.Note) + "\n")
		}
	}
	if len(reply.Presets) > 0 {
		b.WriteString("these open in the policy: " + clean(strings.Join(reply.Presets, ", ")) + " (capsem policy presets NAME shows one)\n")
	}
	return b.String()
}

func (s *session) secretRemove(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.RemoveSecret(ctx, args[0]) //nolint:wrapcheck // a fault
}

func (s *session) secretTest(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.TestSecret(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		err = s.printJSON(reply)
	} else {
		err = s.print(clean(reply.Detail) + "\n")
	}
	if err == nil && !reply.Good {
		return &fault.Exit{Status: fault.ExitFailure}
	}
	return err
}

package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/proto"
)

// commandFlags are the flags of run and exec.
func commandFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal (-t=false: never)"},
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "pass input on even from a terminal without -t"},
		&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "run in `DIR`"},
		envFlag(),
		&cli.StringFlag{Name: "timeout", Usage: "end the command after `TIME` (seconds, 5m, 2h)"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "print the job's id and leave the command running"},
	}
}

func (s *session) execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", Category: groupSessions, Usage: "a command in a VM", Flags: commandFlags(),
		UsageText: "exec VM [flags] 'COMMAND' | VM [flags] -- PROGRAM ARG...",
		Description: "Runs a command in a running VM and exits with its code. One word is run by bash -c; several, or what follows --,\n" +
			"are the program and its arguments. Input that is no terminal is passed on: tar c . | capsem exec VM -- tar x",
		Action: func(c *cli.Context) error { return s.exec(c.Context, c) },
	}
}

func (s *session) exec(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, -1)
	if err != nil {
		return err
	}
	req, err := s.execRequest(c, args[1:])
	if err != nil {
		return err
	}
	sig := watchSignals(ctx)
	defer sig.stop()
	svc, err := s.service(sig.ctx)
	if err != nil {
		return sig.explain(err)
	}
	if req.Detach {
		reply, err := svc.Exec(sig.ctx, args[0], req)
		if err != nil {
			return sig.explain(err)
		}
		return s.print(reply.Job + "\n")
	}
	return s.follow(ctx, svc, args[0], req, sig)
}

// execRequest reads the flags and words of run and exec.
func (s *session) execRequest(c *cli.Context, guest []string) (api.ExecRequest, error) {
	req := api.ExecRequest{Dir: c.String("workdir"), Detach: c.Bool("detach")}
	if len(guest) == 1 && !s.dashed {
		req.Command = guest[0]
	} else {
		req.Argv = guest
	}
	var err error
	if req.TimeoutSecs, err = parseTimeout(c.String("timeout")); err != nil {
		return req, err
	}
	if req.Env, err = s.environment(c); err != nil {
		return req, err
	}
	input, output := isTerminal(s.env.Stdin), isTerminal(s.env.Stdout)
	terminal := input && output
	if c.IsSet("tty") {
		terminal = c.Bool("tty")
	}
	if terminal && !req.Detach {
		size := windowSize(s.env.Stdout, s.env.Stdin)
		req.PTY = &size
	}
	req.Stdin = !req.Detach && (terminal || !input || c.Bool("interactive"))
	check := proto.ExecRequest{Command: req.Command, Argv: req.Argv, Dir: req.Dir, Env: req.Env}
	if err := check.Validate(); err != nil {
		return req, fault.New(fault.Invalid, "%s", err)
	}
	if req.PTY != nil {
		req.Env = withTerm(req.Env, s.env.Getenv("TERM"))
	}
	return req, nil
}

// withTerm tells a command on a terminal what kind it is, unless the user did.
func withTerm(env map[string]string, term string) map[string]string {
	if _, set := env["TERM"]; set || term == "" {
		return env
	}
	if env == nil {
		env = map[string]string{}
	}
	env["TERM"] = term
	return env
}

// follow runs a command attached to the user's streams; its result is the command's exit code.
func (s *session) follow(ctx context.Context, svc *client.Client, id string, req api.ExecRequest, sig *signals) error {
	stream, err := svc.ExecStream(sig.ctx, id, req)
	if err != nil {
		return sig.explain(err)
	}
	b := &bridge{conn: stream, stdout: s.env.Stdout, stderr: s.env.Stderr, signals: sig.take()}
	out, err := s.join(ctx, b, req.Stdin, req.PTY != nil)
	if err != nil {
		return err
	}
	return commandResult(out.exit)
}

// join runs a bridge with the user's input, in raw mode when the command has a terminal.
func (s *session) join(ctx context.Context, b *bridge, stdin, raw bool) (outcome, error) {
	b.restore = func() {}
	b.size = func() proto.WindowSize { return windowSize(s.env.Stdout, s.env.Stdin) }
	if stdin {
		in, err := newInput(s.env.Stdin)
		if err != nil {
			b.hangUp()
			return outcome{}, err
		}
		defer in.close()
		b.stdin = in
	}
	if raw {
		restore, err := rawMode(s.env.Stdin)
		if err != nil {
			b.hangUp()
			return outcome{}, err
		}
		defer restore()
		b.restore = restore
	}
	return b.run(ctx)
}

// commandResult turns the end of a command into an exit code, with a word where the guest had none.
func commandResult(exit proto.ExitStatus) error {
	if exit.Code == 0 && exit.Error == "" {
		return nil
	}
	result := &fault.Exit{Status: exit.Code & 0xff}
	switch {
	case exit.TimedOut:
		result.Err = fault.New(fault.Timeout, "the command was ended after %.3g s", float64(exit.DurationUS)/1e6).
			WithHint("give it more with --timeout")
	case exit.Error != "":
		result.Err = fault.New(fault.Invalid, "%s", exit.Error)
	}
	if result.Status == 0 && result.Err != nil {
		result.Status = fault.ExitCapsem
	}
	return result
}

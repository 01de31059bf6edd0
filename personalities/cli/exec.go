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
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal even when you are on none (-t=false: never)"},
		&cli.BoolFlag{
			Name: "interactive", Aliases: []string{"i"},
			Usage: "pass input on even from a terminal when the command has none (-i=false: never)",
		},
		&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "run in `DIR`"},
		envFlag(),
		&cli.StringFlag{Name: "timeout", Usage: "end the command after `TIME` (seconds, or 90s, 5m, 2h) and exit with 124"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "print the job's id and leave the command running"},
	}
}

// exitTimedOut is the exit code of a command that was ended by its time limit, as timeout(1) has it.
const exitTimedOut = 124

// codesHelp is the same for run and exec.
const codesHelp = "Exit codes: the command's own; 128 and the signal's number when a signal ended it; 124 when --timeout did; 125 when\n" +
	"capsem itself failed; 126 and 127 when there is no such program to run."

func (s *session) execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", Category: groupSessions, Usage: "a command in a VM", Flags: commandFlags(),
		UsageText: "exec VM [flags] 'COMMAND' | VM [flags] -- PROGRAM ARG...",
		Description: "Runs a command in a running VM and exits with its code. One word is run by bash -c; several, or what follows --,\n" +
			"are the program and its arguments. Input that is no terminal is passed on: tar c . | capsem exec VM -- tar x\n\n" + codesHelp,
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
	req.Stdin = terminal || !input
	if c.IsSet("interactive") {
		req.Stdin = c.Bool("interactive")
	}
	req.Stdin = req.Stdin && !req.Detach
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
	// Without input nobody would see Ctrl-C in raw mode: the terminal then makes signals of it, which are passed on.
	out, err := s.join(ctx, b, req.Stdin, req.PTY != nil && req.Stdin)
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
	if exit.TimedOut {
		return &fault.Exit{Status: exitTimedOut, Err: fault.New(fault.Timeout, "the command was ended after %.3g s", float64(exit.DurationUS)/1e6).
			WithHint("give it more with --timeout")}
	}
	if exit.Code == 0 && exit.Error == "" {
		return nil
	}
	result := &fault.Exit{Status: exit.Code & 0xff}
	if exit.Error != "" {
		result.Err = fault.New(fault.Invalid, "%s", exit.Error)
	}
	if result.Status == 0 && result.Err != nil {
		result.Status = fault.ExitCapsem
	}
	return result
}

// Package cli is the command line: one file a verb, each parse, call, print. Everything a verb does to a VM goes through the
// service's local API; only a terminal's bytes go to the worker itself.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/paths"
)

// session is one run of the command line.
type session struct {
	env entry.Env
	// dashed says that the guest's words came after a "--".
	dashed bool
}

// Run is the command line personality.
func Run(ctx context.Context, env entry.Env) error {
	s := &session{env: env}
	commands := s.commands()
	a, err := arrange(commands, env.Args)
	if err != nil {
		return asVerb(a.cmd, err)
	}
	if a.help {
		return s.help(commands, a.cmd)
	}
	s.dashed = a.dashed
	return asVerb(a.cmd, s.app(commands).RunContext(ctx, append([]string{"capsem"}, a.words...)))
}

// asVerb gives capsem's own failures in run and exec the code that no guest command can be mistaken for.
func asVerb(cmd *cli.Command, err error) error {
	if err == nil || cmd == nil || guestAfter(cmd) < 0 {
		return err
	}
	if _, theirs := errors.AsType[*fault.Exit](err); theirs || fault.ExitCode(err) != fault.ExitFailure {
		return err // the guest's own code, also when it is 1
	}
	return &fault.Exit{Status: fault.ExitCapsem, Err: err}
}

// app wraps the commands for urfave/cli with its own printing and exiting turned off: errors are returned, and main prints them.
func (s *session) app(commands []*cli.Command) *cli.App {
	usage := func(c *cli.Context, err error, _ bool) error { return s.usageFault(c.Command, err) }
	quiet(commands, usage)
	return &cli.App{
		Name: "capsem", HideHelp: true, HideVersion: true, Commands: commands,
		Reader: s.env.Stdin, Writer: s.env.Stdout, ErrWriter: s.env.Stderr,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usage,
		DisableSliceFlagSeparator: true,
		Flags:                     []cli.Flag{&cli.BoolFlag{Name: "version"}},
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return s.version(c.Context, c)
			}
			return unknownCommand(commands, "", c.Args().First())
		},
	}
}

// quiet sets on every command what urfave/cli does not inherit.
func quiet(commands []*cli.Command, usage cli.OnUsageErrorFunc) {
	for _, c := range commands {
		c.HideHelp, c.OnUsageError = true, usage
		quiet(c.Subcommands, usage)
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = func(ctx *cli.Context) error {
				if ctx.Args().Len() == 0 {
					return fault.New(fault.Invalid, "capsem %s needs a command", c.Name).WithHint("see capsem help %s", c.Name)
				}
				return unknownCommand(c.Subcommands, c.Name, ctx.Args().First())
			}
		}
	}
}

// What package flag says of a value and of a flag: it names flags with one dash, whatever the user wrote.
var (
	badValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value (".*") for (?:flag )?-([^:]+): `)
	badFlag  = regexp.MustCompile(`(?s)^(?:flag provided but not defined|flag needs an argument): -(.*)$`)
)

// usageFault words what package flag says of the command line as everything else here does, with flags as they were written.
func (s *session) usageFault(cmd *cli.Command, err error) error {
	path, text := "", err.Error()
	if cmd != nil && cmd.UsageText != "" {
		path = " " + pathOf(cmd)
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("capsem%s: %s is no value for %s", path, m[1], s.asWritten(m[2]))
	} else if m := badFlag.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("capsem%s has no flag %s", path, s.asWritten(m[1]))
	}
	return fault.New(fault.Invalid, "%s", text).WithHint("see capsem help%s", path)
}

// asWritten is a flag with the dashes that the user gave it.
func (s *session) asWritten(name string) string {
	for _, word := range s.env.Args {
		if word, _, _ = strings.Cut(word, "="); strings.TrimLeft(word, "-") == name && looksLikeFlag(word) {
			return word
		}
	}
	return dashes(name)
}

// verb is what one command does.
type verb func(ctx context.Context, c *cli.Context) error

// action makes a verb that ends when the user interrupts it.
func action(v verb) cli.ActionFunc {
	return func(c *cli.Context) error {
		ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		err := v(ctx, c)
		if err != nil && ctx.Err() != nil {
			return &fault.Exit{Status: fault.ExitInterrupted}
		}
		return err
	}
}

// words checks the number of arguments of a verb; most is -1 for any number.
func words(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	if len(args) >= least && (most < 0 || len(args) <= most) {
		if slices.Contains(args[:min(namedVMs(c.Command), len(args))], "") {
			return nil, fault.New(fault.Invalid, "the VM's name is empty").WithHint("capsem list shows the VMs")
		}
		return args, nil
	}
	what := "too few arguments"
	if len(args) > least {
		what = "too many arguments"
	}
	return nil, fault.New(fault.Invalid, "capsem %s: %s", pathOf(c.Command), what).WithHint("usage: %s", usageOf(c.Command))
}

// namedVMs is how many of a verb's arguments, from the first on, are VMs.
func namedVMs(cmd *cli.Command) int {
	for word := range strings.FieldsSeq(cmd.UsageText) {
		switch word {
		case "VM", "[VM]":
			return 1
		case "VM...":
			return math.MaxInt
		}
	}
	return 0
}

// home is CAPSEM_HOME.
func (s *session) home() (paths.Home, error) {
	home, err := paths.Resolve(s.env.Getenv)
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "neither CAPSEM_HOME nor HOME is set").WithHint("set CAPSEM_HOME to a directory of your own")
	}
	return home, nil
}

// print writes text to standard output; a failure to do so is an error, never silence.
func (s *session) print(text string) error {
	if _, err := io.WriteString(s.env.Stdout, text); err != nil {
		return fault.Wrap(err, fault.Internal, "cannot write the output: %s", err)
	}
	return nil
}

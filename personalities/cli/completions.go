package cli

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
)

// scripts ask capsem itself for the words that may come next, so they never go stale.
var scripts = map[string]string{
	"bash": `_capsem() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=($(compgen -W "$(capsem __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$cur"))
}
complete -o default -F _capsem capsem
`,
	"zsh": `#compdef capsem
_capsem() {
  local -a candidates
  candidates=(${(f)"$(capsem __complete "${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
  compadd -a candidates
  _files
}
if [ "$funcstack[1]" = "_capsem" ]; then
  _capsem "$@"
else
  compdef _capsem capsem
fi
`,
	"fish": `function __capsem_complete
  set -l words (commandline -opc)
  capsem __complete $words[2..-1] 2>/dev/null
end
complete -c capsem -a '(__capsem_complete)'
`,
}

func (s *session) completionsCommand() *cli.Command {
	return &cli.Command{
		Name: "completions", Category: groupService, Usage: "for bash, zsh or fish", UsageText: "completions bash|zsh|fish",
		Description: "Prints a script that completes capsem's commands, flags and VMs. For bash: source <(capsem completions bash)",
		Action: func(c *cli.Context) error {
			args, err := words(c, 1, 1)
			if err != nil {
				return err
			}
			script, ok := scripts[args[0]]
			if !ok {
				return fault.New(fault.Invalid, "no completions for %.40q", args[0]).WithHint("choose bash, zsh or fish")
			}
			return s.print(script)
		},
	}
}

// completePatience bounds how long a press of Tab may wait for the service.
const completePatience = 300 * time.Millisecond

// completeCommand prints the words that may come after the words given. It never starts the service.
func (s *session) completeCommand() *cli.Command {
	return &cli.Command{
		Name: "__complete", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			return s.print(strings.Join(s.candidates(c.Context, c.App.Commands, c.Args().Slice()), "\n") + "\n")
		},
	}
}

func (s *session) candidates(ctx context.Context, commands []*cli.Command, before []string) []string {
	var cmd *cli.Command
	for len(before) > 0 {
		next := findCommand(commands, before[0])
		if next == nil {
			break
		}
		cmd, commands, before = next, next.Subcommands, before[1:]
	}
	var out []string
	for _, c := range commands {
		if !c.Hidden {
			out = append(out, c.Name)
		}
	}
	if cmd == nil {
		return out
	}
	for _, f := range cmd.Flags {
		for _, name := range f.Names() {
			out = append(out, dashes(name))
		}
	}
	if strings.Contains(cmd.UsageText, "VM") {
		out = append(out, s.vmNames(ctx, cmd.Name == "cp")...)
	}
	return out
}

// vmNames asks a running service for its VMs; with colon as the beginning of VM:PATH.
func (s *session) vmNames(ctx context.Context, colon bool) []string {
	svc, err := s.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completePatience)
	defer cancel()
	list, err := svc.List(ctx)
	if err != nil {
		return nil // nothing to complete
	}
	names := make([]string, 0, len(list.Sandboxes))
	for _, vm := range list.Sandboxes {
		name := vm.ID
		if colon {
			name += ":"
		}
		names = append(names, name)
	}
	return names
}

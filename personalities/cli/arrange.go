package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
)

// urfave/cli stops reading flags at the first argument. Here flags may stand anywhere ("capsem delete dev --json"), except
// after the words that belong to the guest ("capsem exec dev -t ls -l": -t is ours, -l the guest's).

// arranged is a command line with its flags moved to the front.
type arranged struct {
	// words is what urfave/cli gets; cmd the command they name, nil when unknown or missing.
	words []string
	cmd   *cli.Command
	// dashed says that the guest's words follow a "--", so they are argv even when there is only one.
	dashed bool
	// help says that the user asked for help.
	help bool
}

// guestAfter is the number of arguments of ours before the guest's own words begin.
func guestAfter(cmd *cli.Command) int {
	switch cmd.Name {
	case "run":
		return 0
	case "exec":
		return 1
	}
	return -1
}

// arrange finds the command and moves its flags in front of its arguments.
func arrange(commands []*cli.Command, args []string) (arranged, error) {
	a := arranged{}
	for len(args) > 0 {
		next := findCommand(commands, args[0])
		if next == nil {
			break
		}
		a.cmd, commands = next, next.Subcommands
		a.words, args = append(a.words, args[0]), args[1:]
	}
	if a.cmd == nil {
		a.words = args
		a.help = len(args) == 0 || isHelp(args[0])
		return a, nil
	}
	if a.cmd.SkipFlagParsing {
		a.words = append(a.words, args...)
		return a, nil
	}
	flags, rest, err := a.split(args)
	if err != nil || a.help {
		return a, err
	}
	a.words = append(a.words, flags...)
	if len(a.cmd.Subcommands) == 0 {
		a.words = append(a.words, "--")
	}
	a.words = append(a.words, rest...)
	return a, nil
}

func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func isHelp(word string) bool { return word == "-h" || word == "--help" || word == "-help" }

// split parts the words after the command into flags, with their values, and arguments.
func (a *arranged) split(args []string) (flags, rest []string, err error) {
	limit := guestAfter(a.cmd)
	for i := 0; i < len(args); i++ {
		word := args[i]
		switch {
		case word == "--":
			a.dashed = true
			return flags, append(rest, args[i+1:]...), nil
		case limit >= 0 && len(rest) == limit && !looksLikeFlag(word):
			return flags, append(rest, args[i:]...), nil
		case !looksLikeFlag(word):
			rest = append(rest, word)
			continue
		case isHelp(word):
			a.help = true
			return nil, nil, nil
		}
		parts, takesNext, err := a.flag(word)
		if err != nil {
			return nil, nil, err
		}
		flags = append(flags, parts...)
		if takesNext {
			if i+1 == len(args) {
				return nil, nil, fault.New(fault.Invalid, "capsem %s: %s needs a value", pathOf(a.cmd), parts[len(parts)-1]).WithHint("see capsem help %s", pathOf(a.cmd))
			}
			i++
			flags = append(flags, args[i])
		}
	}
	return flags, rest, nil
}

// looksLikeFlag tells -x and --x from an argument; a lone - is stdin or stdout.
func looksLikeFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// flag checks one flag word, takes bundles such as -it apart, and reports whether the next word is its value.
func (a *arranged) flag(word string) (parts []string, takesNext bool, err error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if f := findFlag(a.cmd, name); f != nil {
		return []string{word}, !hasValue && !isBool(f), nil
	}
	if strings.HasPrefix(word, "--") || hasValue {
		return nil, false, a.unknownFlag(word)
	}
	for i, letter := range name {
		f := findFlag(a.cmd, string(letter))
		last := i == len(name)-1
		if f == nil || (!last && !isBool(f)) {
			return nil, false, a.unknownFlag(word)
		}
		parts, takesNext = append(parts, "-"+string(letter)), !isBool(f)
	}
	return parts, takesNext, nil
}

func (a *arranged) unknownFlag(word string) error {
	err := fault.New(fault.Invalid, "capsem %s has no flag %s", pathOf(a.cmd), word)
	var names []string
	for _, f := range a.cmd.Flags {
		for _, name := range f.Names() {
			names = append(names, dashes(name))
		}
	}
	name, _, _ := strings.Cut(word, "=")
	if near := nearest(name, names); near != "" {
		return err.WithHint("did you mean %s?", near)
	}
	return err.WithHint("see capsem help %s", pathOf(a.cmd))
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func findFlag(cmd *cli.Command, name string) cli.Flag {
	for _, f := range cmd.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

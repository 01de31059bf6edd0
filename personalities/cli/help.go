package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The groups of "capsem help", in its order. They are the commands' categories.
const (
	groupSessions = "Sessions"
	groupImages   = "Images"
	groupRecords  = "Records"
	groupService  = "Service and help"
)

const columnWidth = 38

// help prints what a command does, or the page of all commands when cmd is nil.
func (s *session) help(commands []*cli.Command, cmd *cli.Command) error {
	if cmd != nil {
		text := commandHelp(cmd)
		if findFlag(cmd, "ram") != nil {
			text += "\n" + s.sizesHelp()
		}
		return s.print(text)
	}
	return s.print(overview(commands))
}

// overview is the page of all commands: two columns, one screen of 24 lines by 80 characters.
func overview(commands []*cli.Command) string {
	var b strings.Builder
	b.WriteString("capsem runs commands in virtual machines that reach only what you allow.\n" +
		"Usage: capsem COMMAND [flags] ...    capsem help COMMAND, help settings: more\n")
	for _, group := range []string{groupSessions, groupImages, groupRecords, groupService} {
		var cells, names []string
		for _, c := range commands {
			if c.Category == group && !c.Hidden {
				cells = append(cells, fmt.Sprintf("  %-11s %s", c.Name, c.Usage))
				names = append(names, c.Name)
			}
		}
		if len(cells) == 0 {
			continue
		}
		if group != groupService { // the page has no room for one more
			b.WriteString("\n")
		}
		b.WriteString(group + "\n")
		if group == groupRecords || group == groupService { // seldom wanted: only named, so that the page stays one screen
			lines(&b, names)
			continue
		}
		columns(&b, cells)
	}
	return b.String()
}

// lines writes names one after another, in lines that fit the screen.
func lines(b *strings.Builder, names []string) {
	wide := 0
	for _, name := range names {
		if wide += 2 + len(name); wide > 79 {
			b.WriteString("\n")
			wide = 2 + len(name)
		}
		b.WriteString("  " + name)
	}
	b.WriteString("\n")
}

// columns writes cells down the left column, then down the right one.
func columns(b *strings.Builder, cells []string) {
	rows := (len(cells) + 1) / 2
	for i := range rows {
		line := cells[i]
		if i+rows < len(cells) {
			line = fmt.Sprintf("%-*s  %s", columnWidth, line, strings.TrimPrefix(cells[i+rows], "  "))
		}
		b.WriteString(line + "\n")
	}
}

// commandHelp describes one command, its flags and its sub-commands.
func commandHelp(cmd *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s\n", usageOf(cmd), cmd.Description)
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso called: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if len(cmd.Subcommands) > 0 {
		b.WriteString("\nCommands\n")
		for _, sub := range cmd.Subcommands {
			fmt.Fprintf(&b, "  %-22s %s\n", sub.Name, sub.Usage)
		}
	}
	if len(cmd.Flags) > 0 {
		b.WriteString("\nFlags\n")
		for _, f := range cmd.Flags {
			if v, ok := f.(cli.VisibleFlag); !ok || v.IsVisible() {
				fmt.Fprintf(&b, "  %-22s %s\n", flagNames(f), flagUsage(f))
			}
		}
	}
	return b.String()
}

// usageOf is the command's line, from its UsageText.
func usageOf(cmd *cli.Command) string {
	if cmd.UsageText != "" {
		return "capsem " + cmd.UsageText
	}
	return "capsem " + cmd.Name
}

// pathOf is the words that name a command, such as "assets build": its UsageText begins with them.
func pathOf(cmd *cli.Command) string {
	words := strings.Fields(cmd.UsageText)
	if i := slices.Index(words, cmd.Name); i >= 0 {
		return strings.Join(words[:i+1], " ")
	}
	return cmd.Name
}

// flagNames shows "-n, --name NAME": the short name first, and what the value is.
func flagNames(f cli.Flag) string {
	var short, long []string
	for _, n := range f.Names() {
		if len(n) == 1 {
			short = append(short, "-"+n)
		} else {
			long = append(long, "--"+n)
		}
	}
	text := strings.Join(append(short, long...), ", ")
	if !isBool(f) {
		text += " " + placeholder(f)
	}
	return text
}

// placeholder is the word in backquotes in a flag's usage, as in "run in `DIR`".
func placeholder(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if _, rest, found := strings.Cut(d.GetUsage(), "`"); found {
			if word, _, found := strings.Cut(rest, "`"); found {
				return word
			}
		}
	}
	return "VALUE"
}

func flagUsage(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		return strings.ReplaceAll(d.GetUsage(), "`", "")
	}
	return ""
}

// helpCommand is "capsem help [COMMAND]".
func (s *session) helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Category: groupService, Usage: "this page or one command", UsageText: "help [COMMAND|settings]",
		Description: "Shows all commands, or one with its flags. help settings shows what may be set, and in which files.",
		Action: func(c *cli.Context) error {
			commands := c.App.Commands
			if c.Args().Len() == 1 && c.Args().First() == "settings" {
				return s.settingsHelp()
			}
			var found *cli.Command
			path := ""
			for _, word := range c.Args().Slice() {
				next := findCommand(commands, word)
				if next == nil {
					return unknownCommand(commands, path, word)
				}
				found, commands, path = next, next.Subcommands, strings.TrimSpace(path+" "+word)
			}
			return s.help(c.App.Commands, found)
		},
	}
}

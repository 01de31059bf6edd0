// Package personalities maps the name capsem was called by, or its hidden first word, to what it then is.
package personalities

import (
	"path/filepath"
	"strings"

	"capsem/core/entry"
	"capsem/personalities/cli"
	"capsem/personalities/mcp"
	"capsem/personalities/mcpaggregator"
	"capsem/personalities/mcpbuiltin"
	"capsem/personalities/process"
	"capsem/personalities/service"
)

// Personality is one row of the table.
type Personality struct {
	// Name is the hidden first word. The installed name is Link.
	Name string
	// Link is the name under which the binary is linked, such as capsem-service.
	Link string
	// Verbs are second words that belong to the command line instead: "capsem service" is the daemon, "capsem service
	// status" a command about it.
	Verbs bool
	// Run is the personality itself.
	Run entry.Run
}

// Table lists every personality but the command line, which is what any other name gets.
func Table() []Personality {
	return []Personality{
		{Name: "mcp-aggregator", Link: "capsem-mcp-aggregator", Run: mcpaggregator.Run},
		{Name: "mcp-builtin", Link: "capsem-mcp-builtin", Run: mcpbuiltin.Run},
		{Name: "mcp", Link: "capsem-mcp", Verbs: true, Run: mcp.Run},
		{Name: "process", Link: "capsem-process", Run: process.Run},
		{Name: "service", Link: "capsem-service", Verbs: true, Run: service.Run},
	}
}

// Choose picks the personality for a command line (argv[0] included) and the arguments to give it.
func Choose(argv []string) (run entry.Run, args []string) {
	if len(argv) == 0 {
		return cli.Run, nil
	}
	base := filepath.Base(argv[0])
	for _, p := range Table() {
		if base == p.Link {
			return p.Run, argv[1:]
		}
	}
	for _, p := range Table() {
		if len(argv) > 1 && argv[1] == p.Name && (!p.Verbs || !isVerb(argv[2:])) {
			return p.Run, argv[2:]
		}
	}
	return cli.Run, argv[1:]
}

// isVerb reports whether the words after a personality's name are for the command line: a sub-command or a call for help.
func isVerb(rest []string) bool {
	if len(rest) == 0 {
		return false
	}
	return !strings.HasPrefix(rest[0], "-") || rest[0] == "-h" || rest[0] == "--help"
}

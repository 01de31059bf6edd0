// Package mcpaggregator is the process that holds the sessions with the owner's MCP servers, and what starts those that are programs. A
// worker starts it; it has no use by hand.
package mcpaggregator

import (
	"context"

	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/mcp/aggregator"
)

// Run serves the worker that started it. With the word "launch" it becomes a program of the owner's instead.
func Run(ctx context.Context, env entry.Env) error {
	switch {
	case len(env.Args) == 0:
		return aggregator.Process(ctx, env.Log) //nolint:wrapcheck // says what failed
	case len(env.Args) == 1 && env.Args[0] == "launch":
		return aggregator.LaunchProcess() //nolint:wrapcheck // as above
	}
	return fault.New(fault.Invalid, "capsem starts this by itself; it takes no arguments")
}

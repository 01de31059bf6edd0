// Package mcpbuiltin is the MCP server with capsem's own tools. A worker starts it; it has no use by hand.
package mcpbuiltin

import (
	"context"
	"io"

	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/mcp/builtin"
)

// Run serves MCP on standard input and output.
func Run(ctx context.Context, env entry.Env) error {
	in, readable := env.Stdin.(io.ReadCloser)
	out, writable := env.Stdout.(io.WriteCloser)
	if len(env.Args) > 0 || !readable || !writable {
		return fault.New(fault.Invalid, "capsem starts this by itself; it takes no arguments")
	}
	return builtin.Process(ctx, in, out, env.Getenv("CAPSEM_SESSION_DIR"), env.Log) //nolint:wrapcheck // says what failed
}

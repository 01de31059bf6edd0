// Package mcp is the personality that serves capsem to the user's own agent: MCP over standard input and output.
package mcp

import (
	"context"
	"io"
	"os/signal"
	"syscall"
	"time"

	"capsem/core/client"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/mcp/stdio"
	"capsem/core/mcptools"
	"capsem/core/paths"
)

// lastTime is how long calls that run may take to end once the client has left: a VM of capsem_run is destroyed then.
const lastTime = 35 * time.Second

// Run serves one client until its input ends or a signal comes. Nothing but the protocol is written to standard output.
func Run(ctx context.Context, env entry.Env) error {
	owner := false
	for _, arg := range env.Args {
		if arg != "--owner" {
			return fault.New(fault.Invalid, "capsem mcp has no flag or command %.80q", arg).WithHint("see capsem help mcp")
		}
		owner = true
	}
	home, err := paths.Resolve(env.Getenv)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "%s", err).WithHint("set HOME or CAPSEM_HOME")
	}
	svc := client.New(home, client.Options{Getenv: env.Getenv})
	server, err := mcptools.New(mcptools.Options{
		Home: home, Client: svc, Gateway: mcptools.NewGateway(svc), Owner: owner, UserHome: env.Getenv("HOME"), Log: env.Log,
	})
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	return serve(ctx, env, server)
}

// serve runs the server, but no longer than lastTime after its input has ended: a client that does not read its output may hold it up.
func serve(ctx context.Context, env entry.Env, server *mcptools.Server) error {
	ended := make(chan struct{})
	over := make(chan error, 1)
	in, ok := env.Stdin.(io.ReadCloser)
	if !ok {
		in = io.NopCloser(env.Stdin)
	}
	go func() {
		over <- server.Run(ctx, &stdio.Transport{
			Reader: in, Writer: env.Stdout, Done: ctx.Done(), Ended: func() { close(ended) },
		})
	}()
	select {
	case err := <-over:
		return err
	case <-ended:
	case <-ctx.Done():
	}
	timer := time.NewTimer(lastTime)
	defer timer.Stop()
	select {
	case err := <-over:
		return err
	case <-timer.C:
		env.Log.Warn("calls have not ended in time, and are left to the service")
		return nil
	}
}

// Package mcptools is what capsem offers to the user's own agent over MCP: tools, resources and prompts that stand on the local API.
// Every call looks for the service anew and starts it when there is none, so a restart of it is no more than one failed call.
package mcptools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/buildinfo"
	"capsem/core/client"
	"capsem/core/paths"
)

// Options are what a Server needs.
type Options struct {
	// Home is the installation, Client speaks to its service.
	Home   paths.Home
	Client *client.Client
	// Owner adds the tools that decide for the owner: an agent must not answer its own questions.
	Owner bool
	// Gateway is the owner's MCP servers; nil when none are connected.
	Gateway Gateway
	// UserHome is the user's home directory, where agents keep their settings; empty looks for none.
	UserHome string
	// Log gets what the client is told as well. Never nil.
	Log *slog.Logger
}

// Server offers the tools to one client.
type Server struct {
	opts    Options
	mcp     *mcp.Server
	outputs outputs
	watch   *watcher
	// broken are mistakes in the tools' own types.
	broken []error
}

// instructions are what a client tells its model about all tools.
const instructions = "capsem runs commands in virtual machines of their own (Debian, root, no network card). Use capsem_run for one command in a VM " +
	"that is then destroyed; capsem_create, capsem_exec and capsem_delete for more. /root in a VM is its workspace: read and write it with " +
	"capsem_read_file and capsem_write_file. Before something risky make a capsem_checkpoint (whole machine) or capsem_snapshot_create " +
	"(files), and capsem_rewind or capsem_snapshot_revert if it went wrong. A command's exit code is data; a tool's error says what to do next."

// New makes a server with all its tools.
func New(opts Options) (*Server, error) {
	s := &Server{opts: opts}
	s.watch = newWatcher(s)
	s.mcp = mcp.NewServer(&mcp.Implementation{Name: "capsem", Title: "capsem", Version: buildinfo.Version}, &mcp.ServerOptions{
		Instructions: instructions, Logger: slog.New(quiet{opts.Log.Handler()}), CompletionHandler: s.complete,
		SubscribeHandler: s.watch.subscribe, UnsubscribeHandler: s.watch.unsubscribe, PageSize: pageSize,
	})
	for _, addAll := range []func(){
		s.addVMs, s.addSaved, s.addExec, s.addFiles, s.addLogs, s.addRecords, s.addSnapshots, s.addJobs, s.addPolicy, s.addGateway,
		s.addResources, s.addPrompts,
	} {
		addAll()
	}
	if opts.Owner {
		s.addOwner()
	}
	s.mcp.AddReceivingMiddleware(s.listing, codes)
	if err := errors.Join(s.broken...); err != nil {
		return nil, fmt.Errorf("make tools: %w", err)
	}
	return s, nil
}

// pageSize is how many tools or resources one answer lists.
const pageSize = 200

// Run serves one client until it leaves or ctx ends.
func (s *Server) Run(ctx context.Context, t mcp.Transport) error {
	defer s.outputs.close()
	ctx, cancel := context.WithCancel(ctx)
	defer s.watch.stop()
	defer cancel()
	s.watch.start(ctx)
	if err := s.mcp.Run(ctx, t); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve MCP: %w", err)
	}
	return nil
}

// service is a client of a service that answers.
func (s *Server) service(ctx context.Context) (*client.Client, error) {
	if err := s.opts.Client.EnsureService(ctx); err != nil {
		return nil, err //nolint:wrapcheck // a fault that says what to do
	}
	return s.opts.Client, nil
}

// quiet passes on only what is wrong: the SDK logs each step of each session.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

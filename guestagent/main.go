//go:build linux

// Command guestagent is every program of capsem's in the guest, in one static binary: by the name it is called, or by its
// first word, it is init, the agent, the power commands or the doctor.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/guest/boot"
	"capsem/core/guest/doctor"
	"capsem/core/guest/layout"
	"capsem/core/guest/mcprelay"
	"capsem/core/guest/snapshots"
	"capsem/core/guest/sysutil"
)

func main() {
	role, argv := choose(os.Args)
	if err := run(context.Background(), role, argv); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
}

// choose finds the role and the arguments that belong to it, its name included.
func choose(args []string) (role string, argv []string) {
	name := filepath.Base(args[0])
	switch name {
	case "init", "agent", "doctor", "sysutil", "shutdown", "halt", "poweroff", "reboot", "suspend", "snapshots", "mcp-server", "capsem-mcp-server":
		return strings.TrimPrefix(name, "capsem-"), args
	}
	if len(args) > 1 {
		return args[1], args[1:]
	}
	return "help", args
}

func run(ctx context.Context, role string, argv []string) error {
	switch role {
	case "init":
		return runInit()
	case "agent":
		return runAgent(ctx)
	case "doctor":
		return runDoctor(ctx, argv[1:])
	case "sysutil", "shutdown", "halt", "poweroff", "reboot", "suspend":
		tool := sysutil.Tool{Socket: layout.LinkSocket, Out: os.Stdout, Kill: unix.Kill}
		return tool.Run(ctx, argv) //nolint:wrapcheck // shown as it is
	}
	if role == "mcp-server" {
		return runMCP(ctx)
	}
	if role == "snapshots" {
		dir, _ := os.Getwd() // a path is then in /root
		tool := snapshots.Tool{Socket: layout.LinkSocket, Out: os.Stdout, Dir: dir}
		return tool.Run(ctx, argv[1:]) //nolint:wrapcheck // shown as it is
	}
	return fmt.Errorf("unknown role %.40q: it is init, agent, doctor or sysutil", role)
}

// runInit is PID 1. It returns only when there is no way on; as PID 1 it then powers the machine off.
func runInit() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is for process 1 of a capsem VM, not for process %d", os.Getpid())
	}
	err := boot.Run(os.Stderr)
	boot.PowerOff(os.Stderr, err)
	return err
}

// runMCP relays MCP between an agent that started it and the host.
func runMCP(ctx context.Context) error {
	r := mcprelay.Relay{Socket: layout.LinkSocket, In: os.Stdin, Out: os.Stdout, Process: mcprelay.Claim("/proc", os.Getppid())}
	return r.Run(ctx) //nolint:wrapcheck // shown as it is
}

func runDoctor(ctx context.Context, args []string) error {
	show := doctor.Text(os.Stdout)
	for _, arg := range args {
		if arg != "--json" {
			return fmt.Errorf("unknown argument %.40q; use: doctor [--json]", arg)
		}
		show = doctor.JSON(os.Stdout)
	}
	ok, err := doctor.Run(ctx, &doctor.System{Getenv: os.Getenv}, doctor.Checks(), show)
	if err == nil && !ok {
		os.Exit(1)
	}
	return err //nolint:wrapcheck // shown as it is
}

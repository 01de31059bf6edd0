//go:build linux

// Package sysutil is shutdown, halt, poweroff, reboot and suspend inside the guest. It asks the host, which decides; with a
// dead link it tells PID 1, so that a VM can always be ended from inside.
package sysutil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/pid1"
	"capsem/core/proto"
)

// answerTimeout is how long the host may take.
const answerTimeout = 5 * time.Second

// Tool is one call of the program.
type Tool struct {
	// Socket is the agent's; Out gets what is printed.
	Socket string
	Out    io.Writer
	// Kill sends a signal, as unix.Kill does.
	Kill func(pid int, sig unix.Signal) error
}

// errNoAnswer is a host that cannot be asked.
var errNoAnswer = errors.New("the host does not answer")

const help = `capsem: this machine is a capsem VM; the host ends, restarts or saves it.

  shutdown [-h|-P|-H|-r] [now|+0]   power off; with -r restart
  poweroff, halt                    power off
  reboot                            restart
  suspend                           save the VM to disk and stop it (named VMs only)

Options that other systems know (-f, --force, -p, --no-wall, ...) are accepted. Unnamed VMs are gone after a power-off.
`

// Run does what the name in argv[0] (or, called as sysutil, the first argument) says.
func (t Tool) Run(ctx context.Context, argv []string) error {
	name, args := filepath.Base(argv[0]), argv[1:]
	if name == "sysutil" && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	if slices.Contains(args, "--help") || name == "sysutil" {
		fmt.Fprint(t.Out, help)
		return nil
	}
	action, err := Action(name, args)
	if err != nil {
		return err
	}
	reply, err := t.ask(ctx, action)
	switch {
	case errors.Is(err, errNoAnswer) && action != proto.ActionSuspend:
		fmt.Fprintf(t.Out, "%v; telling PID 1 itself\n", err)
		return t.tellInit(action)
	case err != nil:
		return err
	case !reply.OK:
		return fmt.Errorf("the host refuses to %s: %s", action, reply.Message)
	}
	fmt.Fprintln(t.Out, announcement(action))
	return nil
}

// Action is what a command line asks for.
func Action(name string, args []string) (proto.LifecycleAction, error) {
	var action proto.LifecycleAction
	switch name {
	case "shutdown", "halt", "poweroff":
		action = proto.ActionPoweroff
	case "reboot":
		action = proto.ActionReboot
	case "suspend":
		action = proto.ActionSuspend
	default:
		return "", fmt.Errorf("%.40q is none of shutdown, halt, poweroff, reboot and suspend; see sysutil --help", name)
	}
	for i, arg := range args {
		switch {
		case name == "shutdown" && (arg == "-r" || arg == "--reboot"):
			action = proto.ActionReboot
		case name == "shutdown" && (arg == "-c" || arg == "-k"):
			return "", fmt.Errorf("shutdown %s has no meaning here: nothing is ever scheduled", arg)
		case strings.HasPrefix(arg, "-"), arg == "now", arg == "+0":
		case name == "shutdown" && i == 0 || name == "shutdown" && strings.HasPrefix(args[i-1], "-"):
			return "", fmt.Errorf("cannot do it at %.40q, only now; use: sleep SECONDS && shutdown now", arg)
		case name != "shutdown":
			return "", fmt.Errorf("unknown argument %.40q; see %s --help", arg, name)
		}
	}
	return action, nil
}

func announcement(action proto.LifecycleAction) string {
	switch action {
	case proto.ActionReboot:
		return "The VM restarts now."
	case proto.ActionSuspend:
		return "The VM is being saved and stops now."
	default:
		return "The VM powers off now."
	}
}

// ask sends the request to the host.
func (t Tool) ask(ctx context.Context, action proto.LifecycleAction) (proto.LifecycleReply, error) {
	var reply proto.LifecycleReply
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", t.Socket)
	if errors.Is(err, unix.EACCES) {
		return reply, errors.New("only root may do that")
	}
	if err != nil {
		return reply, fmt.Errorf("%w (%w)", errNoAnswer, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the wait
	defer stop()
	err = proto.WriteFrame(conn, proto.StreamHeader{Port: proto.PortLifecycle, Process: "sysutil"})
	if err == nil {
		err = proto.WriteFrame(conn, proto.LifecycleRequest{Action: action})
	}
	if err == nil {
		err = proto.ReadFrame(conn, proto.MaxHeader, &reply)
	}
	if err != nil {
		return reply, fmt.Errorf("%w (%w)", errNoAnswer, err)
	}
	return reply, nil
}

func (t Tool) tellInit(action proto.LifecycleAction) error {
	sig := pid1.SignalPoweroff
	if action == proto.ActionReboot {
		sig = pid1.SignalReboot
	}
	if err := t.Kill(1, sig); err != nil {
		return fmt.Errorf("tell PID 1: %w", err)
	}
	fmt.Fprintln(t.Out, announcement(action))
	return nil
}

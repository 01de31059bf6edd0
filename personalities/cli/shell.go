package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

func (s *session) shellCommand() *cli.Command {
	return &cli.Command{
		Name: "shell", Category: groupSessions, Usage: "in a VM, or in a new one",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "enter `VM`; the same as without -n"}, envFlag(),
		}, sizeFlags()...),
		UsageText: "shell [VM] [flags]",
		Description: "Opens a terminal in a VM, and starts the VM first if it is stopped. Without VM, a temporary one is made, and destroyed when\n" +
			"you leave.\n\n" +
			"Ctrl-] leaves. In a named VM the shell goes on then, with what runs in it: capsem shell VM comes back to the same\n" +
			"shell, with the end of what it showed meanwhile. Several terminals may be in it at once. exit ends it for good, and\n" +
			"the next capsem shell VM begins a new one. To come back to a temporary VM, give it a name before you leave, from\n" +
			"another terminal: capsem persist VM NAME.",
		Action: func(c *cli.Context) error { return s.shell(c.Context, c) },
	}
}

// attachCommand is resume for those who mean to enter the VM too.
func (s *session) attachCommand() *cli.Command {
	return &cli.Command{
		Name: "attach", Category: groupSessions, Hidden: true, UsageText: "attach VM",
		Description: "Starts a named VM unless it runs, and on a terminal opens a shell in it; elsewhere it is capsem resume.",
		Action: func(c *cli.Context) error {
			if isTerminal(s.env.Stdin) && isTerminal(s.env.Stdout) {
				return s.shell(c.Context, c)
			}
			return action(s.resume)(c)
		},
	}
}

func (s *session) shell(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 0, 1)
	if err != nil {
		return err
	}
	name := c.String("name")
	if err := givenName(c); err != nil {
		return err
	}
	if len(args) == 1 {
		if name != "" && name != args[0] {
			return fault.New(fault.Invalid, "two VMs are named, %.70s and %.70s", name, args[0]).WithHint("give one")
		}
		name = args[0]
	}
	if !isTerminal(s.env.Stdin) || !isTerminal(s.env.Stdout) {
		return fault.New(fault.Invalid, "capsem shell needs a terminal").WithHint("use capsem exec VM 'COMMAND' or capsem run 'COMMAND'")
	}
	vm, err := s.newVM(c, "")
	if err != nil {
		return err
	}
	if vm.Env, err = s.environment(c); err != nil {
		return err
	}
	sig := watchSignals(ctx)
	defer sig.stop()
	svc, err := s.service(sig.ctx)
	if err != nil {
		return sig.explain(err)
	}
	if name == "" {
		return s.bareShell(ctx, svc, vm, sig)
	}
	return s.namedShell(ctx, svc, name, vm.Env, sig)
}

// bareShell makes a temporary VM for as long as the user stays, however that ends.
func (s *session) bareShell(ctx context.Context, svc *client.Client, vm api.ProvisionRequest, sig *signals) (err error) {
	reply, err := s.provision(sig.ctx, svc, vm)
	if err != nil {
		return sig.explain(err)
	}
	detached := false
	defer func() {
		kept, failed := s.discardUnlessNamed(ctx, svc, reply.ID)
		switch {
		case kept != "" && detached:
			s.note("left VM %s running; capsem shell %s comes back to this shell", kept, kept)
		case detached && failed == nil:
			s.note("left VM %s. Temporary VMs are destroyed; capsem persist %s NAME, in another terminal, would have kept it", reply.ID, reply.ID)
		}
		err = firstOf(err, failed)
	}()
	s.note("VM %s is temporary: it is destroyed when you leave (exit or Ctrl-]). To keep it: capsem persist %s NAME", reply.ID, reply.ID)
	out, err := s.terminal(ctx, svc, reply.ID, nil, sig)
	if err != nil {
		return s.ended(ctx, svc, reply.ID, err)
	}
	detached = out.detached
	return nil
}

// namedShell enters a VM that goes on when the user leaves.
func (s *session) namedShell(ctx context.Context, svc *client.Client, name string, env map[string]string, sig *signals) error {
	info, err := svc.Info(sig.ctx, name)
	if err != nil {
		return sig.explain(err)
	}
	id := info.ID
	if !lifecycle.Live(info.Status) {
		s.note("VM %s is %s; starting it", name, info.Status)
		if id, err = s.boot(sig.ctx, svc, name); err != nil {
			return sig.explain(err)
		}
	}
	out, err := s.terminal(ctx, svc, id, env, sig)
	if err != nil {
		return s.ended(ctx, svc, id, err)
	}
	if out.detached {
		s.note("left VM %s running; capsem shell %s comes back to this shell", name, name)
	}
	return nil
}

// terminal joins the user's terminal with the VM's, through the worker's own socket.
func (s *session) terminal(ctx context.Context, svc *client.Client, id string, env map[string]string, sig *signals) (outcome, error) {
	reply, err := svc.Terminal(sig.ctx, id)
	if err != nil {
		return outcome{}, sig.explain(err)
	}
	worker, err := workerclient.Dial(sig.ctx, reply.UDSPath)
	if err != nil {
		return outcome{}, sig.explain(err)
	}
	open := proto.TerminalOpen{Size: windowSize(s.env.Stdout, s.env.Stdin), Term: s.env.Getenv("TERM"), Env: env}
	if open.Validate() != nil {
		open.Term = ""
	}
	conn, err := worker.Stream(sig.ctx, proto.WorkerRequest{Op: proto.OpTerminal, Terminal: &open})
	if err != nil {
		return outcome{}, errors.Join(sig.explain(err), worker.Close())
	}
	b := &bridge{conn: conn, stdout: s.env.Stdout, stderr: s.env.Stderr, session: true, signals: sig.take()}
	return s.join(ctx, b, true, true)
}

// ended looks why a terminal's stream broke: a VM that was shut down from inside is no failure.
func (s *session) ended(ctx context.Context, svc *client.Client, id string, err error) error {
	if !fault.Is(err, fault.Unavailable) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	info, infoErr := svc.Info(ctx, id)
	switch {
	case fault.Is(infoErr, fault.NotFound), infoErr == nil && (info.Status == lifecycle.Stopped || info.Status == lifecycle.Stopping):
		s.note("VM %s has shut down", id)
		return nil
	case infoErr == nil && info.Status == lifecycle.Defunct:
		return fault.New(fault.Unavailable, "VM %s died: %s", id, lastLine(info.LastError)).WithHint("capsem logs %s tells more", id)
	case infoErr == nil && info.Status == lifecycle.Booting:
		return fault.New(fault.Unavailable, "VM %s is starting again", id).WithHint("capsem shell %s enters it", id)
	}
	return err
}

// note tells the user something on the terminal that is no error.
func (s *session) note(format string, args ...any) {
	fmt.Fprintf(s.env.Stderr, "capsem: "+format+"\n", args...)
}

package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
)

func (s *session) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Category: groupSessions, Usage: "a command in a new VM", Flags: append(commandFlags(), sizeFlags()...),
		UsageText: "run [flags] 'COMMAND' | [flags] -- PROGRAM ARG...",
		Description: "Starts a temporary VM, runs a command in it, destroys the VM and exits with the command's code. With --detach the VM\n" +
			"stays: its id and the job's are printed. Ctrl-C ends the command and the VM. Input that is no terminal is passed on.\n\n" + codesHelp,
		Action: func(c *cli.Context) error { return s.run(c.Context, c) },
	}
}

func (s *session) run(ctx context.Context, c *cli.Context) (err error) {
	args, err := words(c, 1, -1)
	if err != nil {
		return err
	}
	req, err := s.execRequest(c, args)
	if err != nil {
		return err
	}
	vm, err := s.newVM(c, "")
	if err != nil {
		return err
	}
	sig := watchSignals(ctx)
	defer sig.stop()
	svc, err := s.service(sig.ctx)
	if err != nil {
		return sig.explain(err)
	}
	reply, err := s.provision(sig.ctx, svc, vm)
	if err != nil {
		return sig.explain(err)
	}
	if req.Detach {
		return s.leaveRunning(sig, svc, reply.ID, req)
	}
	defer func() { err = firstOf(err, s.discard(ctx, svc, reply.ID)) }()
	return s.follow(ctx, svc, reply.ID, req, sig)
}

// leaveRunning starts a detached command in the new VM and prints the ids of both.
func (s *session) leaveRunning(sig *signals, svc *client.Client, id string, req api.ExecRequest) error {
	job, err := svc.Exec(sig.ctx, id, req)
	if err != nil {
		return firstOf(sig.explain(err), s.discard(sig.ctx, svc, id))
	}
	if isTerminal(s.env.Stderr) {
		fmt.Fprintf(s.env.Stderr, "capsem: see capsem jobs %s %s; capsem delete %s ends it\n", id, job.Job, id)
	}
	return s.print(id + " " + job.Job + "\n")
}

// firstOf is the result of a command whose clean-up may fail too: the command's own failure matters more, but a failed
// clean-up never passes as success.
func firstOf(err, cleanup error) error {
	if err != nil || cleanup == nil {
		return err
	}
	return &fault.Exit{Status: fault.ExitCapsem, Err: cleanup}
}

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
)

func (s *session) resumeCommand() *cli.Command {
	return &cli.Command{
		Name: "resume", Category: groupSessions, Usage: "start a stopped VM", UsageText: "resume [--cold] VM",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "cold", Usage: "boot a suspended VM, giving up what was in its memory"}},
		Description: "Starts a stopped or defunct named VM with the files it had, and prints its id. A suspended VM goes on from where it was.\n" +
			"A running VM is left as it is.",
		Action: action(func(ctx context.Context, c *cli.Context) error { return s.resume(ctx, c) }),
	}
}

func (s *session) resume(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	start := s.boot
	if c.Bool("cold") {
		start = s.bootCold
	}
	id, err := start(ctx, svc, args[0])
	if err != nil {
		return err
	}
	return s.print(id + "\n")
}

// bootCold is boot, also for a suspended VM.
func (s *session) bootCold(ctx context.Context, svc *client.Client, name string) (string, error) {
	done := s.step("booting VM " + name)
	defer done()
	reply, err := svc.ResumeCold(ctx, name)
	return reply.ID, err //nolint:wrapcheck // a fault
}

func (s *session) suspendCommand() *cli.Command {
	return &cli.Command{
		Name: "suspend", Category: groupSessions, Usage: "save VMs and stop them", UsageText: "suspend VM...",
		Description: "Saves the memory of named VMs beside their disks and stops them. resume goes on from there: what ran in them goes on,\n" +
			"also after this machine was restarted. Commands that are attached end here, and go on in the VM.",
		Action: action(func(ctx context.Context, c *cli.Context) error {
			return s.each(ctx, c, "suspending", func(svc *client.Client, id string) error {
				return svc.Suspend(ctx, id) //nolint:wrapcheck // a fault
			})
		}),
	}
}

// boot starts a named VM unless it runs, and returns its id.
func (s *session) boot(ctx context.Context, svc *client.Client, name string) (string, error) {
	done := s.step("starting VM " + name)
	defer done()
	reply, err := svc.Resume(ctx, name)
	return reply.ID, err //nolint:wrapcheck // a fault
}

func (s *session) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Category: groupSessions, Usage: "stop VMs; files are kept", UsageText: "stop VM...",
		Description: "Shuts VMs down in order. A named VM keeps its files; a temporary one is destroyed.",
		Action: action(func(ctx context.Context, c *cli.Context) error {
			return s.each(ctx, c, "stopping", func(svc *client.Client, id string) error {
				reply, err := svc.Stop(ctx, id)
				if err == nil && !reply.Persistent && isTerminal(s.env.Stderr) {
					fmt.Fprintf(s.env.Stderr, "capsem: %s was temporary and is destroyed\n", id)
				}
				return err //nolint:wrapcheck // a fault
			})
		}),
	}
}

func (s *session) restartCommand() *cli.Command {
	return &cli.Command{
		Name: "restart", Category: groupSessions, Usage: "stop and start VMs", UsageText: "restart VM...",
		Description: "Stops named VMs if they run, and starts them again.",
		Action: action(func(ctx context.Context, c *cli.Context) error {
			return s.each(ctx, c, "restarting", func(svc *client.Client, id string) error {
				_, err := svc.Restart(ctx, id)
				return err //nolint:wrapcheck // a fault
			})
		}),
	}
}

func (s *session) deleteCommand() *cli.Command {
	return &cli.Command{
		Name: "delete", Aliases: []string{"rm"}, Category: groupSessions, Usage: "destroy VMs and their files", UsageText: "delete VM...",
		Description: "Ends VMs, running or not, and removes everything they stored.",
		Action: action(func(ctx context.Context, c *cli.Context) error {
			return s.each(ctx, c, "destroying", func(svc *client.Client, id string) error {
				return svc.Delete(ctx, id) //nolint:wrapcheck // a fault
			})
		}),
	}
}

// each does one thing to every VM named, also when it fails for one; all failures are reported.
func (s *session) each(ctx context.Context, c *cli.Context, what string, do func(svc *client.Client, id string) error) error {
	ids, err := words(c, 1, -1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range ids {
		done := s.step(what + " VM " + id)
		err := do(svc, id)
		done()
		if ctx.Err() != nil {
			return fmt.Errorf("%s VM %s: %w", what, id, ctx.Err())
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	for len(failed) > 1 {
		fmt.Fprintln(s.env.Stderr, "capsem:", fault.Line(failed[0]))
		failed = failed[1:]
	}
	return errors.Join(failed...)
}

func (s *session) persistCommand() *cli.Command {
	return &cli.Command{
		Name: "persist", Category: groupSessions, Usage: "keep a temporary VM", UsageText: "persist VM NAME",
		Description: "Gives a running temporary VM a name: it is then kept until it is deleted.",
		Action:      action(s.persist),
	}
}

func (s *session) persist(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, 2)
	if err != nil {
		return err
	}
	if err := api.CheckName(args[1]); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	return svc.Persist(ctx, args[0], args[1]) //nolint:wrapcheck // a fault
}

func (s *session) purgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Category: groupSessions, Usage: "destroy all temporary VMs", UsageText: "purge [--all] [-y]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "destroy the named VMs too"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}, jsonFlag(),
		},
		Description: "Destroys every temporary VM; with --all the named ones too, after asking.",
		Action:      action(s.purge),
	}
}

func (s *session) purge(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	if c.Bool("all") && !c.Bool("yes") {
		list, err := svc.List(ctx)
		if err != nil {
			return err //nolint:wrapcheck // a fault
		}
		if ok, err := s.confirmPurge(list.Sandboxes); err != nil || !ok {
			return err
		}
	}
	done := s.step("destroying VMs")
	reply, err := svc.Purge(ctx, c.Bool("all"))
	done()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(fmt.Sprintf("destroyed %d temporary and %d named VMs\n", reply.EphemeralPurged, reply.PersistentPurged))
}

// confirmPurge asks y/N with the counts. Without a terminal nobody can answer, so -y is asked for instead.
func (s *session) confirmPurge(vms []api.SandboxInfo) (bool, error) {
	named, running := 0, 0
	for _, vm := range vms {
		if vm.Persistent {
			named++
		}
		if lifecycle.Live(vm.Status) {
			running++
		}
	}
	if !isTerminal(s.env.Stdin) {
		return false, fault.New(fault.Invalid, "purge --all would destroy %d named and %d temporary VMs with their files", named, len(vms)-named).
			WithHint("add -y to do it without being asked")
	}
	fmt.Fprintf(s.env.Stderr, "Destroy %d named and %d temporary VMs with their files (%d running)? [y/N] ", named, len(vms)-named, running)
	answer, err := bufio.NewReader(s.env.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	fmt.Fprintln(s.env.Stderr, "capsem: nothing was destroyed")
	return false, nil
}

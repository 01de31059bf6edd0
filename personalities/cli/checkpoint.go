package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
)

func (s *session) checkpointCommand() *cli.Command {
	return &cli.Command{
		Name: "checkpoint", Aliases: []string{"checkpoints"}, Category: groupImages, Usage: "keep the state of a VM",
		UsageText: "checkpoint [-d TEXT] VM NAME | --list VM | --delete VM NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "description", Aliases: []string{"d"}, Usage: "what it is for, as `TEXT`"},
			&cli.BoolFlag{Name: "list", Usage: "list the checkpoints of the VM"},
			&cli.BoolFlag{Name: "delete", Usage: "remove a checkpoint"}, jsonFlag(),
		},
		Description: "Keeps the whole state of a named VM under a name: its disk, its workspace and, when it runs, its memory. The VM goes on.\n" +
			"capsem rewind VM NAME puts it back there, as often as you like.",
		Action: action(s.checkpoint),
	}
}

func (s *session) checkpoint(ctx context.Context, c *cli.Context) error {
	list, remove := c.Bool("list"), c.Bool("delete")
	n := 2
	if list {
		n = 1
	}
	args, err := words(c, n, n)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	switch {
	case err != nil:
		return err
	case list:
		return s.listCheckpoints(ctx, c, svc, args[0])
	case remove:
		return svc.DeleteCheckpoint(ctx, args[0], args[1]) //nolint:wrapcheck // a fault
	}
	done := s.step("keeping the state of VM " + args[0])
	reply, err := svc.Checkpoint(ctx, args[0], api.CheckpointRequest{Name: args[1], Description: c.String("description")})
	done()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(reply.Name + "\n")
}

func (s *session) listCheckpoints(ctx context.Context, c *cli.Context, svc *client.Client, id string) error {
	reply, err := svc.Checkpoints(ctx, id)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	t := newTable("CHECKPOINT", "MEMORY", "SIZE", "CREATED", "DESCRIPTION")
	for _, p := range reply.Checkpoints {
		t.row(p.Name, memoryText(p.Memory), byteSize(p.SizeBytes), p.CreatedAt, p.Description)
	}
	return s.print(t.String())
}

func (s *session) rewindCommand() *cli.Command {
	return &cli.Command{
		Name: "rewind", Category: groupImages, Usage: "back to a checkpoint", UsageText: "rewind VM NAME",
		Description: "Puts a VM back to a checkpoint: memory, disk and workspace. What has happened in it since is lost, and commands that are\n" +
			"attached end.",
		Action: action(func(ctx context.Context, c *cli.Context) error {
			args, err := words(c, 2, 2)
			if err != nil {
				return err
			}
			svc, err := s.service(ctx)
			if err != nil {
				return err
			}
			done := s.step("rewinding VM " + args[0])
			defer done()
			reply, err := svc.Rewind(ctx, args[0], args[1])
			if err != nil {
				return err //nolint:wrapcheck // a fault
			}
			return s.print(reply.ID + "\n")
		}),
	}
}

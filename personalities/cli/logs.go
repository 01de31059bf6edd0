package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
)

func (s *session) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Category: groupSessions, Usage: "the logs of a VM", UsageText: "logs VM [-f] [--tail N]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as the logs grow, until Ctrl-C"},
			&cli.IntFlag{Name: "tail", Usage: "only the last `N` lines of each"}, jsonFlag(),
		},
		Description: "Shows the worker's log and the guest's console, also of a VM that failed and is gone. What the console was told to do with\n" +
			"colours and the cursor is left out; --json has the text as it was written.",
		Action: action(s.logs),
	}
}

func (s *session) logs(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	if c.IsSet("tail") && c.Int("tail") < 1 {
		return fault.New(fault.Invalid, "--tail %d is not a number of lines", c.Int("tail")).WithHint("give 1 or more")
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	if c.Bool("follow") {
		stream, err := svc.FollowLogs(ctx, args[0], c.Int("tail"))
		if err != nil {
			return err //nolint:wrapcheck // a fault
		}
		defer stream.Close()
		if _, err := io.Copy(&plainWriter{w: s.env.Stdout}, stream); err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
		return nil
	}
	reply, err := svc.Logs(ctx, args[0], c.Int("tail"))
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	_, err = io.WriteString(&plainWriter{w: s.env.Stdout}, reply.Logs)
	return err //nolint:wrapcheck // said once
}

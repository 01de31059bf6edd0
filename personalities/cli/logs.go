package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

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
		Description: "Shows the worker's log and the guest's console, also of a VM that failed and is gone.",
		Action:      action(s.logs),
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
		if _, err := io.Copy(s.guestText(), stream); err != nil {
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
	_, err = io.WriteString(s.guestText(), reply.Logs)
	return err //nolint:wrapcheck // said once
}

// guestText is stdout for text that a guest had a part in: on a terminal without its control characters.
func (s *session) guestText() io.Writer {
	if isTerminal(s.env.Stdout) {
		return plainWriter{s.env.Stdout}
	}
	return s.env.Stdout
}

// plainWriter drops control characters but newline and tab, so that a guest's console cannot drive the user's terminal.
type plainWriter struct{ w io.Writer }

// Write writes the printable part of p. Bytes of 0x80-0x9f are part of UTF-8 letters, or C1 controls, which terminals take
// only when they are encoded; those are dropped by rune.
func (p plainWriter) Write(data []byte) (int, error) {
	text := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || (r >= ' ' && r < 0x7f) || r >= 0xa0 {
			return r
		}
		return -1
	}, string(data))
	if _, err := io.WriteString(p.w, text); err != nil {
		return 0, err //nolint:wrapcheck // an io.Writer hands errors through
	}
	return len(data), nil
}

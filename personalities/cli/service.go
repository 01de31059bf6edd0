package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func (s *session) serviceCommand() *cli.Command {
	return &cli.Command{
		Name: "service", Category: groupService, Usage: "start, stop, status", UsageText: "service start|stop|status",
		Description: "The service keeps the VMs. Any command that needs it starts it. Without a command, capsem service is the service\n" +
			"itself, in the foreground, for units and supervisors.",
		Subcommands: []*cli.Command{
			{
				Name: "start", Usage: "start it, unless it runs", UsageText: "service start", Description: "Starts the service in the background, unless it runs.",
				Action: action(s.serviceStart),
			},
			{
				Name: "stop", Usage: "stop it; VMs keep running", UsageText: "service stop",
				Description: "Stops the service. VMs keep running, and the next service takes them over.", Action: action(s.serviceStop),
			},
			{
				Name: "status", Usage: "what it does", UsageText: "service status [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "The same as capsem status.", Action: action(s.status),
			},
		},
	}
}

func (s *session) serviceStart(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	v, err := svc.Version(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.print(fmt.Sprintf("the service runs, pid %d\n", v.PID))
}

func (s *session) serviceStop(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.client()
	if err != nil {
		return err
	}
	reply, err := svc.Shutdown(ctx)
	if err != nil {
		if svcDown(err) {
			return s.print("the service was not running\n")
		}
		return err //nolint:wrapcheck // a fault
	}
	text := "the service has stopped; VMs keep running"
	switch reply.Attached {
	case 0:
	case 1:
		text += "; one command or forward that was attached has ended with it"
	default:
		text += fmt.Sprintf("; %d commands and forwards that were attached have ended with it", reply.Attached)
	}
	return s.print(text + "\n")
}

package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func nameFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "keep the VM, under `NAME`"}
}

func (s *session) createCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Category: groupSessions, Usage: "a VM, left running", Flags: append([]cli.Flag{nameFlag(), envFlag()}, sizeFlags()...),
		UsageText: "create [-n NAME] [flags]",
		Description: "Starts a VM, waits until it answers and prints its id. A named VM keeps its files when it is stopped; one without a\n" +
			"name is destroyed then.",
		Action: action(s.create),
	}
}

func (s *session) create(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	req, err := s.newVM(c, c.String("name"))
	if err != nil {
		return err
	}
	if req.Env, err = s.environment(c); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := s.provision(ctx, svc, req)
	if err != nil {
		return err
	}
	if req.Name != "" && isTerminal(s.env.Stderr) {
		fmt.Fprintf(s.env.Stderr, "capsem: VM %s is kept until capsem delete %s\n", req.Name, req.Name)
	}
	return s.print(reply.ID + "\n")
}

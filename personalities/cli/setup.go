package cli

import (
	"context"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/assets"
	"capsem/core/assets/build"
	"capsem/core/fault"
)

func (s *session) setupCommand() *cli.Command {
	return &cli.Command{
		Name: "setup", Category: groupService, Usage: "make all ready", UsageText: "setup [--profile dev|minimal]",
		Flags: []cli.Flag{&cli.StringFlag{Name: "profile", Value: "dev", Usage: "what is in the guest image: `PROFILE` is dev (the default) or minimal"}},
		Description: "Makes what is not there yet: the guest image, the service that runs, and the saved guest that new VMs start from. It can be\n" +
			"run again at any time.",
		Action: action(s.setup),
	}
}

func (s *session) setup(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	home, err := s.home()
	if err != nil {
		return err
	}
	if !assets.Health(home, runtime.GOARCH).Ready {
		if _, err := s.buildImage(ctx, build.Options{Arch: runtime.GOARCH, Profile: c.String("profile")}); err != nil {
			return err
		}
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	st, err := svc.Status(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	s.makeTemplate(ctx)
	return s.print(fmt.Sprintf("ready: image %s, %s; try capsem run 'uname -a'\n", clean(st.Assets.Version), clean(st.Accelerator)))
}

// makeTemplate makes the template for VMs of the default sizes if there is none. VMs boot without one, so it only warns.
func (s *session) makeTemplate(ctx context.Context) {
	svc, err := s.service(ctx)
	if err == nil {
		done := s.step("making the template that new VMs start from")
		_, err = svc.RebuildTemplate(ctx, api.RebuildTemplateRequest{IfMissing: true})
		done()
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(s.env.Stderr, "capsem: no template was made, so VMs boot: %s\n", fault.Line(err))
	}
}

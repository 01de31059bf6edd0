package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
)

func (s *session) templatesCommand() *cli.Command {
	return &cli.Command{
		Name: "templates", Category: groupService, Usage: "saved guests", UsageText: "templates list|rebuild|prune",
		Description: "New VMs go on from a template, a saved guest of the same image and sizes, instead of booting. One is made in the\n" +
			"background after the first start of its kind. Set vm.warm_start = false in user.toml to have none.",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "which templates there are", UsageText: "templates list [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Lists the templates, the one that was used last first.", Action: show(s, 0, 0, func(ctx context.Context, svc *client.Client, _ []string) (api.TemplatesReply, error) {
					return svc.Templates(ctx)
				}, templatesText),
			},
			{
				Name: "rebuild", Usage: "make one now", UsageText: "templates rebuild [--ram SIZE] [--cpu N] [--disk SIZE]",
				Flags:       append(sizeFlags()[:3:3], jsonFlag()),
				Description: "Makes the template for VMs of these sizes (the settings' if none are given) anew, and waits for it.",
				Action:      action(s.templatesRebuild),
			},
			{
				Name: "prune", Usage: "remove all", UsageText: "templates prune [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Removes all templates. VMs that started from them have all they need; later ones boot, and make new templates.",
				Action: show(s, 0, 0, func(ctx context.Context, svc *client.Client, _ []string) (api.PruneTemplatesReply, error) {
					return svc.PruneTemplates(ctx)
				},
					func(_ *cli.Context, reply api.PruneTemplatesReply) string {
						return fmt.Sprintf("removed %d templates\n", reply.Pruned)
					}),
			},
		},
	}
}

func templatesText(_ *cli.Context, reply api.TemplatesReply) string {
	table := newTable("TEMPLATE", "IMAGE", "RAM", "CPUs", "DISK", "ACCELERATOR", "SIZE", "MADE", "USED")
	for _, t := range reply.Templates {
		table.row(t.Key, t.Version, gigabytes(t.RAMMB), strconv.Itoa(t.CPUs), gigabytes(t.DiskMB), t.Accelerator, byteSize(t.SizeBytes), t.MadeAt, t.UsedAt)
	}
	if reply.Making {
		return table.String() + "one is being made\n"
	}
	return table.String()
}

func (s *session) templatesRebuild(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	vm, err := s.newVM(c, "")
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	done := s.step("making a template")
	reply, err := svc.RebuildTemplate(ctx, api.RebuildTemplateRequest{CPUs: vm.CPUs, RAMMB: vm.RAMMB, DiskMB: vm.DiskMB})
	done()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(templatesText(c, reply))
}

package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
)

func (s *session) templatesCommand() *cli.Command {
	return &cli.Command{
		Name: "templates", Category: groupService, Usage: "saved guests", UsageText: "templates list|rebuild|prune",
		Description: "New VMs go on from a template, a saved guest of the same image and sizes, instead of booting. One is made in the\n" +
			"background after the first start of its kind. Set vm.warm_start = false in user.toml to have none.",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "which templates there are", UsageText: "templates list [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Lists the templates, the one that was used last first.", Action: action(s.templatesList),
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
				Action:      action(s.templatesPrune),
			},
		},
	}
}

func (s *session) templatesList(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.Templates(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.showTemplates(c, reply)
}

func (s *session) showTemplates(c *cli.Context, reply api.TemplatesReply) error {
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TEMPLATE\tIMAGE\tRAM\tCPUs\tDISK\tACCELERATOR\tSIZE\tMADE\tUSED")
	for _, t := range reply.Templates {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", clean(t.Key), clean(t.Version), gigabytes(t.RAMMB), t.CPUs, gigabytes(t.DiskMB),
			clean(t.Accelerator), byteSize(t.SizeBytes), clean(t.MadeAt), clean(t.UsedAt))
	}
	_ = w.Flush() // a strings.Builder takes everything
	if reply.Making {
		b.WriteString("one is being made\n")
	}
	return s.print(b.String())
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
	return s.showTemplates(c, reply)
}

func (s *session) templatesPrune(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.PruneTemplates(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(fmt.Sprintf("removed %d templates\n", reply.Pruned))
}

package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
)

func (s *session) forkCommand() *cli.Command {
	return &cli.Command{
		Name: "fork", Category: groupImages, Usage: "make an image of a VM", UsageText: "fork [-d TEXT] VM IMAGE",
		Flags: []cli.Flag{&cli.StringFlag{Name: "description", Aliases: []string{"d"}, Usage: "what the image is for, as `TEXT`"}, jsonFlag()},
		Description: "Makes an image of a VM: its disk and, when it runs, its memory, so that what runs goes on in VMs of the image as it does in\n" +
			"the VM itself. capsem create --image IMAGE makes VMs of it.",
		Action: action(s.fork),
	}
}

func (s *session) fork(ctx context.Context, c *cli.Context) error {
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
	done := s.step("forking VM " + args[0])
	reply, err := svc.Fork(ctx, args[0], api.ForkRequest{Image: args[1], Description: c.String("description")})
	done()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(reply.Name + "\n")
}

func (s *session) imageCommand() *cli.Command {
	return &cli.Command{
		Name: "image", Aliases: []string{"images"}, Category: groupImages, Usage: "list, delete images", UsageText: "image list|inspect|delete",
		Description: "Images are what VMs were forked into. They need no other image and no VM.",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "which images there are", UsageText: "image list [--json]", Flags: []cli.Flag{jsonFlag()},
				Description: "Lists the images.", Action: action(s.imageList),
			},
			{
				Name: "inspect", Usage: "all about one", UsageText: "image inspect [--json] IMAGE", Flags: []cli.Flag{jsonFlag()},
				Description: "Says what an image is and where it came from.", Action: action(s.imageInspect),
			},
			{
				Name: "delete", Aliases: []string{"rm"}, Usage: "remove images", UsageText: "image delete IMAGE...",
				Description: "Removes images. VMs that were made of them have all they need.",
				Action: action(func(ctx context.Context, c *cli.Context) error {
					return s.each(ctx, c, "deleting image", func(svc *client.Client, name string) error {
						return svc.DeleteImage(ctx, name) //nolint:wrapcheck // a fault
					})
				}),
			},
		},
	}
}

func (s *session) imageList(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := svc.Images(ctx)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tFROM\tMEMORY\tSIZE\tCREATED\tDESCRIPTION")
	for _, i := range reply.Images {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", clean(i.Name), clean(i.From), memoryText(i), byteSize(i.SizeBytes), clean(i.CreatedAt), clean(i.Description))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return s.print(b.String())
}

func memoryText(i api.Image) string {
	if i.Memory {
		return "goes on"
	}
	return "boots"
}

func (s *session) imageInspect(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	i, err := svc.Image(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(i)
	}
	return s.print(fields([]field{
		{"image", clean(i.Name)},
		{"description", clean(i.Description)},
		{"from VM", clean(i.From)},
		{"parent image", clean(i.Parent)},
		{"memory", memoryText(i)},
		{"size", fmt.Sprintf("%s RAM, %d CPUs, %s disk", gigabytes(i.RAMMB), i.CPUs, gigabytes(i.DiskMB))},
		{"on disk", byteSize(i.SizeBytes)},
		{"guest image", clean(i.Version)},
		{"created", clean(i.CreatedAt)},
		{"variables", clean(strings.Join(i.Env, " "))},
	}))
}

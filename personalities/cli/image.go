package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/fault"
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
		Name: "image", Aliases: []string{"images"}, Category: groupImages, Usage: "list, delete images", UsageText: "image list|inspect|delete|export|import",
		Description: "Images are what VMs were forked into. They need no other image and no VM.",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "which images there are", UsageText: "image list [-q] [--json]",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "names only"}, jsonFlag()},
				Description: "Lists the images.", Action: show(s, 0, 0, func(ctx context.Context, svc *client.Client, _ []string) (api.ImagesReply, error) {
					return svc.Images(ctx)
				}, imageTable),
			},
			{
				Name: "inspect", Usage: "all about one", UsageText: "image inspect [--json] IMAGE", Flags: []cli.Flag{jsonFlag()},
				Description: "Says what an image is and where it came from.", Action: show(s, 1, 1, func(ctx context.Context, svc *client.Client, args []string) (api.Image, error) {
					return svc.Image(ctx, args[0])
				}, imageText),
			},
			{
				Name: "export", Usage: "write one to a file", UsageText: "image export IMAGE [FILE|-]",
				Description: "Writes an image, without the memory of what ran, as one archive to FILE (IMAGE.capsem.tar.zst if none is given), or to\n" +
					"standard output.",
				Action: action(s.imageExport),
			},
			{
				Name: "import", Usage: "make one of a file", UsageText: "image import IMAGE FILE|-",
				Description: "Makes an image of an archive that image export wrote. One that is cut or changed is refused whole.",
				Action:      action(s.imageImport),
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

func imageTable(c *cli.Context, reply api.ImagesReply) string {
	if c.Bool("quiet") {
		var b strings.Builder
		for _, i := range reply.Images {
			b.WriteString(clean(i.Name) + "\n")
		}
		return b.String()
	}
	t := newTable("IMAGE", "FROM", "MEMORY", "SIZE", "CREATED", "DESCRIPTION")
	for _, i := range reply.Images {
		t.row(i.Name, i.From, memoryText(i.Memory), byteSize(i.SizeBytes), i.CreatedAt, i.Description)
	}
	return t.String()
}

func memoryText(memory bool) string {
	if memory {
		return "goes on"
	}
	return "boots"
}

func imageText(_ *cli.Context, i api.Image) string {
	return fields([]field{
		{"image", clean(i.Name)},
		{"description", clean(i.Description)},
		{"from VM", clean(i.From)},
		{"parent image", clean(i.Parent)},
		{"memory", memoryText(i.Memory)},
		{"size", fmt.Sprintf("%s RAM, %d CPUs, %s disk", gigabytes(i.RAMMB), i.CPUs, gigabytes(i.DiskMB))},
		{"on disk", byteSize(i.SizeBytes)},
		{"guest image", clean(i.Version)},
		{"created", clean(i.CreatedAt)},
		{"variables", clean(strings.Join(i.Env, " "))},
	})
}

func (s *session) imageExport(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 2)
	if err != nil {
		return err
	}
	path := args[0] + ".capsem.tar.zst"
	if len(args) == 2 {
		path = args[1]
	}
	if path == "-" && isTerminal(s.env.Stdout) {
		return fault.New(fault.Invalid, "an archive is nothing for a terminal").WithHint("name a file, or use > FILE")
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	archive, err := svc.ExportImage(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	defer archive.Close()
	if path == "-" {
		_, err := io.Copy(s.env.Stdout, archive)
		return err //nolint:wrapcheck // names the file
	}
	done := s.step("exporting image " + args[0])
	defer done()
	return saveArchive(archive, path)
}

// saveArchive writes a new file, or none.
func saveArchive(archive io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fault.New(fault.Conflict, "%s is there already", path).WithHint("name another file, or remove it")
	}
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	_, err = io.Copy(f, archive)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (s *session) imageImport(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, 2)
	if err != nil {
		return err
	}
	from := s.env.Stdin
	if args[1] != "-" {
		f, err := os.Open(args[1])
		if err != nil {
			return fault.Wrap(err, fault.NotFound, "%s", err)
		}
		defer f.Close()
		from = f
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	done := s.step("importing image " + args[0])
	reply, err := svc.ImportImage(ctx, args[0], from)
	done()
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.print(reply.Name + "\n")
}

package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/urfave/cli/v2"

	"capsem/core/export"
	"capsem/core/fault"
)

func (s *session) exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Category: groupRecords, Usage: "a record for other tools", UsageText: "export --format FORMAT [-f] [-o FILE | --to URL] VM|SESSION",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Usage: "har, jsonl, ocsf, otlp or asciicast (`FORMAT`)"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to a new `FILE`"},
			&cli.StringFlag{Name: "to", Usage: "send otlp to the collector at `URL`, such as http://localhost:4318"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as it grows, while the VM runs (jsonl, ocsf, otlp)"},
		},
		Description: "Writes what happened in a VM in a form that other tools read: its requests as an HTTP archive (har), all events as lines of\n" +
			"JSON (jsonl), as security events (ocsf), as traces and metrics of OpenTelemetry (otlp), or its commands to be watched\n" +
			"(asciicast). Credentials were taken out when it was recorded.",
		Action: action(s.export),
	}
}

func (s *session) export(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	format := c.String("format")
	if format == "" {
		return fault.New(fault.Invalid, "a format is missing").WithHint("give --format har, jsonl, ocsf, otlp or asciicast")
	}
	if c.Bool("follow") && c.String("output") != "" {
		return fault.New(fault.Invalid, "what is followed goes to the output").WithHint("use > FILE, or | and a program")
	}
	to, err := collector(c, format)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	in, err := svc.Export(ctx, args[0], format, c.Bool("follow"))
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	defer in.Close()
	if to != nil {
		return export.Send(ctx, in, to) //nolint:wrapcheck // a fault
	}
	if name := c.String("output"); name != "" && name != "-" {
		return saveArchive(in, name)
	}
	if _, err := io.Copy(s.env.Stdout, in); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// collector is where to send to, nil if nowhere.
func collector(c *cli.Context, format string) (*url.URL, error) {
	text := c.String("to")
	switch {
	case text == "":
		return nil, nil //nolint:nilnil // nowhere is no error
	case format != export.OTLP:
		return nil, fault.New(fault.Invalid, "--to is for --format otlp")
	case c.String("output") != "":
		return nil, fault.New(fault.Invalid, "--to and --output do not go together")
	}
	return export.Endpoint(text) //nolint:wrapcheck // a fault
}
